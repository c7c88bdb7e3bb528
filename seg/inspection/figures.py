"""Figures of examples of a data set, embedded in a page."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from seg.datasets.base import Dataset
from seg.drawing import examples
from seg.drawing.palette import class_palette, instance_palette
from seg.errors import UserError
from seg.masks import ragged

_QUALITY = 80


class Embedded(NamedTuple):
    """A figure for a page: the name of its image, the data URI, and its width and height in pixels."""

    name: str
    uri: str
    width: int
    height: int


def of_example(dataset: Dataset, index: int) -> Embedded | None:
    """The figure of an example as it is loaded; None if it cannot be."""
    info, name = dataset.info, dataset.image_name(index)
    try:
        with tf.device('CPU:0'):
            example = dataset.load(tf.constant(index, tf.int64))
            image = example['image'].numpy()
            if 'label' in example:
                colors = info.colors or class_palette(info.class_names)
                label = example['label'].numpy()
                if label.shape != image.shape[:2]:
                    return embed(name, examples.alone(name, image))
                pixels = examples.label_map(
                    name,
                    image,
                    label,
                    class_names=info.class_names,
                    colors=colors,
                    ignore_label=info.ignore_label,
                )
            elif 'masks' in example:
                colors = info.colors or instance_palette(info.num_classes)
                truth = ragged.annotations(example, *image.shape[:2])
                pixels = examples.instances(name, image, truth, class_names=info.class_names, colors=colors)
            else:
                pixels = examples.alone(name, image)
    except (tf.errors.OpError, OSError, EOFError, UserError):
        return None
    return embed(name, pixels)


def embed(name: str, pixels: np.ndarray) -> Embedded:
    """Encodes a figure, uint8 [h, w, 3], as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG', quality=_QUALITY, subsampling=0)
    uri = f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'
    return Embedded(name, uri, pixels.shape[1], pixels.shape[0])
