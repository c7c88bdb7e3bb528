"""Procedural scenes: textured shapes on textured backgrounds, endless, without files."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from seg.datasets import outlines
from seg.datasets.base import Dataset, check_target, histogram, instances
from seg.drawing.palette import class_palette, instance_palette
from seg.errors import UserError
from seg.masks import ragged
from seg.number_checks import check_counts, check_number, check_whole
from seg.registry import datasets
from seg.structures import ClassHistogram, DatasetInfo

_SPLITS = ('train', 'val')
_VAL_EXAMPLES = 128
_HISTOGRAM_EXAMPLES = 200
_LARGEST = 0.56  # Largest extent of an instance, as a fraction of the scene's shorter side.
_COMMON = 0.3  # Most instances are larger than this fraction of the shorter side.
_SMALL_FRACTION = 0.04  # Fraction of the others.
_TURN = math.pi / 8  # Instances are rotated by up to this angle in either direction.
_RELIEF = 0.4  # Fraction of the brightness that the slope of a relief adds or subtracts.
_DRAWS = 28  # Random numbers per layer.
_NOISE_CELLS = 12  # Cells of the smooth noise along each side.
_TEXTURES = 4  # Stripes, checkers, a gradient, smooth noise.


@datasets.register('shapes')
def shapes(
    *,
    split: str = 'train',
    seed: int = 0,
    target: str = 'label_map',
    size: Sequence[int] = (128, 128),
    num_examples: int | None = None,
    min_objects: int = 3,
    max_objects: int = 5,
    min_object_size: float = 12.0,
    noise: float = 6.0,
) -> Shapes:
    """Endless drawn scenes of textured shapes, of seven classes, that occlude one another; needs no files.

    A scene is a function of (seed, split, index) alone. Scenes of `val` do not depend on the seed, so that all runs
    are scored on the same images, and no scene belongs to both splits.

    Args:
      split: 'train' or 'val'.
      seed: seed of the run.
      target: supplied; 'label_map' (background is class 0) or 'instances' (the classes are the shapes alone).
      size: (height, width) of every scene, in pixels.
      num_examples: length of the split; None for endless in `train` and 128 in `val`.
      min_objects: least number of instances drawn.
      max_objects: greatest number of instances drawn.
      min_object_size: least extent of an instance, in pixels. Most have an extent between 0.3 and 0.56 of the
        scene's shorter side.
      noise: amplitude of the uniform pixel noise, in grey levels of 255.

    Raises:
      UserError: if a setting is out of its range.
    """
    if split not in _SPLITS:
        raise UserError(f"datasets.shapes.split = {split!r}: the splits are 'train' and 'val'.")
    check_target('datasets.shapes', target, ['label_map', 'instances'])
    sides = tuple(size) if isinstance(size, Sequence) else (size,)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 32 for side in sides):
        raise UserError(
            f'datasets.shapes.size = {size!r}: expected (height, width), two whole numbers of at least 32 pixels.'
        )
    if num_examples is not None:
        check_whole('datasets.shapes.num_examples', num_examples)
    check_counts('datasets.shapes', min_objects=min_objects, max_objects=max_objects)
    if min_objects > max_objects:
        raise UserError(
            f'datasets.shapes.min_objects = {min_objects!r}, datasets.shapes.max_objects = {max_objects!r}: '
            'expected min_objects <= max_objects.'
        )
    check_number('datasets.shapes.min_object_size', min_object_size, 4)
    if min_object_size > _LARGEST * min(sides):
        raise UserError(
            f'datasets.shapes.min_object_size = {min_object_size!r}: expected 4 to {_LARGEST * min(sides):.0f} pixels, '
            f'which is {_LARGEST} of the shorter side of datasets.shapes.size = {sides}.'
        )
    check_number('datasets.shapes.noise', noise, 0, 255)
    if num_examples is None and split == 'val':
        num_examples = _VAL_EXAMPLES
    return Shapes(split, seed, target, sides, num_examples, (min_objects, max_objects), min_object_size, noise)


class Shapes(Dataset):
    """The data set made by `shapes`.

    Examples have `image` uint8 [H, W, 3], and for the target
    - label_map: `label` int32 [H, W].
    - instances: `boxes` float32 [N, 4] (y0, x0, y1, x1, around the visible pixels), `classes` int32 [N], `is_crowd`
      bool [N], `area` float32 [N] (visible pixels), `masks` int32 [N, (ends)] (visible pixels, see `seg.masks.runs`).
      Instances without a visible pixel are omitted.
    """

    def __init__(self, split, seed, target, size, num_examples, objects, min_object_size, noise):
        without_background = target == 'instances'
        names = outlines.NAMES if without_background else ('background', *outlines.NAMES)
        self.info = DatasetInfo(
            name=f'shapes/{split}',
            class_names=names,
            num_examples=num_examples,
            max_size=size,
            colors=instance_palette(len(names)) if without_background else class_palette(names),
        )
        self._split, self._target, self._scenes = split, target, _Scenes(size, objects, min_object_size, noise)
        # The two splits draw from different random keys, for any seed.
        self._key = (_SPLITS.index(split) << 32) + (seed % 2**32 if split == 'train' else 0)

    def image_name(self, index: int) -> str:
        """Name of a scene, such as `val-00017`."""
        return f'{self._split}-{index:05d}'

    @functools.cached_property
    def _histogram(self) -> ClassHistogram:
        num_classes = self.info.num_classes
        skipped = 1 if self._target == 'instances' else 0

        @tf.autograph.experimental.do_not_convert
        def count(index):
            return tf.math.bincount(self._draw(index)[1], minlength=num_classes + skipped, dtype=tf.int64)[skipped:]

        scenes = tf.data.Dataset.range(min(self.info.num_examples or _HISTOGRAM_EXAMPLES, _HISTOGRAM_EXAMPLES))
        counts = np.stack(list(scenes.map(count, num_parallel_calls=tf.data.AUTOTUNE).as_numpy_iterator()))
        return histogram(counts)

    def class_histogram(self) -> ClassHistogram:
        """Pixels by class, counted over the first 200 scenes of the split."""
        return self._histogram

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws one example; `index` may be beyond `num_examples`."""
        image, label, owner, classes = self._draw(index)
        if self._target == 'label_map':
            return {'image': image, 'label': label}
        return {'image': image, **self._instances(owner, classes)}

    def _instances(self, owner, classes):
        """The visible instances, from the instance that is visible at each pixel (0 is background)."""
        numbers, masks = ragged.from_labels(owner)
        return instances(masks, tf.gather(classes, numbers - 1), self._scenes.size[0])

    def _draw(self, index):
        """As `_Scenes.draw`. A single scene is drawn faster than a graph is made."""
        draw = self._scenes.draw if tf.executing_eagerly() else _graph(self._scenes)
        return draw(tf.constant(self._key, tf.int64), tf.cast(index, tf.int64))


@dataclasses.dataclass(frozen=True)
class _Scenes:
    """Draws scenes with these settings, which are those of `shapes`."""

    size: tuple[int, int]
    objects: tuple[int, int]
    min_object_size: float
    noise: float

    @functools.cached_property
    def _atlas(self):
        return outlines.atlas()

    @functools.cached_property
    def _spread(self):
        return [_spline_weights(side, _NOISE_CELLS) for side in self.size]

    def draw(self, key, index):
        """Draws a scene.

        Args:
          key: int64 scalar, by seed and split.
          index: int64 scalar.

        Returns:
          image uint8 [H, W, 3], label int32 [H, W], owner int32 [H, W] (0 = background), classes int32 [N].
        """
        height, width = self.size
        layers = self.objects[1] + 1  # The background, then the instances from back to front.
        seeds = [tf.stack([key + (part << 40), index]) for part in (0, 1, 2)]
        draw = functools.partial(tf.random.stateless_uniform, alg='philox')
        # One row of numbers in [0, 1) per layer; `take` returns the next column.
        columns = iter(tf.unstack(draw([layers, _DRAWS], seeds[0]), axis=1))
        take = functools.partial(next, columns)

        classes, distance = self._place(take)
        coverage = tf.clip_by_value(0.5 - distance, 0.0, 1.0)
        shadow = tf.clip_by_value(1.0 - distance / (0.04 * min(self.size)), 0.0, 1.0)
        label, owner = tf.zeros([height, width], tf.int32), tf.zeros([height, width], tf.int32)
        depth = tf.zeros([height, width])  # Distance in pixels from the outline of the visible instance, inwards.
        clear = tf.ones([height, width])  # Transmittance of the layers so far, from front to back.
        shares = []
        for number in reversed(range(layers - 1)):
            inside = (distance[number] < 0) & (owner == 0)
            owner = tf.where(inside, number + 1, owner)
            label = tf.where(inside, classes[number] + 1, label)
            depth = tf.where(inside, -distance[number], depth)
            shares.append(clear * coverage[number])
            clear = clear * (1.0 - coverage[number]) * (1.0 - 0.25 * shadow[number])
        shares = tf.stack([clear, *reversed(shares)])

        pattern = self._pattern(take, draw([layers, _NOISE_CELLS + 2, _NOISE_CELLS + 2], seeds[1], -1.0, 1.0))
        # Every layer has a colour where its pattern is -1 and one where it is +1.
        middle, swing = self._colors(take)
        mixed = tf.reshape(tf.concat([shares, shares * pattern], axis=0), [2 * layers, -1])
        image = tf.reshape(tf.matmul(mixed, tf.concat([middle, swing], axis=0), transpose_a=True), [height, width, 3])

        light, down, across = take()[0], take()[0], take()[0]
        down = (down - 0.5) * 0.5 * tf.linspace(-1.0, 1.0, height)[:, None]
        across = (across - 0.5) * 0.5 * tf.linspace(-1.0, 1.0, width)[None, :]
        image = image * (0.75 + 0.4 * light + down + across + _relief(depth, take()[0]))[..., None]
        image = image + draw([height, width, 3], seeds[2], -self.noise, self.noise)
        return tf.saturate_cast(tf.round(image), tf.uint8), label, owner, classes

    def _place(self, take):
        """Returns classes int32 [N] and every pixel's distance to each outline in pixels, < 0 inside, [N, H, W]."""
        height, width = self.size
        least, most = self.objects
        count = least + tf.cast(take()[0] * (most - least + 1), tf.int32)
        classes = tf.cast(take()[1:] * len(outlines.NAMES), tf.int32)

        largest, common = _LARGEST * min(self.size), max(_COMMON * min(self.size), self.min_object_size)
        chosen, within = take()[1:], take()[1:]
        extent = tf.where(
            chosen < _SMALL_FRACTION,
            self.min_object_size + within * (common - self.min_object_size),
            common + within * (largest - common),
        )
        # Large instances are mostly behind small ones, so that few instances are hidden completely.
        extent = tf.gather(extent, tf.argsort(extent * (0.6 + 0.8 * take()[1:]), direction='DESCENDING'))
        radius = extent / 2
        # Each instance starts from a cell of its own in a grid and is shifted at random, so that few are in one place.
        columns = math.ceil(math.sqrt(most))
        rows = math.ceil(most / columns)
        cell = tf.argsort(take()[1:])
        y = (tf.cast(cell // columns, tf.float32) + 0.5 + 0.9 * (take()[1:] - 0.5)) / rows * height
        x = (tf.cast(cell % columns, tf.float32) + 0.5 + 0.9 * (take()[1:] - 0.5)) / columns * width
        y = tf.clip_by_value(y, 0.6 * radius, height - 0.6 * radius)
        x = tf.clip_by_value(x, 0.6 * radius, width - 0.6 * radius)
        angle = (take()[1:] - 0.5) * (2 * _TURN)
        stretch = tf.exp((take()[1:] - 0.5) * 0.3)  # The longer axis is at most 1.16 times the shorter.

        # From a pixel of the scene to a position in the atlas, whose pixel centres cover [-REACH, REACH].
        cells = self._atlas.shape[1]
        per_radius = cells / (2 * outlines.REACH)
        cos, sin = tf.cos(angle) / radius * per_radius, tf.sin(angle) / radius * per_radius
        a, b, c, d = cos / stretch, sin / stretch, -sin * stretch, cos * stretch
        zero, middle = tf.zeros_like(a), (cells - 1) / 2
        left, top = 0.5 - x, 0.5 - y
        transforms = [a, b, a * left + b * top + middle, c, d, c * left + d * top + middle, zero, zero]
        distance = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.gather(self._atlas, classes),
            transforms=tf.stack(transforms, axis=1),
            output_shape=[height, width],
            fill_value=1.0,
            interpolation='BILINEAR',
            fill_mode='CONSTANT',
        )[..., 0]
        drawn = tf.range(most) >= most - count  # The last ones are drawn: the small ones in front.
        return classes, tf.where(drawn, radius, math.inf)[:, None, None] * tf.where(drawn[:, None, None], distance, 1.0)

    def _pattern(self, take, grid):
        """Returns a pattern in [-1, 1] for every layer, [layers, H, W]."""
        height, width = self.size
        scale = min(self.size) / 128
        kind = tf.cast(take() * _TEXTURES, tf.int32)
        stripes, checkers, gradient = kind == 0, kind == 1, kind == 2
        period = tf.where(gradient, 60.0 + 120.0 * take(), tf.where(stripes, 6.0, 12.0) * (1.0 + take())) * scale
        wave, angle = 2 * math.pi / period, take() * (2 * math.pi)
        first = _sine_plane(height, width, wave * tf.sin(angle), wave * tf.cos(angle), take() * 6.28)
        wave = tf.where(checkers, wave, 0.0)  # A sine of frequency 0 and phase pi / 2 is 1.
        phase = tf.where(checkers, take() * 6.28, math.pi / 2)
        second = _sine_plane(height, width, wave * tf.cos(angle), -wave * tf.sin(angle), phase)
        smooth = tf.matmul(tf.matmul(self._spread[0], grid), self._spread[1], transpose_b=True)
        is_wave = stripes | checkers | gradient
        gain = tf.where(gradient, 1.0, 1.5 + 2.5 * take()) * tf.cast(is_wave, tf.float32)
        smooth = smooth * tf.where(is_wave, 0.5, 2.5)[:, None, None]
        return tf.clip_by_value(first * second * gain[:, None, None] + smooth, -1.0, 1.0)

    def _colors(self, take):
        """Returns the mean of the two colours of every layer and half their difference, [layers, 3] each."""
        middle = 40.0 + 175.0 * tf.stack([take(), take(), take()], axis=1)
        # Instances must differ from the background: colours too close to its own are moved away from it.
        apart = middle - middle[:1]
        length = tf.norm(apart, axis=1, keepdims=True)
        middle = middle[:1] + apart * tf.maximum(1.0, 100.0 / tf.maximum(length, 1.0))
        swing = 5.0 + 20.0 * take()[:, None]
        tint = tf.stack([take(), take(), take()], axis=1) - 0.5
        return middle, swing * (0.6 + tint)


@functools.lru_cache(maxsize=16)
def _graph(scenes: _Scenes):
    """Its `draw` as a graph: to trace it takes longer than to draw many scenes, so a process does it once."""
    return tf.function(scenes.draw, input_signature=[tf.TensorSpec([], tf.int64)] * 2, autograph=False)


def _relief(depth, draw):
    """Brightness of a relief that rises inwards from each outline and is lit roughly from above, [H, W]."""
    angle = (draw - 0.5) * (2 * _TURN)
    padded = tf.pad(depth, [[1, 1], [1, 1]], 'SYMMETRIC')
    down, across = padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]
    return _RELIEF * tf.clip_by_value((down * tf.cos(angle) + across * tf.sin(angle)) / 2, -1.0, 1.0)


def _sine_plane(height, width, down, across, phase):
    """sin(down * y + across * x + phase) for every pixel, [layers, H, W], by the addition theorem."""
    y = down[:, None] * (tf.range(height, dtype=tf.float32) - height / 2) + phase[:, None]
    x = across[:, None] * (tf.range(width, dtype=tf.float32) - width / 2)
    return tf.matmul(tf.stack([tf.sin(y), tf.cos(y)], axis=2), tf.stack([tf.cos(x), tf.sin(x)], axis=1))


def _spline_weights(length: int, cells: int) -> np.ndarray:
    """Weights [length, cells + 2] of the control points of a uniform cubic B-spline, one row per pixel centre."""
    position = (np.arange(length) + 0.5) / length * cells - 0.5
    offset = np.abs(position[:, None] - np.arange(-1, cells + 1)[None, :])
    near = 2 / 3 - offset**2 + offset**3 / 2
    far = np.maximum(2 - offset, 0) ** 3 / 6
    return np.where(offset < 1, near, far).astype(np.float32)
