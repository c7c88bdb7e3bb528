"""Checks that the annotations of an image are valid."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import mask as coco_mask

from seg.errors import UserError
from seg.masks.matching import paired_iou
from seg.structures import Annotations

# Half of the boxes must reach this IoU with their masks. Boxes may be drawn by hand, or include hidden parts of an
# instance. If rows and columns are exchanged, or the scale differs, hardly any box reaches it.
_TYPICAL_IOU = 0.5


def check_annotations(truth: Annotations, num_classes: int, place: str) -> None:
    """Checks classes, boxes and masks, and that boxes and masks fit together.

    Args:
      truth: instances of an image.
      num_classes: K.
      place: name of the image, for messages.

    Raises:
      UserError: about the first fault.
    """
    boxes, classes = np.asarray(truth.boxes, np.float64).reshape(-1, 4), np.asarray(truth.classes)
    lengths = {
        'boxes': len(boxes),
        'classes': len(classes),
        'is_crowd': len(truth.is_crowd),
        'area': len(truth.area),
        'masks': len(truth.masks),
    }
    if len(set(lengths.values())) > 1:
        raise UserError(f'{place}: expected one entry of each for every instance, received {lengths}.')
    for i, (box, label, mask) in enumerate(zip(boxes, classes, truth.masks, strict=True)):
        if not 0 <= label < num_classes:
            raise UserError(f'{place}, instance {i}: its class {label} is not in 0 to {num_classes - 1}.')
        if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
            raise UserError(f'{place}, instance {i}: its box (y0, x0, y1, x1) = {_listed(box)} has no area.')
        if list(mask['size']) != [truth.height, truth.width]:
            raise UserError(
                f'{place}, instance {i}: its mask is for {mask["size"][0]} x {mask["size"][1]} pixels; the image has '
                f'{truth.height} x {truth.width}.'
            )
        if not coco_mask.area(mask):
            raise UserError(f'{place}, instance {i}: its mask has no pixel.')
    solid = np.flatnonzero(~np.asarray(truth.is_crowd, bool))
    covered = np.array([cut_out(truth.masks[i])[1] for i in solid], float).reshape(-1, 4)
    ious = paired_iou(np.asarray(boxes, float).reshape(-1, 4)[solid], covered)
    if len(ious) and np.median(ious) < _TYPICAL_IOU:
        i = solid[int(np.argmin(ious))]
        raise UserError(
            f'{place}: boxes and masks do not belong together (median IoU {np.median(ious):.2f}): instance {i} has the '
            f'box (y0, x0, y1, x1) = {_listed(boxes[i])}, and its mask covers {_listed(cut_out(truth.masks[i])[1])}.'
        )


def cut_out(mask: dict[str, Any]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Cuts out the smallest rectangle that contains all pixels of a mask.

    Args:
      mask: run lengths of at least one pixel.

    Returns:
      (pixels, box): uint8 [h, w], and (y0, x0, y1, x1) of the rectangle in the image.
    """
    left, top, width, height = (int(side) for side in coco_mask.toBbox(mask))
    pixels = coco_mask.decode(mask)[top : top + height, left : left + width]
    return pixels, (top, left, top + height, left + width)


def _listed(box) -> str:
    return f'({", ".join(f"{side:g}" for side in box)})'
