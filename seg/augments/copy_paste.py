"""Copy-paste: instances of another image are pasted into this one."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from seg.augments import instances
from seg.augments.scale_crop_flip import ScaleCropFlip
from seg.errors import UserError
from seg.masks import ragged
from seg.number_checks import check_fractions
from seg.registry import augments

Example = dict[str, tf.Tensor]


@augments.register('copy_paste')
def copy_paste(
    *,
    other: Callable[[tf.Tensor], Example],
    probability: float = 0.5,
    object_probability: float = 0.5,
    min_scale: float = 0.1,
    max_scale: float = 2.0,
    flip: bool = True,
    min_visible: float = 0.1,
) -> CopyPaste:
    """Instances of another image pasted at random, as in simple copy-paste (Ghiasi et al., 2021, arXiv:2012.07177).

    It follows the augment that gives all images one size. The other image is scaled, cropped and mirrored on its own.
    Then some of its instances are pasted with their pixels, without blending at their edges. Instances behind them keep
    their visible part.

    Args:
      other: supplied: function from a seed, int32 [2], to a random training example in the form of `instances.begin`.
      probability: probability that anything is pasted, 0..1.
      object_probability: probability of pasting each instance of the other image, 0..1; crowds are never pasted.
      min_scale: smallest factor by which the other image is scaled; with 1 it just fits into this one.
      max_scale: largest factor.
      flip: whether the other image is mirrored left to right with probability 1/2.
      min_visible: instances of which a smaller fraction is still visible are dropped, 0..1.

    Raises:
      UserError: if a setting is out of its range.
    """
    slot = 'augments.copy_paste'
    check_fractions(slot, probability=probability, object_probability=object_probability, min_visible=min_visible)
    if not 0 < min_scale <= max_scale:
        raise UserError(
            f'{slot}.min_scale = {min_scale!r}, {slot}.max_scale = {max_scale!r}: expected 0 < min_scale <= max_scale.'
        )
    return CopyPaste(other, probability, object_probability, (min_scale, max_scale), flip, min_visible)


class CopyPaste:
    """The augment made by `copy_paste`.

    Pasted instances keep their masks in the frame of their own image. A partly occluded instance gets a new mask of its
    visible part, whose frame is its old box. Thus memory holds one map of the image's size, and a map of the box of one
    instance at a time.
    """

    def __init__(self, other, probability, object_probability, scales, flip, min_visible):
        self._other, self._probability, self._object_probability = other, probability, object_probability
        self._scales, self._flip, self._min_visible = scales, flip, min_visible

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Augments one example.

        Args:
          example: with instances, and an image of static size.
          seed: int32 [2]; determines all random numbers.

        Returns:
          The example with the pasted instances after its own. The valid part grows to contain the other image's.

        Raises:
          UserError: if the size of the image is not known.
        """
        if 'view' not in example:
            raise UserError("augments.copy_paste pastes instances: it needs a task whose target is 'instances'.")
        if not example['image'].shape.is_fully_defined():
            raise UserError(
                'augments.copy_paste: the images have different sizes here. Put it after the augment that gives them '
                'one size, as @augments.scale_crop_flip does.'
            )
        keys = ('image', 'size', *instances.KEYS)
        before = {key: example[key] for key in keys}
        draw = tf.random.stateless_uniform([], seed, alg='philox')
        after = tf.cond(draw < self._probability, lambda: self._paste(before, seed), lambda: before)
        image = tf.ensure_shape(after['image'], example['image'].shape)
        return dict(example, **after) | {'image': image, 'size': tf.ensure_shape(after['size'], [2])}

    def _paste(self, example: Example, seed: tf.Tensor) -> Example:
        seeds = [tf.random.experimental.stateless_fold_in(seed, part) for part in (1, 2, 3)]
        source = self._other(seeds[0])
        chance = tf.random.stateless_uniform(tf.shape(source['classes']), seeds[1], alg='philox')
        source = instances.choose(source, tf.where((chance < self._object_probability) & ~source['is_crowd'])[:, 0])
        source['label'] = tf.cast(ragged.union(source['masks'], source['size']), tf.int32)
        size = tuple(example['image'].shape[:2])
        source = ScaleCropFlip(0, size, *self._scales, 0.0, self._flip, fit=True)(source, seeds[2])
        covered = source['label'] > 0
        pasted = {key: source[key] for key in instances.KEYS}
        behind = self._behind({key: example[key] for key in instances.KEYS}, covered)
        image = tf.where(covered[:, :, None], tf.cast(source['image'], example['image'].dtype), example['image'])
        joined = {key: tf.concat([part[key] for part in (*behind, pasted)], axis=0) for key in instances.KEYS}
        return {'image': image, 'size': tf.maximum(example['size'], source['size']), **joined}

    def _behind(self, present: Example, covered: tf.Tensor) -> tuple[Example, Example]:
        """The instances that are not occluded, and the visible parts of the others."""
        # Pixels covered within each box, from sums over all rectangles that begin at the top left.
        sums = tf.pad(tf.cumsum(tf.cumsum(tf.cast(covered, tf.int32), 0), 1), [[1, 0], [1, 0]])
        low, high = _pixels(present['boxes'])
        corner = lambda y, x: tf.gather_nd(sums, tf.stack([y[:, 0], x[:, 1]], axis=1))  # noqa: E731
        occluded = corner(high, high) - corner(low, high) - corner(high, low) + corner(low, low) > 0
        seen = self._seen(instances.choose(present, tf.where(occluded)[:, 0]), covered)
        return instances.choose(present, tf.where(~occluded)[:, 0]), seen

    def _seen(self, present: Example, covered: tf.Tensor) -> Example:
        """The visible parts of occluded instances."""
        boxes = present['boxes']
        low, high = _pixels(boxes)
        splits, ends = present['masks'].row_splits, present['masks'].values

        def visible_part(n):
            """Runs of one instance in the frame of its box, their box, and the numbers of visible pixels and of all."""
            own = ends[splits[n] : splits[n + 1]]
            own = tf.RaggedTensor.from_row_lengths(own, tf.size(own, tf.int64)[None], validate=False)
            centres = [tf.cast(tf.range(low[n, axis], high[n, axis]), tf.float32) + 0.5 for axis in (0, 1)]
            view, frame = present['view'][n], present['frame'][n : n + 1]

            def seen_through(first, second):
                """The mask at these positions along the rows and the columns of the frame."""
                factors = tf.reduce_sum(view[:, :2], axis=1)
                rows, columns = (
                    tf.cast(tf.floor(factors[axis] * along + view[axis, 2]), tf.int32)[None]
                    for axis, along in ((0, first), (1, second))
                )
                return instances.look_up(own, frame, rows, columns)

            whole = tf.cond(
                instances.swaps_axes(view[None])[0],
                lambda: tf.transpose(seen_through(centres[1], centres[0]), [0, 2, 1]),
                lambda: seen_through(*centres),
            )
            runs = ragged.from_dense(whole & ~covered[low[n, 0] : high[n, 0], low[n, 1] : high[n, 1]])
            box, area = ragged.boxes_and_areas(runs, high[n, 0] - low[n, 0])
            return runs.values, box[0], tf.stack([area[0], tf.math.count_nonzero(whole, dtype=tf.float32)])

        masks, inner, pixels = tf.map_fn(
            visible_part,
            tf.range(tf.shape(boxes)[0]),
            fn_output_signature=(tf.RaggedTensorSpec([None], tf.int32), tf.TensorSpec([4]), tf.TensorSpec([2])),
            parallel_iterations=1,
        )
        offset = tf.cast(low, tf.float32)
        inner = inner + tf.tile(offset, [1, 2])
        # Sides that are not occluded keep their position between pixels.
        inner = tf.concat([tf.maximum(inner[:, :2], boxes[:, :2]), tf.minimum(inner[:, 2:], boxes[:, 2:])], axis=1)
        fraction = pixels[:, 0] / tf.maximum(pixels[:, 1], 1.0)
        seen = present | {
            'boxes': inner,
            'area': present['area'] * fraction,
            'masks': masks,
            'frame': high - low,
            'view': tf.concat([tf.eye(2, batch_shape=[tf.shape(boxes)[0]]), -offset[:, :, None]], axis=2),
        }
        left = (fraction >= self._min_visible) & tf.reduce_all(
            inner[:, 2:] - inner[:, :2] >= instances.LEAST_SIDE, axis=1
        )
        return instances.choose(seen, tf.where(left)[:, 0])


def _pixels(boxes):
    """The first row and column of each box's pixels, and the first ones after them, int32 [N, 2] each."""
    return tf.cast(tf.floor(boxes[:, :2]), tf.int32), tf.cast(tf.math.ceil(boxes[:, 2:]), tf.int32)
