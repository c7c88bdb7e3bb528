"""Maps of images on a canvas against those of the images alone."""

import keras
import numpy as np

from seg.ops.valid_cells import images_on_canvas
from seg.structures import BackboneSpec


def check(net: keras.Model, tolerance: float) -> None:
    """Compares the maps of two images, which share a canvas, to a part of each map's largest value."""
    images = np.random.default_rng(1).uniform(0, 255, (2, 96, 80, 3))
    size = np.int32([[40, 33], [61, 80]])
    strides = {key: feature.stride for key, feature in BackboneSpec.of(net).features.items()}
    with images_on_canvas(size, (96, 80)):
        maps = net(images, training=False)
    for i, (height, width) in enumerate(size):
        alone = net(images[i : i + 1, :height, :width], training=False)
        for key, stride in strides.items():
            valid = maps[key][i, : -(-height // stride), : -(-width // stride)]
            np.testing.assert_allclose(valid, alone[key][0], atol=tolerance * np.abs(alone[key]).max())
