"""Makes efficientnet_lite_reference.npz with the PyTorch port, whose package the test environment does not have.

    pip install torch efficientnet-lite-pytorch
    python tests/backbones/efficientnet_reference.py

The weights are drawn by `random_weights`, from the names and shapes that are stored beside the port's results.
"""

from __future__ import annotations

import os

import numpy as np

REFERENCE = os.path.join(os.path.dirname(__file__), 'efficientnet_lite_reference.npz')
SIDE = 65  # 32 k + 1: TensorFlow's padding is symmetric then.
IMAGES = 2


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Draws weights that keep the signal's size, and batch-norm statistics that matter."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith('num_batches_tracked'):
            tensors[name] = np.zeros(shape, np.int64)
        elif name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
            tensors[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) == 1:
            tensors[name] = rng.normal(0, 0.2, shape).astype(np.float32)
        else:
            tensors[name] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
    return tensors


def images() -> np.ndarray:
    """RGB pixels, float32 [IMAGES, SIDE, SIDE, 3]."""
    return np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3)).astype(np.float32)


def port(variant: int, side: int):
    """The PyTorch port's network for images of `side` pixels."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(f'efficientnet-lite{variant}', image_size=side).eval()


def port_logits(net, pixels: np.ndarray) -> np.ndarray:
    """[B, 1000] of the port for RGB pixels [B, H, W, 3]."""
    import torch

    with torch.no_grad():
        return net(torch.from_numpy(((pixels - 127) / 128).transpose(0, 3, 1, 2).copy())).numpy()


def main() -> None:
    import torch

    stored: dict[str, np.ndarray] = {}
    for variant in (0, 1, 2):
        net = port(variant, SIDE)
        state = net.state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        weights = random_weights(shapes, variant)
        net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        stored[f'names{variant}'] = np.array(list(shapes))
        stored[f'shapes{variant}'] = np.array([','.join(map(str, shape)) for shape in shapes.values()])
        stored[f'logits{variant}'] = port_logits(net, images())
    np.savez_compressed(REFERENCE, **stored)


if __name__ == '__main__':
    main()
