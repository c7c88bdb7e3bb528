"""The exported function: images as uint8 in, named outputs out, with everything in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from seg.structures import PAD_PIXEL

INPUTS = {
    'images': 'uint8 [N, H, W, 3]: RGB images at the top left of the canvas; other values do not count',
    'sizes': 'int32 [N, 2]: height and width of each image within the canvas, in pixels',
}
_SEMANTIC = {
    'classes': '{ids} [N, H, W]: class of each pixel; undefined outside of an image',
    'confidence': 'float32 [N, H, W]: probability of that class',
    'probabilities': 'float32 [N, H, W, {k}]: probability of every class',
}
_INSTANCE = {
    'boxes': 'float32 [N, {d}, 4]: y0, x0, y1, x1 in pixels of the canvas; 0 in empty rows',
    'scores': 'float32 [N, {d}]: by decreasing score; 0 in empty rows',
    'classes': 'int32 [N, {d}]: class of each detection; -1 in empty rows, which come last',
    'masks': 'float32 [N, {d}, {m}, {m}]: probabilities over each box; a pixel belongs to the instance from 0.5 on',
    'num_detections': 'int32 [N]: number of rows that are not empty',
}


def network(task, kind: str, canvas: tuple[int, int], probabilities: bool) -> Callable[[Any, Any], dict[str, Any]]:
    """Returns the function to export, in `keras.ops`.

    The function fills the padding itself, so a caller may leave any values outside of the images.

    Args:
      task: a task, whose `predict` is called.
      kind: 'semantic' or 'instance'.
      canvas: (height, width) of all images.
      probabilities: whether a semantic model also returns the probability of every class.
    """

    def predict(images: Any, sizes: Any) -> dict[str, Any]:
        found = task.predict(padded(images, sizes, canvas))
        return _semantic(found, probabilities) if kind == 'semantic' else _instance(found)

    return predict


def padded(images: Any, sizes: Any, canvas: tuple[int, int]) -> dict[str, Any]:
    """The model's batch, `image` float32 and `size`, from `INPUTS`; fills the canvas outside of the images."""
    size = ops.clip(sizes, 1, ops.convert_to_tensor(canvas, 'int32'))
    rows, columns = (ops.arange(side, dtype='int32') < size[:, axis, None] for axis, side in enumerate(canvas))
    inside = ops.logical_and(rows[:, :, None], columns[:, None, :])[..., None]
    image = ops.where(inside, ops.cast(images, 'float32'), ops.convert_to_tensor(PAD_PIXEL, dtype='float32'))
    return {'image': image, 'size': size}


def _semantic(found: Mapping[str, Any], probabilities: bool) -> dict[str, Any]:
    outputs = {
        'classes': ops.cast(found['classes'], class_dtype(found['probabilities'].shape[-1])),
        'confidence': ops.cast(found['confidence'], 'float32'),
    }
    return outputs | ({'probabilities': ops.cast(found['probabilities'], 'float32')} if probabilities else {})


def _instance(found: Mapping[str, Any]) -> dict[str, Any]:
    there = ops.cast(found['classes'] >= 0, 'int32')
    outputs = {name: ops.cast(found[name], 'float32') for name in ('boxes', 'scores', 'masks')}
    return outputs | {'classes': ops.cast(found['classes'], 'int32'), 'num_detections': ops.sum(there, axis=1)}


def class_dtype(classes: int) -> str:
    """The dtype of a class map."""
    return 'uint8' if classes <= 256 else 'int32'


def meanings(outputs: Mapping[str, Any], kind: str) -> dict[str, str]:
    """What each output is, for the file's description; `outputs` are tensors or their specs."""
    if kind == 'semantic':
        names = {'ids': keras.backend.standardize_dtype(outputs['classes'].dtype)}
        if 'probabilities' in outputs:
            names['k'] = outputs['probabilities'].shape[-1]
        return {name: _SEMANTIC[name].format(**names) for name in outputs}
    d, m = outputs['masks'].shape[1:3]
    return {name: _INSTANCE[name].format(d=d, m=m) for name in _INSTANCE}
