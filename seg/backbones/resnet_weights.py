"""Weights of ResNets: torchvision's `.pth` files, also those of its detectors, and Keras Applications' `.h5` files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from seg.errors import UserError
from seg.layers.torch_tensors import NORM
from seg.structures import Published

# URLs that the libraries themselves use, and checksums (torchvision's is part of the file's name).
_TORCHVISION = 'https://download.pytorch.org/models/'
_KERAS = 'https://storage.googleapis.com/tensorflow/keras-applications/resnet/'
_FILES = {
    ('torchvision', 'resnet18'): (f'{_TORCHVISION}resnet18-f37072fd.pth', 'sha256:f37072fd'),
    ('torchvision', 'resnet50'): (f'{_TORCHVISION}resnet50-0676ba61.pth', 'sha256:0676ba61'),
    ('torchvision', 'resnet101'): (f'{_TORCHVISION}resnet101-63fe2227.pth', 'sha256:63fe2227'),
    ('keras', 'resnet50'): (
        f'{_KERAS}resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5',
        'md5:4d473c1dd8becc155b73f8504c6f6626',
    ),
    ('keras', 'resnet101'): (
        f'{_KERAS}resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5',
        'md5:88cf7a10940856eca736dc7b7e228a21',
    ),
}
# Prefix of a backbone's tensors in a torchvision detector.
_DETECTOR = 'backbone.body.'
# Name of the first kernel in each library's files.
_STEM = {'torchvision': 'conv1.weight', 'keras': 'conv1_conv/kernel'}


def published(name: str, variant: str, depths: tuple[int, ...], width: float) -> Published:
    """Returns the description of a ResNet's published weights.

    Args:
      name: name of the backbone, such as 'resnet50'.
      variant: 'torchvision' or 'keras'.
      depths: blocks of each stage.
      width: factor of the channels; a published file exists only for 1.
    """
    url, checksum = _FILES[variant, name] if width == 1 else ('', '')
    convert = _from_torchvision if variant == 'torchvision' else _from_keras
    return Published(
        title=f'{name} of {"torchvision" if variant == "torchvision" else "Keras Applications"} on ImageNet',
        convert=lambda tensors: convert(tensors, name, depths),
        url=url,
        checksum=checksum,
    )


def _from_torchvision(tensors: dict[str, np.ndarray], name: str, depths: tuple[int, ...]) -> dict[str, np.ndarray]:
    if f'{_DETECTOR}{_STEM["torchvision"]}' in tensors:
        tensors = {key.removeprefix(_DETECTOR): value for key, value in tensors.items() if key.startswith(_DETECTOR)}
    _check(tensors, 'torchvision', name)
    arrays = {}
    for ours, stage, block, conv in _convolutions(depths):
        place = '' if stage == 1 else f'layer{stage - 1}.{block - 1}.'
        kernel, norm = (f'conv{conv}', f'bn{conv}') if conv else ('downsample.0', 'downsample.1')
        if (value := tensors.get(f'{place}{kernel}.weight')) is not None:
            arrays[f'{ours}/conv/kernel'] = np.transpose(value, (2, 3, 1, 0))
        for weight, theirs in NORM.items():
            if (value := tensors.get(f'{place}{norm}.{theirs}')) is not None:
                arrays[f'{ours}/norm/{weight}'] = value
    return arrays


def _from_keras(tensors: dict[str, np.ndarray], name: str, depths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Keras' convolutions have biases, which are subtracted from the normalisation's mean."""
    _check(tensors, 'keras', name)
    arrays = {}
    for ours, stage, block, conv in _convolutions(depths):
        theirs = 'conv1' if stage == 1 else f'conv{stage}_block{block}_{conv}'
        if (kernel := tensors.get(f'{theirs}_conv/kernel')) is not None:
            # Keras' pixels are BGR.
            arrays[f'{ours}/conv/kernel'] = kernel[:, :, ::-1] if stage == 1 else kernel
        for weight in NORM:
            if (value := tensors.get(f'{theirs}_bn/{weight}')) is not None:
                bias = tensors.get(f'{theirs}_conv/bias', 0) if weight == 'moving_mean' else 0
                arrays[f'{ours}/norm/{weight}'] = value - bias
    return arrays


def _check(tensors: dict[str, np.ndarray], variant: str, name: str) -> None:
    """Raises UserError for a file of another network, and names the variant that it fits."""
    if _STEM[variant] in tensors:
        return
    fitting = [other for other, stem in _STEM.items() if stem in tensors and (other, name) in _FILES]
    raise UserError(
        f'init.weights: the file is not for the {variant} variant of {name}: it has no {_STEM[variant]!r}.'
        + (f' It seems to fit backbones.{name}.variant = {fitting[0]!r}.' if fitting else '')
    )


def _convolutions(depths: tuple[int, ...]) -> Iterator[tuple[str, int, int, int]]:
    """Yields our layer's name, stage, block and number of each possible convolution; number 0 is the shortcut."""
    yield 'stem_conv', 1, 1, 1
    for stage, depth in enumerate(depths, start=2):
        for block in range(1, depth + 1):
            for conv in range(4):
                layer = f'conv{conv}' if conv else 'shortcut'
                yield f'stage{stage}_block{block}_{layer}', stage, block, conv
