"""Weights of torchvision's Mask R-CNN for the heads."""

from __future__ import annotations

import numpy as np

from seg.known_classes import COCO_CLASSES
from seg.layers import torch_tensors

_NUMBERED = 91  # COCO numbers its 80 classes up to 90; torchvision's classifiers have a channel for each number.


def channels(theirs: int, num_classes: int) -> list[int]:
    """Returns the channels of a torchvision classifier for the background and the classes.

    If it has one for each of COCO's numbers, these are COCO's classes, unless ours fit all of its channels.
    """
    return [0, *COCO_CLASSES] if theirs == _NUMBERED != num_classes + 1 else list(range(theirs))


def class_names(tensors: dict[str, np.ndarray], num_classes: int) -> list[str] | None:
    """The names of the classes that `channels` chooses, None if unknown."""
    bias = tensors.get('roi_heads.box_predictor.cls_score.bias')
    is_coco = bias is not None and len(bias) == _NUMBERED != num_classes + 1
    return list(COCO_CLASSES.values()) if is_coco else None


def box_head(
    tensors: dict[str, np.ndarray], num_classes: int, num_convs: int, num_fc: int, roi_size: int
) -> dict[str, np.ndarray]:
    """Arrays by path of a `BoxHead`. torchvision flattens features by channel first, and codes x before y."""
    arrays: dict[str, np.ndarray] = {}
    prefix = 'roi_heads.box_head'
    for i in range(num_convs):
        arrays |= torch_tensors.conv(tensors, f'{prefix}.{i}', f'convs/conv{i + 1}')
    for i in range(num_fc):
        # Layers of the plain head are fc6 and fc7; the other one counts its convolutions and the flattening.
        theirs = f'{prefix}.{num_convs + 1 + i}' if num_convs else f'{prefix}.fc{6 + i}'
        arrays |= torch_tensors.dense(tensors, theirs, f'fc{i + 1}')
    first = arrays.get('fc1/kernel')
    if first is not None and first.shape[0] % roi_size**2 == 0:
        kernel = first.reshape(-1, roi_size, roi_size, first.shape[1])
        arrays['fc1/kernel'] = kernel.transpose(1, 2, 0, 3).reshape(first.shape)
    predictor = 'roi_heads.box_predictor'
    arrays |= torch_tensors.dense(tensors, f'{predictor}.cls_score', 'class_logits')
    arrays |= torch_tensors.dense(tensors, f'{predictor}.bbox_pred', 'deltas')
    theirs = arrays['class_logits/bias'].shape[0] if 'class_logits/bias' in arrays else 0
    chosen = channels(theirs, num_classes)
    for name in ('kernel', 'bias') if theirs else ():
        arrays[f'class_logits/{name}'] = arrays[f'class_logits/{name}'][..., chosen]
        deltas = arrays[f'deltas/{name}']
        if deltas.shape[-1] == 4 * theirs:
            # Background has a box as well, which is never trained.
            deltas = deltas.reshape(*deltas.shape[:-1], theirs, 4)[..., chosen[1:], :][..., [1, 0, 3, 2]]
            arrays[f'deltas/{name}'] = deltas.reshape(*deltas.shape[:-2], -1)
    return torch_tensors.under('box_head', arrays)


def mask_head(tensors: dict[str, np.ndarray], num_classes: int, num_convs: int) -> dict[str, np.ndarray]:
    """Arrays by path of a `MaskHead`."""
    arrays: dict[str, np.ndarray] = {}
    for i in range(num_convs):
        old = f'roi_heads.mask_head.mask_fcn{i + 1}'  # Before torchvision 0.13.
        theirs = old if f'{old}.weight' in tensors else f'roi_heads.mask_head.{i}'
        arrays |= torch_tensors.conv(tensors, theirs, f'convs/conv{i + 1}')
    predictor = 'roi_heads.mask_predictor'
    if (kernel := tensors.get(f'{predictor}.conv5_mask.weight')) is not None:  # [C, K, row, column]
        arrays['deconv/kernel'] = kernel.transpose(0, 2, 3, 1).reshape(kernel.shape[0], -1)
        arrays['deconv/bias'] = tensors[f'{predictor}.conv5_mask.bias']
    if (kernel := tensors.get(f'{predictor}.mask_fcn_logits.weight')) is not None:
        chosen = channels(kernel.shape[0], num_classes)[1:]
        arrays['mask_logits/kernel'] = kernel[chosen, :, 0, 0]
        arrays['mask_logits/bias'] = tensors[f'{predictor}.mask_fcn_logits.bias'][chosen]
    return torch_tensors.under('mask_head', arrays)
