"""Features of timm's models for random weights, and how they scale pixels; a program that makes `timm_reference.npz`.

python -m tests.backbones.bridge.timm_reference

It needs torch and timm. The weights are drawn by numpy from the name and the shape of each tensor, so that the file has
names, shapes and features only.
"""

from __future__ import annotations

import json
import pathlib
import sys
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name('timm_reference.npz')
# By name in ZeroModels or KerasHub: the name in timm, the side of the image, and the output strides that timm has.
# Sides of 32 k + 1 make all maps odd, for which the padding of TensorFlow is symmetric; patches need multiples of 32.
MODELS = {
    'resnet50': ('resnet50', 65, (32, 16, 8)),
    'resnext50_32x4d': ('resnext50_32x4d', 65, (32, 16, 8)),
    'mobilenetv3_small_050': ('mobilenetv3_small_050', 65, (32, 16, 8)),
    'efficientnet_b0': ('tf_efficientnet_b0', 65, (32, 16, 8)),
    'regnet_y_002': ('regnety_002', 65, (32, 16, 8)),
    'convnext_atto': ('convnext_atto', 64, (32, 16, 8)),
    'cspresnet50': ('cspresnet50', 65, (32, 16, 8)),
    'efficientnet_lite0': ('efficientnet_lite0', 65, (32, 16, 8)),
}
LEVELS, CHANNELS = ('c1', 'c2', 'c3', 'c4', 'c5'), 4


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors that keep activations of order one."""
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith('num_batches_tracked'):
            found[name] = np.zeros((), np.int64)
        elif name.endswith('running_var'):
            found[name] = rng.uniform(0.7, 1.3, shape).astype(np.float32)
        elif name.endswith('running_mean') or name.endswith('bias'):
            found[name] = rng.normal(0, 0.1, shape).astype(np.float32)
        elif len(shape) == 1:
            found[name] = rng.uniform(0.7, 1.3, shape).astype(np.float32)
        else:
            found[name] = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
    return found


def pixels(side: int) -> np.ndarray:
    """An image as the models read it, scaled."""
    return np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)


def main() -> None:
    import timm
    import torch

    stored = {}
    for name, (theirs, side, strides) in MODELS.items():
        for output_stride in strides:
            net = timm.create_model(theirs, features_only=True, output_stride=output_stride).double().eval()
            shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
            whole = timm.create_model(theirs)
            plain = whole.state_dict()
            stored[f'{name}/pixels'] = np.array([whole.default_cfg['mean'], whole.default_cfg['std']])
            stored[f'{name}/shapes'] = np.array(json.dumps({key: value.shape for key, value in plain.items()}))
            drawn = weights({key: tuple(value.shape) for key, value in plain.items()})
            # `features_only` may join names by an underscore: the order of the tensors is the same.
            values = [drawn[key] for key in plain if key in shapes or key.replace('.', '_', 1) in shapes]
            keys = [key if key in shapes else key.replace('.', '_', 1) for key in plain]
            keys = [key for key in keys if key in shapes]
            assert len(keys) == len(shapes), (name, sorted(set(shapes) - set(keys))[:5])
            net.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in zip(keys, values, strict=True)})
            kept = {}
            if theirs.startswith('mobilenetv3'):  # Its last feature is behind the classifier's convolution.
                net.blocks[-2].register_forward_hook(lambda *given, kept=kept: kept.update(c5=given[-1]))
            with torch.no_grad():
                maps = net(torch.from_numpy(pixels(side).astype(np.float64).transpose(0, 3, 1, 2)))
            for level, x in zip(LEVELS[-len(maps) :], maps, strict=True):
                # A few channels show a wrong padding or dilation as well as all of them.
                features = kept.get(level, x).numpy().transpose(0, 2, 3, 1)[0, :, :, :CHANNELS]
                stored[f'{name}/{output_stride}/{level}'] = features.astype(np.float32)
            print(name, output_stride, [tuple(x.shape) for x in maps], file=sys.stderr)
    np.savez_compressed(FILE, **stored)


if __name__ == '__main__':
    main()
