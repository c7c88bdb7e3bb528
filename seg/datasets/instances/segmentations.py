"""Reads the segmentations of COCO's files in all forms that tools write, into COCO's compressed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FAR = 20_000  # Pixels that a polygon may reach beyond the image.
# Pixels along an outline. pycocotools allocates 5 x 8 bytes for each, and crashes if memory is short.
_LONGEST = 4_000_000
_POINT = 'a polygon of a single point'
NOT_COVERING = "run lengths whose sum is not the image's height times its width"
_NO_NUMBERS = 'a polygon that is not a list of numbers'


class Unusable(ValueError):
    """An instance, or a part of one, without a usable mask; the message is the reason."""


def longest(height: Any, width: Any) -> Any:
    """Pixels along all outlines of an instance that are drawn: a hundred times around the image, and some beyond it."""
    return np.minimum(100 * (height + width), _LONGEST) + 4 * FAR


def compressed(segmentation: Any, height: int, width: int) -> tuple[bytes, str]:
    """A mask in COCO's compressed form, and a note if its own form is not COCO's; otherwise ''.

    Raises:
      Unusable: if there is no mask, or it is too damaged.
    """
    if segmentation is None:
        raise Unusable('a box only, no segmentation')
    if isinstance(segmentation, Mapping):
        return _compressed_runs(segmentation, height, width), ''
    if not isinstance(segmentation, list):
        raise Unusable('a segmentation that is neither polygons nor run lengths')
    if not segmentation:
        raise Unusable('an empty segmentation')
    note, polygons = '', segmentation
    if isinstance(segmentation[0], (int, float)):
        polygons = [segmentation]  # Some tools write one polygon without the list around it.
    elif len(segmentation) >= 3 and all(_is_pair(point) for point in segmentation):
        note, polygons = 'pairs [x, y] in one list, read as one polygon', [segmentation]
    outlines, reasons, reach = [], [], 0.0
    for polygon in polygons:
        try:
            outline = _outline(polygon)
            if len(polygons) == 1 and _are_run_lengths(outline, height, width):
                note = 'run lengths in place of a polygon, read as run lengths'
                return _compressed_runs({'counts': outline}, height, width), note
            reach = max(reach, _reach(outline, height, width))
            outlines.append(outline)
        except Unusable as error:
            reasons.append(str(error))
    if not outlines:
        raise Unusable(reasons[0])
    # The product is a bound that is fast to compute.
    most = longest(height, width)
    if sum(map(len, outlines)) * reach > most and sum(map(_length, outlines)) > most:
        raise Unusable('outlines of more than a hundred times around the image')
    lost = [reason for reason in reasons if reason != _POINT]  # A point covers no pixel.
    if lost:
        note = f'{lost[0]}, a part that is omitted'
    return _merged(coco_mask.frPyObjects(outlines, height, width))['counts'], note


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, (int, float)) for part in value)


def _outline(polygon: Any) -> np.ndarray:
    """The numbers x0, y0, x1, y1, … of a polygon, which may consist of pairs; float64."""
    try:
        outline = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise Unusable(_NO_NUMBERS) from None
    if outline.ndim == 2 and outline.shape[1] == 2:
        outline = outline.reshape(-1)
    if outline.ndim != 1:
        raise Unusable(_NO_NUMBERS)
    return outline


def _are_run_lengths(outline: np.ndarray, height: int, width: int) -> bool:
    """Whether these are run lengths: they cover the image, and one of them is too large for a coordinate."""
    return outline.sum() == height * width and outline.max() > max(height, width) and not (outline % 1).any()


def _reach(outline: np.ndarray, height: int, width: int) -> float:
    """Checks an outline, and returns its largest absolute coordinate."""
    count = len(outline)
    if count % 2:
        raise Unusable('a polygon with an odd number of values')
    if count == 2:
        raise Unusable(_POINT)
    if count == 4:
        raise Unusable('a polygon of four numbers, which is two points or a box')
    if not count:
        raise Unusable('an empty polygon')
    reach = np.abs(outline).max()
    if not reach < max(height, width) + FAR:  # Also true for NaN.
        raise Unusable('a polygon that reaches far out of the image')
    if reach <= 1 and (outline % 1).any():
        raise Unusable('coordinates from 0 to 1, but COCO has pixels')
    return reach


def _length(outline: np.ndarray) -> float:
    """Pixels along an outline: for each edge, the longer of its two extents."""
    points = outline.reshape(-1, 2)
    return np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()


def _merged(masks: list) -> dict[str, Any]:
    """The union of compressed masks, merged in groups: one after another takes quadratic time."""
    while len(masks) > 1:
        masks = [coco_mask.merge(masks[n : n + 8]) for n in range(0, len(masks), 8)]
    return masks[0]


def _compressed_runs(segmentation: Mapping, height: int, width: int) -> bytes:
    counts, size = segmentation.get('counts'), segmentation.get('size')
    if size is not None and (not isinstance(size, list) or size != [height, width]):
        raise Unusable('a run-length encoding whose size is not the size of the image')
    if isinstance(counts, str):
        if len(counts) > 8 * (height * width + 2):  # A number has up to 8 characters.
            raise Unusable('a damaged run-length encoding')
        return counts.encode('ascii', 'replace')
    if not isinstance(counts, (list, np.ndarray)):
        raise Unusable('a run-length encoding without counts')
    try:
        runs = np.asarray(counts, np.float64)  # Some tools write them as 12.0.
    except (TypeError, ValueError, OverflowError):
        runs = np.full(1, np.nan)
    if runs.ndim != 1 or not ((runs >= 0) & (runs % 1 == 0)).all():
        raise Unusable('run lengths that are not whole numbers')
    if runs.sum() != height * width:
        raise Unusable(NOT_COVERING)
    counts = runs.astype(np.int64).tolist()
    return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)['counts']
