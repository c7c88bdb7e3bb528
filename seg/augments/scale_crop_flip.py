"""Random scale, crop and mirroring: the augmentation of DeepLab, and the scale jitter of Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from seg.augments import instances
from seg.errors import UserError
from seg.number_checks import check_number
from seg.ops.sizes import rounded
from seg.registry import augments
from seg.structures import PAD_PIXEL


@augments.register('scale_crop_flip')
def scale_crop_flip(
    *,
    ignore_label: int,
    size: Sequence[int] = (513, 513),
    min_scale: float = 0.5,
    max_scale: float = 2.0,
    scale_step: float = 0.25,
    flip: bool = True,
    fit: bool = False,
) -> ScaleCropFlip:
    """Random scale, random crop and random mirroring of an image and its label map or its instances.

    The defaults are DeepLab's (Chen et al., 2018, arXiv:1802.02611). With `fit=True, scale_step=0.0` it is the scale
    jitter that instance detectors train with, such as 0.8 to 1.25, or 0.1 to 2 for large-scale jitter (Ghiasi et al.,
    2021, arXiv:2012.07177).

    Args:
      ignore_label: label of the padding.
      size: (height, width) of the result, in pixels.
      min_scale: smallest factor by which the image is scaled.
      max_scale: largest factor.
      scale_step: step between the possible factors, from `min_scale` on; 0 allows all factors of the range.
      flip: whether the image is mirrored left to right with probability 1/2.
      fit: meaning of a factor of 1: False for the image as stored, True for the scale at which it just fits
        into `size`.

    Raises:
      UserError: if a setting is out of its range.
    """
    slot = 'augments.scale_crop_flip'
    sides = tuple(size) if isinstance(size, Sequence) else (size,)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f'{slot}.size = {size!r}: expected (height, width), two whole numbers above 0.')
    check_number(f'{slot}.min_scale', min_scale, above=True)
    check_number(f'{slot}.max_scale', max_scale, above=True)
    if min_scale > max_scale:
        raise UserError(
            f'{slot}.min_scale = {min_scale!r}, {slot}.max_scale = {max_scale!r}: expected min_scale <= max_scale.'
        )
    check_number(f'{slot}.scale_step', scale_step)
    return ScaleCropFlip(ignore_label, sides, min_scale, max_scale, scale_step, flip, fit)


class ScaleCropFlip:
    """The augment made by `scale_crop_flip`.

    The window that fills the crop is first cut out of the source and then scaled, so the cost depends on the crop, not
    on the scaled image. Pixels are areas: the centre of pixel i is at i + 0.5, for image and label map alike. The image
    is scaled bilinearly: down to a factor of 0.5, at which each result is the mean of the pixels below it, without a
    smoothing filter, and with one for smaller factors. The label map is scaled by nearest neighbour. Instances keep
    their masks and get new boxes and views, see `base`.
    """

    def __init__(self, ignore_label, size, min_scale, max_scale, scale_step, flip, fit):
        self._ignore_label, self._size, self._flip, self._fit = ignore_label, size, flip, fit
        self._min_scale, self._max_scale, self._scale_step = min_scale, max_scale, scale_step

    def __call__(self, example: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Augments one example.

        Args:
          example: `image` float32 [H, W, 3], `size` int32 [2], the valid region at the top left; `label` int32 [H, W]
            or `boxes`, `view` and so on of instances, or neither, see `base`.
          seed: int32 [2]; determines all random numbers.

        Returns:
          The example with `image` [h, w, 3], `label` [h, w], `size` [2]: the valid region is at the top left, and the
          padding below and right of it is `PAD_PIXEL` and the ignore label. Boxes are limited to the valid region, and
          instances that are narrower or lower than 1 pixel in it are dropped. Other keys are passed on.
        """
        draws = tf.unstack(tf.random.stateless_uniform([4], seed, alg='philox'))
        valid = example['size']
        scale, window, scaled = self._sizes(draws[0], valid)
        room = tf.cast(valid - window + 1, tf.float32)
        start = tf.minimum(tf.cast(tf.stack(draws[1:3]) * room, tf.int32), valid - window)
        mirrored = tf.logical_and(self._flip, draws[3] < 0.5)

        def mirror(pixels):
            return tf.cond(mirrored, lambda: tf.reverse(pixels, [1]), lambda: pixels)

        # Mirrored before it is padded, so that the valid region stays at the top left.
        image = tf.slice(example['image'], [start[0], start[1], 0], [window[0], window[1], 3])
        image = self._resize(mirror(image), scaled, scale)
        result = dict(example, image=self._pad(image, PAD_PIXEL), size=scaled)
        if 'label' in example:
            label = mirror(tf.slice(example['label'], start, window))
            rows, columns = (_nearest(scaled[axis], window[axis]) for axis in (0, 1))
            # Gathering rows is several times faster than gathering columns.
            label = tf.transpose(tf.gather(tf.transpose(tf.gather(label, rows)), columns))
            result['label'] = self._pad(label, self._ignore_label)
        if 'boxes' in example:
            factor = tf.cast(window, tf.float32) / tf.cast(scaled, tf.float32)
            far = tf.cast(tf.stack([start[0], start[1] + window[1]]), tf.float32)
            offset = tf.where(mirrored, far, tf.cast(start, tf.float32))
            result = instances.move(result, factor * tf.where(mirrored, [1.0, -1.0], [1.0, 1.0]), offset, scaled)
        return result

    def _sizes(self, draw, valid):
        """Returns the scale, and the sizes of the window before and after it is scaled.

        The window consists of whole pixels of the image. Sizes are computed in float64 and halves are rounded up, so
        that they equal those of an evaluation with the same factor.
        """
        scale = self._scale(tf.cast(draw, tf.float64))
        crop, exact, limit = tf.constant(self._size), tf.cast(valid, tf.float64), tf.constant(self._size, tf.float64)
        sides = exact * scale
        if self._fit:
            tight = tf.argmin(limit / exact)
            # The division is last: if the exact quotient ends in one half, so does its float64.
            sides = sides * limit[tight] / exact[tight]
            scale *= limit[tight] / exact[tight]
        window = tf.minimum(valid, tf.cast(tf.math.ceil(limit / scale), tf.int32))
        whole = tf.clip_by_value(tf.cast(rounded(sides), tf.int32), 1, crop)
        return scale, window, tf.where(window < valid, crop, whole)

    def _resize(self, image, scaled, scale):
        smoothed = lambda: tf.image.resize(image, scaled, antialias=True)  # noqa: E731
        plain = lambda: tf.image.resize(image, scaled)  # noqa: E731
        if not self._fit:
            return smoothed() if self._min_scale < 0.5 else plain()
        return tf.cond(scale < 0.5, smoothed, plain)  # The smoothing filter takes several times longer.

    def _scale(self, draw):
        if self._scale_step == 0:
            return self._min_scale + draw * (self._max_scale - self._min_scale)
        count = int((self._max_scale - self._min_scale) / self._scale_step + 1e-6) + 1
        return self._min_scale + self._scale_step * tf.floor(draw * count)

    def _pad(self, pixels, value):
        """Pads below and to the right. (Joining is several times faster here than `tf.where` with a mask.)"""
        height, width = self._size
        rows, columns = tf.unstack(tf.shape(pixels)[:2])
        channels = pixels.shape[2:]
        value = tf.constant(value, pixels.dtype)
        pixels = tf.concat([pixels, tf.broadcast_to(value, [rows, width - columns, *channels])], axis=1)
        pixels = tf.concat([pixels, tf.broadcast_to(value, [height - rows, width, *channels])], axis=0)
        return tf.ensure_shape(pixels, [height, width, *channels])


def _nearest(length, source):
    """Source index of each of `length` pixels: floor((i + 0.5) * source / length), in whole numbers."""
    return (2 * tf.range(length) + 1) * source // (2 * length)
