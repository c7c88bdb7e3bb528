"""The signature `image_bytes` of a SavedModel: from the bytes of one image file to outputs at the image's own size.

It does in the graph what `seg.prediction` does on the host, with the same results for PNG and BMP files. TensorFlow
decodes JPEG files with a few grey levels of difference, reads no TIFF files, and ignores the orientation in EXIF data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from seg.ops.sizes import fitted_size

INPUT = tf.TensorSpec((), tf.string, 'image_bytes')


def of_bytes(
    network: Callable[[Any, Any], dict[str, Any]], kind: str, canvas: tuple[int, int], fills: bool
) -> Callable[[Any], dict[str, Any]]:
    """Returns the function of an image file's bytes.

    Args:
      network: from `seg.export.network`; a semantic one with probabilities.
      kind: 'semantic' or 'instance'.
      canvas: (height, width) of the network's images.
      fills: whether an image smaller than the canvas is scaled up.

    Returns:
      Function of the content of a JPEG, PNG, GIF, BMP or WebP file [H, W]. Of a semantic network it returns `classes`
      and `confidence`, [H, W]; of another one `boxes` [D, 4] in pixels of the image, `scores` [D] by decreasing score,
      `classes` int32 [D], `masks` uint8 [D, H, W], 1 for the pixels of the instance, and `num_detections`, D.
    """

    def predict(image_bytes: Any) -> dict[str, Any]:
        pixels = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        pixels = tf.ensure_shape(pixels, (None, None, 3))
        size = tf.shape(pixels)[:2]
        fitted = fitted_size(tf.unstack(tf.cast(size, tf.int64)), canvas, tf.clip_by_value)
        scaled = tf.reduce_any(size > canvas) | fills
        on_canvas = tf.where(scaled, tf.cast(tf.stack(fitted), tf.int32), size)

        def resized() -> Any:
            values = tf.image.resize(pixels, on_canvas, antialias=True)
            return tf.cast(tf.round(tf.clip_by_value(values, 0, 255)), tf.uint8)

        image = tf.cond(scaled, resized, lambda: pixels)
        rest = canvas - on_canvas
        image = tf.ensure_shape(tf.pad(image, [[0, rest[0]], [0, rest[1]], [0, 0]]), (*canvas, 3))
        found = {name: value[0] for name, value in network(image[None], on_canvas[None]).items()}
        return (_maps if kind == 'semantic' else _instances)(found, on_canvas, size)

    return predict


def _maps(found: Mapping[str, Any], on_canvas: Any, size: Any) -> dict[str, Any]:
    """Class maps at the image's size: the probabilities are scaled, as `canvas.upscaled` does."""
    probabilities = tf.image.resize(found['probabilities'][: on_canvas[0], : on_canvas[1]], size)
    classes = tf.argmax(probabilities, -1, output_type=tf.int32)
    return {'classes': tf.cast(classes, found['classes'].dtype), 'confidence': tf.reduce_max(probabilities, -1)}


def _instances(found: Mapping[str, Any], on_canvas: Any, size: Any) -> dict[str, Any]:
    """Detections in the image's own pixels, without empty rows, and their masks pasted."""
    count = found['num_detections']
    boxes, scores, classes, masks = (found[name][:count] for name in ('boxes', 'scores', 'classes', 'masks'))
    boxes = tf.cast(boxes, tf.float64) * tf.tile(size / on_canvas, [2])
    paste = lambda pair: _pasted(*pair, size)  # noqa: E731
    spec = tf.TensorSpec((None, None), tf.uint8)
    pasted = tf.map_fn(paste, (masks, boxes), fn_output_signature=spec)
    limits = tf.cast(tf.tile(size, [2]), tf.float64)
    return {
        'boxes': tf.cast(tf.clip_by_value(boxes, 0, limits), tf.float32),
        'scores': scores,
        'classes': classes,
        'masks': pasted,
        'num_detections': count,
    }


def _pasted(mask: Any, box: Any, size: Any) -> Any:
    """One mask in an image of a size, uint8 [H, W], as `seg.masks.paste` pastes it."""
    weights, inside = zip(*(_places(box[i], box[i + 2], size[i], mask.shape[i]) for i in range(2)), strict=True)
    values = tf.matmul(tf.matmul(weights[0], mask), weights[1], transpose_b=True)
    return tf.cast((values >= 0.5) & inside[0][:, None] & inside[1][None], tf.uint8)


def _places(start: Any, end: Any, side: Any, cells: int) -> tuple[Any, Any]:
    """Along one axis, the weight of each cell in each pixel, [side, cells], and which pixels lie in the box, [side]."""
    pixels = tf.range(tf.cast(side, tf.float64), dtype=tf.float64)
    first, stop = tf.math.ceil(start - 0.5), tf.math.ceil(end - 0.5)  # Centres in [start, end).
    empty = (stop == first) & (end > start)
    first = tf.where(empty, tf.floor((start + end) / 2), first)
    stop = tf.where(empty, first + 1, stop)
    place = (pixels + 0.5 - start) * (cells / (end - start)) - 0.5
    place = tf.clip_by_value(place, 0, cells - 1)
    weights = tf.maximum(1 - tf.abs(place[:, None] - tf.range(cells, dtype=tf.float64)), 0)
    return tf.cast(weights, tf.float32), (pixels >= first) & (pixels < stop)
