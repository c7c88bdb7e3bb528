"""Collects the instances of a data set in flat arrays: masks, boxes and areas."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from seg.datasets import checking
from seg.datasets.findings import NOTE, WARN, Finding
from seg.datasets.instances import flat, plain_polygons, segmentations
from seg.datasets.instances.flat import Instances
from seg.errors import UserError
from seg.masks import runs as mask_runs
from seg.masks.matching import paired_iou

CHUNK = 16_384  # Number of instances that are converted at a time.
_CHUNK_BYTES = 2**22  # Bytes of compressed masks that are converted at a time, which takes 50 times as much memory.


class Shape(msgspec.Struct, gc=False):
    """An instance in the ordinary form of COCO's files.

    Attributes:
      segmentation: outlines, each a list x0, y0, x1, y1, … in pixels; or run lengths, as in COCO's files.
      bbox: x, y, width, height in pixels.
      area: in pixels.
    """

    segmentation: list[list[float]] | dict[str, Any] | None = None
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None


class _Part(NamedTuple):
    """Some of the instances with a usable mask: their numbers, and the fields of `Instances`, lengths for splits."""

    numbers: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    points: np.ndarray
    point_counts: np.ndarray
    outline_counts: np.ndarray


class Tally:
    """Counts instances by reason, and keeps the names of the first five."""

    def __init__(self, image_of: np.ndarray, title: Callable[[int], str]):
        self._image_of, self._title, self._found = image_of, title, []

    @property
    def total(self) -> int:
        return len(self._found)

    def add(self, reason: str, number: int) -> None:
        self._found.append((int(self._image_of[number]), int(number), reason))

    def text(self) -> str:
        """The counts, and the first five image by image."""
        counts = collections.Counter(reason for _, _, reason in sorted(self._found))
        counted = ', '.join(f'{count} with {reason}' for reason, count in counts.most_common())
        first = [(self._title(number), reason) for _, number, reason in sorted(self._found)[: checking.SHOWN]]
        named = [name if len(counts) == 1 else f'{name} ({reason})' for name, reason in first]
        return f'{counted}; {"the first: " if self.total > 1 else ""}{", ".join(named)}'

    def findings(self, kind: str, what: str, severity: str = WARN, remedy: str = '') -> list[Finding]:
        """The finding, if any instance was counted; `what` has a `%d` for the count."""
        text = f'{what % self.total}: {self.text()}.' if self.total else ''
        return [Finding(kind=kind, severity=severity, text=text, remedy=remedy, count=self.total)] if text else []


def in_pieces(count: int) -> Iterator[np.ndarray]:
    """The numbers of all instances, in pieces."""
    for start in range(0, count, CHUNK):
        yield np.arange(start, min(start + CHUNK, count))


@np.errstate(over='ignore', invalid='ignore')  # Overflows are found by their values.
def collect(
    where: str,
    chunks: Iterable[tuple[np.ndarray, Sequence[Shape] | Sequence[Mapping]]],
    image_of: np.ndarray,
    classes: np.ndarray,
    is_crowd: np.ndarray,
    sizes: np.ndarray,
    title: Callable[[int], str],
    remarks: list[Finding],
    expects_boxes: bool = True,
) -> Instances:
    """Converts instances to arrays.

    Instances without a usable mask are dropped. A finding counts them by reason and names the first five, and others
    those that lose a part of their mask, whose mask is not in COCO's form, whose box is not valid or fits the mask
    badly, or whose area is far from that of the mask.

    Args:
      where: the file, for messages.
      chunks: numbers of instances as from `in_pieces`, and the instances: `Shape`s only, or only JSON objects that
        may have `segmentation`, `bbox` and `area` of any kind.
      image_of: int64 [instances], the image of each.
      classes: int32 [instances], 0 to K - 1.
      is_crowd: bool [instances].
      sizes: int32 [images, 2], (height, width).
      title: function from the number of an instance to its name, for messages.
      remarks: findings are added to it.
      expects_boxes: whether the files have boxes, so that instances without one are reported.

    Raises:
      UserError: if there are instances, but none has a usable mask.
    """
    dropped, noted, replaced, loose, strange = (Tally(image_of, title) for _ in range(5))
    empty = [np.zeros(0, np.int64), np.zeros([0, 4], np.float32), *(np.zeros(0, t) for t in ('f', 'i', 'q'))]
    parts = [_Part(*empty, np.zeros([0, 2], np.uint16), *(np.zeros(0, np.int64) for _ in range(2)))]
    for numbers, shapes in chunks:
        size = sizes[image_of[numbers]].astype(np.int64)
        wrong = np.full(len(numbers), '', object)
        there = _plain(shapes, size, wrong)
        drawn = np.setdiff1d(np.arange(len(numbers)), there.numbers, assume_unique=True)
        found = [there]
        for places, strings in _compressed_chunks(shapes, drawn, size, numbers, dropped, noted):
            found.append(_drawn(shapes, places, strings, size, wrong, numbers, dropped, loose, strange))
        part = _ordered(found)
        if expects_boxes:
            for place in part.numbers[wrong[part.numbers] != '']:
                replaced.add(wrong[place], numbers[place])
        parts.append(part._replace(numbers=numbers[part.numbers]))
    if dropped.total and dropped.total == len(image_of):
        raise UserError(
            f'{where}: none of its {len(image_of)} instances has a usable mask: {dropped.text()}. Masks are polygons '
            '(lists x0, y0, x1, y1, … in pixels) or run-length encodings under the key segmentation.'
        )
    of_all = f'{where}: %d of {len(image_of)} instances'
    remarks += dropped.findings('unusable_mask', f'{of_all} have no usable mask and are dropped')
    remarks += noted.findings('odd_mask', f"{of_all} are kept, but their masks are not in COCO's form")
    remarks += replaced.findings('no_valid_box', f'{of_all} have no valid box; the bounding box of the mask is used')
    remarks += loose.findings(
        'loose_box',
        f'{of_all} have a box that fits their mask badly, and is used as it is',
        remedy='Do both belong to the same instance, in an image of the same size? Without bbox in the file, the '
        'bounding box of the mask is used.',
    )
    remarks += strange.findings(
        'strange_area',
        f'{of_all} have an area that is not that of their mask, and is used as it is',
        NOTE,
        'It decides which instances are small, medium and large in the scores. Without area in the file, the pixels of '
        'the mask are counted.',
    )
    whole = _Part(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    del parts  # As large as the whole.
    image = image_of[whole.numbers]
    found = Instances(
        splits=np.searchsorted(np.sort(image), np.arange(len(sizes) + 1)),
        boxes=whole.boxes,
        classes=classes[whole.numbers],
        is_crowd=is_crowd[whole.numbers],
        area=whole.area,
        ends=whole.ends,
        run_splits=flat.splits_of(whole.lengths),
        points=whole.points,
        point_splits=flat.splits_of(whole.point_counts),
        outline_splits=flat.splits_of(whole.outline_counts),
    )
    if (np.diff(image) >= 0).all():
        return found
    del whole
    return flat.taken(found, np.argsort(image, kind='stable'))


def _ordered(found: list[_Part]) -> _Part:
    """Joins parts, of which the first has the outlines and the others have the runs, in ascending order."""
    numbers = np.concatenate([part.numbers for part in found])
    order = np.argsort(numbers)
    boxes, area, lengths, outline_counts = (
        np.concatenate([getattr(part, field) for part in found])[order]
        for field in ('boxes', 'area', 'lengths', 'outline_counts')
    )
    ends = np.concatenate([part.ends for part in found])
    points, point_counts = found[0].points, found[0].point_counts
    return _Part(numbers[order], boxes, area, ends, lengths, points, point_counts, outline_counts)


# ---- Instances that are drawn later ----------------------------------------------------------------------------------


def _plain(shapes: Sequence, size: np.ndarray, wrong: np.ndarray) -> _Part:
    """The instances that need not be drawn yet. Sets the faults of their boxes."""
    none = (np.nan,) * 4
    if isinstance(shapes[0], Shape):
        polygons = [shape.segmentation if type(shape.segmentation) is list else None for shape in shapes]
        given, areas = [shape.bbox or none for shape in shapes], [shape.area for shape in shapes]
    else:
        polygons, given, areas = [], [], []
    found = plain_polygons.find(polygons, size)
    given = np.array(given, np.float64).reshape(-1, 4)[found.places]
    boxes, lacking, fits = plain_polygons.boxes(given, found.bounds, size[found.places])
    wrong[found.places[lacking]] = _NO_BOX
    area = _areas(np.array(areas, np.float64)[found.places], size[found.places])  # None becomes NaN.
    fits &= found.sure & (_far_off(area, found.area, 1.5, 32) == '')
    found = found.part(fits)
    zeros = np.zeros(len(found.places), np.int64)
    return _Part(
        found.places, boxes[fits], area[fits], np.zeros(0, np.int32), zeros,
        found.points, found.point_counts, found.outline_counts,
    )  # fmt: skip


def _areas(area: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Areas from the file, float32; NaN where they cannot be right."""
    sound = (area >= np.finfo(np.float32).tiny) & (area <= sizes.prod(axis=1))
    return np.where(sound, area, np.nan).astype(np.float32)


def _far_off(stated: np.ndarray, own: np.ndarray, times: float, pixels: float) -> np.ndarray:
    """How areas in the file are far from those of the masks, by so many times and pixels; object [N] of str."""
    far = np.abs(stated - own) > pixels  # Not for NaN.
    found = np.full(len(stated), '', object)
    found[far & (stated > times * own)] = f'more than {times:g} times the area of the mask'
    found[far & (stated * times < own)] = f'less than the area of the mask divided by {times:g}'
    return found


# ---- Instances that are drawn now ------------------------------------------------------------------------------------


def _field(shape: Shape | Mapping, key: str) -> Any:
    return getattr(shape, key) if isinstance(shape, Shape) else shape.get(key)


def _compressed_chunks(shapes, places, size, numbers, dropped, noted):
    """Yields positions of instances, int64 [N], and their masks in COCO's compressed form."""
    chosen, strings, stored = [], [], 0
    for place in places.tolist():
        height, width = size[place].tolist()
        try:
            string, note = segmentations.compressed(_field(shapes[place], 'segmentation'), height, width)
        except segmentations.Unusable as error:
            dropped.add(str(error), numbers[place])
            continue
        if note:
            noted.add(note, numbers[place])
        chosen.append(place)
        strings.append(string)
        stored += len(string)
        if stored > _CHUNK_BYTES:
            yield np.array(chosen, np.int64), strings
            chosen, strings, stored = [], [], 0
    yield np.array(chosen, np.int64), strings


def _drawn(shapes, places, strings, size, wrong, numbers, dropped, loose, strange) -> _Part:
    """Instances from their compressed masks. Drops those without a pixel; sets the faults of their boxes."""
    sizes = size[places]
    runs, covered = mask_runs.from_strings(strings, sizes.prod(axis=1))
    mask_boxes, pixels = mask_runs.boxes_and_areas(runs, sizes[:, 0])
    for n in np.flatnonzero(pixels == 0):
        reason = 'a mask without a pixel in the image'
        if covered[n] != sizes[n].prod():
            reason = 'a damaged run-length encoding' if covered[n] < 0 else segmentations.NOT_COVERING
        dropped.add(reason, numbers[places[n]])
    kept = pixels > 0
    places, sizes = places[kept], sizes[kept]
    mask_boxes, pixels = mask_boxes[kept], pixels[kept]
    boxes, wrong[places] = _boxes([_field(shapes[place], 'bbox') for place in places], mask_boxes, sizes)
    for n in np.flatnonzero((paired_iou(boxes, mask_boxes) < 0.5) & (np.abs(boxes - mask_boxes).max(axis=1) > 2)):
        loose.add('an overlap (IoU) below 0.5 with the box of the mask', numbers[places[n]])
    area = _areas(np.array([_number(_field(shapes[place], 'area')) for place in places], np.float64), sizes)
    odd = _far_off(area, pixels, 2, 64)
    for n in np.flatnonzero(odd != ''):
        strange.add(odd[n], numbers[places[n]])
    area = np.where(np.isnan(area), pixels, area).astype(np.float32)
    lengths = np.diff(runs.splits)
    ends, none = runs.ends[np.repeat(kept, lengths)], np.zeros(len(places), np.int64)
    return _Part(places, boxes, area, ends, lengths[kept], np.zeros([0, 2], np.uint16), none[:0], none)


# ---- Boxes -----------------------------------------------------------------------------------------------------------

_NO_BOX = 'no box, or an empty one'


def _number(value: Any) -> float:
    """A number as a float; NaN for any other value, and for a number that is too large."""
    try:
        return float(value) if isinstance(value, (int, float)) else np.nan
    except OverflowError:
        return np.nan


def _boxes(given: list, mask_boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes from the annotations if they are valid, otherwise from the masks.

    Returns:
      float32 [N, 4], and the reasons for using the boxes of masks, object [N] of str; '' for a box of its own.
    """
    numbers = np.full([len(given), 4], np.nan)
    for place, box in enumerate(given):
        if isinstance(box, Sequence) and len(box) == 4:
            numbers[place] = [_number(value) for value in box]
    boxes, as_corners, lacking = plain_polygons.corners(numbers, sizes)
    overlap, swapped = paired_iou(boxes, mask_boxes), paired_iou(as_corners, mask_boxes)
    wrong = np.full(len(given), '', object)
    wrong[~(overlap > 0)] = 'a box that does not overlap its mask'
    wrong[(overlap < 0.5) & (swapped > 0.9)] = 'a box of two corners, but COCO has x, y, width, height'
    wrong[lacking] = _NO_BOX
    return np.where((wrong == '')[:, None], boxes, mask_boxes).astype(np.float32), wrong
