"""Converts the instances of COCO's annotation files to flat arrays: masks, boxes and areas."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from pycocotools import mask as coco_mask

from seg.datasets import checking
from seg.errors import UserError
from seg.masks import runs as mask_runs
from seg.masks.matching import paired_iou

_CHUNK = 8192  # Number of instances that are converted at a time, …
_CHUNK_BYTES = 2**22  # … or bytes of their compressed form, whose conversion takes 50 times as much memory.
_FAR = 20_000  # Pixels that a polygon may reach beyond the image.
# Pixels along an outline. pycocotools allocates 5 x 8 bytes for each, and crashes if memory is short.
_LONGEST = 4_000_000
_POINT = 'a polygon of a single point'


class Instances(NamedTuple):
    """All instances of a data set in flat arrays, image by image.

    Attributes:
      splits: int64 [images + 1]: the instances of image i are number `splits[i]` to `splits[i + 1]` - 1.
      boxes: float32 [N, 4], y0, x0, y1, x1 in pixels, within the image.
      classes: int32 [N], 0 to K - 1.
      is_crowd: bool [N].
      area: float32 [N], in pixels.
      ends: int32, the runs of all masks, see `seg.masks.runs.Runs`.
      run_splits: int64 [N + 1].
    """

    splits: Any
    boxes: Any
    classes: Any
    is_crowd: Any
    area: Any
    ends: Any
    run_splits: Any


class _Unusable(ValueError):
    """An instance, or a part of one, without a usable mask; the message is the reason."""


@np.errstate(over='ignore', invalid='ignore')  # Overflows are found by their values.
def read(
    path: str,
    annotations: list,
    image_of: np.ndarray,
    classes: np.ndarray,
    is_crowd: np.ndarray,
    sizes: np.ndarray,
    title: Callable[[int], str],
) -> Instances:
    """Converts annotations to arrays.

    Instances without a usable mask are dropped. The log counts them by reason and names the first five, and likewise
    those that lose a part of their mask, or whose mask is not in COCO's form.

    Args:
      path: the file, for messages.
      annotations: annotations of the file. Each entry is set to None after its conversion, to free its numbers.
      image_of: int64 [annotations], the image of each annotation.
      classes: int32 [annotations], 0 to K - 1.
      is_crowd: bool [annotations].
      sizes: int32 [images, 2], (height, width).
      title: function from the position of an annotation to its name, for messages.

    Raises:
      UserError: if there are annotations, but none has a usable mask.
    """
    dropped, noted, replaced = _Tally(), _Tally(), _Tally()
    # Empty arrays, so that files without instances have a result as well.
    parts = [(np.zeros(0, np.int64), np.zeros([0, 4], np.float32), *(np.zeros(0, t) for t in ('f', 'i', 'q')))]
    order = np.argsort(image_of, kind='stable')
    for chunk, strings in _compressed_chunks(annotations, order, sizes[image_of], dropped, noted, title):
        size = sizes[image_of[chunk]].astype(np.int64)
        runs, covered = mask_runs.from_strings(strings, size[:, 0] * size[:, 1])
        mask_boxes, pixels = mask_runs.boxes_and_areas(runs, size[:, 0])
        for place in np.flatnonzero(pixels == 0):
            reason = 'a mask without a pixel in the image'
            if covered[place] != size[place].prod():
                reason = 'a damaged run-length encoding' if covered[place] < 0 else _NOT_COVERING
            dropped.add(reason, title(chunk[place]))
        kept = np.flatnonzero(pixels > 0)
        entries = [annotations[number] for number in chunk[kept]]
        boxes, wrong = _boxes(entries, mask_boxes[kept], size[kept])
        for place in np.flatnonzero(wrong):
            replaced.add(wrong[place], title(chunk[kept[place]]))
        area = np.array([_number(entry.get('area')) for entry in entries], np.float64)
        sound = (area >= np.finfo(np.float32).tiny) & (area <= size[kept].prod(axis=1))
        area = np.where(sound, area, pixels[kept]).astype(np.float32)
        lengths = np.diff(runs.splits)
        ends = runs.ends[np.repeat(pixels > 0, lengths)]
        parts.append((chunk[kept], boxes, area, ends, lengths[kept]))
        for number in chunk:
            annotations[number] = None
    if dropped.total and dropped.total == len(annotations):
        raise UserError(
            f'{path}: none of its {len(annotations)} instances has a usable mask: {dropped.text()}. Masks are polygons '
            '(lists x0, y0, x1, y1, … in pixels) or run-length encodings under the key segmentation.'
        )
    where = f'{path}: %d of {len(annotations)} instances'
    dropped.log(f'{where} have no usable mask and are dropped')
    noted.log(f"{where} are kept, but their masks are not in COCO's form")
    replaced.log(f'{where} have no valid box; the bounding box of the mask is used')
    numbers, boxes, area, ends, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Instances(
        splits=np.searchsorted(image_of[numbers], np.arange(len(sizes) + 1)),
        boxes=boxes,
        classes=classes[numbers],
        is_crowd=is_crowd[numbers],
        area=area,
        ends=ends,
        run_splits=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
    )


def _compressed_chunks(annotations, order, sizes, dropped, noted, title):
    """Yields positions of annotations in this order, int64 [N], and their masks in COCO's compressed form."""
    numbers, strings, stored = [], [], 0
    for number in order.tolist():
        height, width = sizes[number].tolist()
        try:
            string, note = _compressed(annotations[number].get('segmentation'), height, width)
        except _Unusable as error:
            dropped.add(str(error), title(number))
            annotations[number] = None
            continue
        if note:
            noted.add(note, title(number))
        numbers.append(number)
        strings.append(string)
        stored += len(string)
        if len(strings) == _CHUNK or stored > _CHUNK_BYTES:
            yield np.array(numbers, np.int64), strings
            numbers, strings, stored = [], [], 0
    yield np.array(numbers, np.int64), strings


class _Tally:
    """Counts instances by reason, and keeps the names of the first five."""

    def __init__(self):
        self._counts, self._named = collections.Counter(), []

    @property
    def total(self) -> int:
        return self._counts.total()

    def add(self, reason: str, name: str) -> None:
        self._counts[reason] += 1
        if len(self._named) < checking.SHOWN:
            self._named.append((name, reason))

    def text(self) -> str:
        counted = ', '.join(f'{count} with {reason}' for reason, count in self._counts.most_common())
        named = [name if len(self._counts) == 1 else f'{name} ({reason})' for name, reason in self._named]
        return f'{counted}; {"the first: " if self.total > 1 else ""}{", ".join(named)}'

    def log(self, what: str) -> None:
        if self.total:
            logging.warning('%s: %s.', what % self.total, self.text())


# ---- Segmentations ---------------------------------------------------------------------------------------------------

_NOT_COVERING = "run lengths whose sum is not the image's height times its width"
_NO_NUMBERS = 'a polygon that is not a list of numbers'


def _compressed(segmentation: Any, height: int, width: int) -> tuple[bytes, str]:
    """A mask in COCO's compressed form, and a note if its own form is not COCO's; otherwise ''.

    Raises:
      _Unusable: if there is no mask, or it is too damaged.
    """
    if segmentation is None:
        raise _Unusable('a box only, no segmentation')
    if isinstance(segmentation, Mapping):
        return _compressed_runs(segmentation, height, width), ''
    if not isinstance(segmentation, list):
        raise _Unusable('a segmentation that is neither polygons nor run lengths')
    if not segmentation:
        raise _Unusable('an empty segmentation')
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
        except _Unusable as error:
            reasons.append(str(error))
    if not outlines:
        raise _Unusable(reasons[0])
    longest = min(100 * (height + width), _LONGEST) + 4 * _FAR
    # The product is a bound that is fast to compute.
    if sum(map(len, outlines)) * reach > longest and sum(map(_length, outlines)) > longest:
        raise _Unusable('outlines of more than a hundred times around the image')
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
        raise _Unusable(_NO_NUMBERS) from None
    if outline.ndim == 2 and outline.shape[1] == 2:
        outline = outline.reshape(-1)
    if outline.ndim != 1:
        raise _Unusable(_NO_NUMBERS)
    return outline


def _are_run_lengths(outline: np.ndarray, height: int, width: int) -> bool:
    """Whether these are run lengths: they cover the image, and one of them is too large for a coordinate."""
    return outline.sum() == height * width and outline.max() > max(height, width) and not (outline % 1).any()


def _reach(outline: np.ndarray, height: int, width: int) -> float:
    """Checks an outline, and returns its largest absolute coordinate."""
    count = len(outline)
    if count % 2:
        raise _Unusable('a polygon with an odd number of values')
    if count == 2:
        raise _Unusable(_POINT)
    if count == 4:
        raise _Unusable('a polygon of four numbers, which is two points or a box')
    if not count:
        raise _Unusable('an empty polygon')
    reach = np.abs(outline).max()
    if not reach < max(height, width) + _FAR:  # Also true for NaN.
        raise _Unusable('a polygon that reaches far out of the image')
    if reach <= 1 and (outline % 1).any():
        raise _Unusable('coordinates from 0 to 1, but COCO has pixels')
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
        raise _Unusable('a run-length encoding whose size is not the size of the image')
    if isinstance(counts, str):
        if len(counts) > 8 * (height * width + 2):  # A number has up to 8 characters.
            raise _Unusable('a damaged run-length encoding')
        return counts.encode('ascii', 'replace')
    if not isinstance(counts, (list, np.ndarray)):
        raise _Unusable('a run-length encoding without counts')
    try:
        runs = np.asarray(counts, np.float64)  # Some tools write them as 12.0.
    except (TypeError, ValueError, OverflowError):
        runs = np.full(1, np.nan)
    if runs.ndim != 1 or not ((runs >= 0) & (runs % 1 == 0)).all():
        raise _Unusable('run lengths that are not whole numbers')
    if runs.sum() != height * width:
        raise _Unusable(_NOT_COVERING)
    counts = runs.astype(np.int64).tolist()
    return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)['counts']


# ---- Boxes -----------------------------------------------------------------------------------------------------------


def _number(value: Any) -> float:
    """A number as a float; NaN for any other value, and for a number that is too large."""
    try:
        return float(value) if isinstance(value, (int, float)) else np.nan
    except OverflowError:
        return np.nan


def _boxes(entries: list, mask_boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes from the annotations if they are valid, otherwise from the masks.

    Returns:
      float32 [N, 4], and the reasons for using the boxes of masks, object [N] of str; '' for a box of its own.
    """
    given = np.full([len(entries), 4], np.nan)
    for place, entry in enumerate(entries):
        box = entry.get('bbox')
        if isinstance(box, Sequence) and len(box) == 4:
            given[place] = [_number(value) for value in box]
    limit = np.concatenate([sizes, sizes], axis=1)
    x, y, width, height = given.T
    boxes = np.clip(np.stack([y, x, y + height, x + width], axis=1), 0, limit)
    as_corners = np.clip(np.stack([y, x, height, width], axis=1), 0, limit)
    overlap, swapped = paired_iou(boxes, mask_boxes), paired_iou(as_corners, mask_boxes)
    wrong = np.full(len(entries), '', object)
    wrong[~(overlap > 0)] = 'a box that does not overlap its mask'
    wrong[(overlap < 0.5) & (swapped > 0.9)] = 'a box of two corners, but COCO has x, y, width, height'
    wrong[~((width > 0) & (height > 0) & np.isfinite(given).all(axis=1))] = 'no box, or an empty one'
    return np.where((wrong == '')[:, None], boxes, mask_boxes).astype(np.float32), wrong
