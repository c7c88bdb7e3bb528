"""COCO's annotation files: read, checked, and turned into flat arrays."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from pycocotools import mask as coco_mask

from seg.datasets import checking, mask_runs
from seg.errors import UserError

_CHUNK = 8192  # Objects that are turned into runs at a time.
_FAR = 20_000  # Pixels outside of the picture beyond which a polygon is nonsense, and would take gigabytes to draw.
# Of a picture. pycocotools reserves 6 bytes per run and writes one more at the end, which spoils its memory where all
# of four or more runs take 6; that cannot happen below four runs of 2^24 pixels.
_MOST_PIXELS = 2**26
_KEYS = ('images', 'annotations')


class Objects(NamedTuple):
    """All objects of a data set in flat arrays, those of one picture after those of another.

    Attributes:
      splits: int64 [images + 1]: the objects of picture i are number `splits[i]` to `splits[i + 1]` - 1.
      boxes: float32 [N, 4], y0, x0, y1, x1 in pixels, within the picture.
      classes: int32 [N], 0 to K - 1.
      is_crowd: bool [N].
      area: float32 [N], in pixels.
      ends: int32, the runs of all masks, see `mask_runs.Runs`.
      run_splits: int64 [N + 1].
    """

    splits: Any
    boxes: Any
    classes: Any
    is_crowd: Any
    area: Any
    ends: Any
    run_splits: Any


class Contents(NamedTuple):
    """What an annotation file says.

    Attributes:
      image_ids: the file's own id of each picture, a number or a text, in the order of the file.
      file_names: of the pictures, relative to their folder.
      sizes: int32 [images, 2], (height, width).
      class_names: by ascending category id.
      category_ids: the file's own id of each class.
      objects: with a usable mask.
    """

    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    sizes: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    objects: Objects


class _Unusable(ValueError):
    """An object without a usable mask; the text says why."""


def read(path: str) -> Contents:
    """Reads an annotation file.

    Objects without a usable mask are dropped; a line of the log counts them by reason and names the first five.

    Raises:
      UserError: if the file is cut off or of another kind, or what it says does not hang together: two pictures with
        one id, objects of unknown pictures or classes, …
    """
    data = _load(path)
    index_of, file_names, sizes = _images(path, data['images'])
    annotations = data['annotations']
    names, category_ids = _classes(path, data.get('categories'), annotations)
    class_of = {category: number for number, category in enumerate(category_ids)}
    pictures, classes = _references(path, annotations, index_of, class_of)
    order = np.argsort(pictures, kind='stable')
    objects = _objects(path, annotations, order, pictures, classes, sizes, file_names)
    return Contents(tuple(index_of), file_names, sizes, names, category_ids, objects)


def _load(path: str) -> dict[str, Any]:
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            data = json.loads(file.read())
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: expected JSON in UTF-8; byte {error.start} is not.') from None
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip())
        found = 'the file is cut off or empty' if at_end else f'line {error.lineno}, column {error.colno}: {error.msg}'
        raise UserError(f'{path} is no complete JSON file: {found}. Fetch or make it again.') from None
    if isinstance(data, list):
        raise UserError(
            f"{path} is a list, as COCO's files of results are. Expected annotations: an object with the lists "
            'images, annotations and categories.'
        )
    lacking = [key for key in _KEYS if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    if lacking:
        there = f'it has {", ".join(sorted(data)) or "no keys"}' if isinstance(data, dict) else f'it is {data!r:.40}'
        raise UserError(
            f"{path}: expected COCO's instance annotations, an object with the lists images, annotations and "
            f'categories. There is no list {" and no list ".join(lacking)}; {there}.'
        )
    for key in _KEYS:
        strange = next((n for n, entry in enumerate(data[key]) if not isinstance(entry, dict)), None)
        if strange is not None:
            raise UserError(f'{path}: {key}[{strange}] is {data[key][strange]!r:.60}, expected an object.')
    return data


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _side(value: Any) -> int:
    """A height or width in pixels; 0 if it is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value < 2**31 and int(value) == value else 0


def _images(path: str, images: list) -> tuple[dict[Any, int], tuple[str, ...], np.ndarray]:
    """Returns position by image id, file names, and sizes."""
    if not images:
        raise UserError(f'{path}: images is empty. There is nothing to train on or to evaluate.')
    index_of, problems = {}, []
    for number, image in enumerate(images):
        image_id, name = image.get('id'), image.get('file_name')
        height, width = _side(image.get('height')), _side(image.get('width'))
        if not _is_id(image_id):
            problems.append(f'images[{number}]: id is {image_id!r}, expected a number.')
        elif image_id in index_of:
            other = images[index_of[image_id]].get('file_name')
            problems.append(
                f'images[{number}], {name}: the id {image_id} is that of {other} as well. Ids of images must differ: '
                'when files are merged, those of the second have to be numbered anew, here and in its annotations.'
            )
        elif not isinstance(name, str) or not name:
            problems.append(f'images[{number}], id {image_id}: file_name is {name!r}.')
        elif not (height and width and height * width < _MOST_PIXELS):
            problems.append(
                f'images[{number}], {name}: height is {image.get("height")!r} and width {image.get("width")!r}, '
                f'expected pixels, and at most {_MOST_PIXELS} in all.'
            )
        index_of.setdefault(image_id if _is_id(image_id) else None, number)
    checking.raise_problems(path, problems, len(images), 'entries of images')
    # Some tools on Windows write its separators.
    file_names = tuple(image['file_name'].replace('\\', '/') for image in images)
    sizes = np.array([(_side(image['height']), _side(image['width'])) for image in images], np.int32)
    return index_of, file_names, sizes


def _classes(path: str, categories: Any, annotations: list) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Returns class names and category ids, by ascending id."""
    if not categories:
        used = {annotation.get('category_id') for annotation in annotations if _is_id(annotation.get('category_id'))}
        if len(used) > 1:
            raise UserError(
                f'{path}: there are no categories, but the annotations have the category ids '
                f'{checking.first_of(sorted(used, key=str))}. Add categories, a list of {{"id": …, "name": …}}.'
            )
        return ('object',), (used.pop() if used else 1,)
    problems, seen_ids, seen_names = [], set(), set()
    for number, category in enumerate(categories):
        category_id = category.get('id') if isinstance(category, dict) else None
        name = category.get('name') if isinstance(category, dict) else None
        if not isinstance(category_id, int) or not isinstance(name, str) or not name:
            problems.append(f'categories[{number}] is {category!r:.80}: expected {{"id": <number>, "name": <text>}}.')
        elif category_id in seen_ids or name in seen_names:
            problems.append(f'categories[{number}]: the {"id" if category_id in seen_ids else "name"} occurs twice.')
        seen_ids.add(category_id)
        seen_names.add(name)
    checking.raise_problems(path, problems, len(categories), 'categories')
    ordered = sorted(categories, key=lambda category: category['id'])
    return tuple(category['name'] for category in ordered), tuple(category['id'] for category in ordered)


def _references(path: str, annotations: list, index_of: Mapping, class_of: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Returns the picture and the class of every annotation, int64 and int32 [annotations]."""
    count = len(annotations)
    pictures, classes = np.zeros(count, np.int64), np.zeros(count, np.int32)
    only = next(iter(class_of)) if len(class_of) == 1 else None
    problems, seen, twice = [], set(), []
    for number, annotation in enumerate(annotations):
        image_id, category_id = annotation.get('image_id'), annotation.get('category_id')
        category_id = only if category_id is None else category_id
        if not _is_id(image_id) or image_id not in index_of:
            problems.append(
                f'{_title(annotation, number)}: image_id is {image_id!r}, and images lists no such id. It lists '
                f'{checking.first_of(list(index_of))}.'
            )
        elif not _is_id(category_id) or category_id not in class_of:
            problems.append(
                f'{_title(annotation, number)}: category_id is {category_id!r}; categories lists '
                f'{checking.first_of(list(class_of))}.'
            )
        else:
            pictures[number], classes[number] = index_of[image_id], class_of[category_id]
        annotation_id = annotation.get('id')
        if _is_id(annotation_id):
            if annotation_id in seen:
                twice.append(annotation_id)
            seen.add(annotation_id)
    checking.raise_problems(path, problems, count, 'annotations')
    if twice:
        logging.warning(
            '%s: %d annotations have an id that an earlier one has, such as %s. All are used; but if the file was '
            'merged from others, look whether objects are in it twice.',
            *(path, len(twice), checking.first_of(twice)),
        )
    return pictures, classes


def _title(annotation: Mapping, number: int) -> str:
    return f'annotation {annotation["id"]}' if _is_id(annotation.get('id')) else f'annotations[{number}]'


def _objects(path, annotations, order, pictures, classes, sizes, file_names) -> Objects:
    """Turns the annotations, in this order, into arrays, and drops those without a usable mask."""
    dropped, replaced = _Tally(), _Tally()
    # Of nothing, so that a file without objects has arrays, too.
    parts = [
        (order[:0], np.zeros([0, 4], np.float32), *(np.zeros(0, t) for t in ('float32', 'bool', 'int32', 'int64')))
    ]
    for begin in range(0, len(order), _CHUNK):
        chunk = order[begin : begin + _CHUNK]
        size = sizes[pictures[chunk]].astype(np.int64)
        strings, reasons = [], {}
        for place, number in enumerate(chunk):
            string = b''
            try:
                string = _compressed(annotations[number].get('segmentation'), int(size[place, 0]), int(size[place, 1]))
            except _Unusable as error:
                reasons[place] = str(error)
            strings.append(string)
        runs, covered = mask_runs.from_strings(strings, size[:, 0] * size[:, 1])
        mask_boxes, pixels = mask_runs.host_boxes_and_areas(runs, size[:, 0])
        for place in np.flatnonzero(pixels == 0):
            reason = 'a mask without a single pixel in the picture'
            if covered[place] != size[place, 0] * size[place, 1]:
                reason = 'a damaged run-length encoding'
            number = chunk[place]
            name = f'{_title(annotations[number], number)} of {file_names[pictures[number]]}'
            dropped.add(reasons.get(place, reason), name)
        kept = np.flatnonzero(pixels > 0)
        entries = [annotations[number] for number in chunk[kept]]
        boxes, wrong = _boxes(entries, mask_boxes[kept], size[kept])
        for place in np.flatnonzero(wrong):
            number = chunk[kept[place]]
            replaced.add(wrong[place], f'{_title(entries[place], number)} of {file_names[pictures[number]]}')
        area = np.array([_number(entry.get('area')) for entry in entries], np.float64)
        area = np.where((area > 0) & (area < np.inf), area, pixels[kept])
        is_crowd = np.array([bool(entry.get('iscrowd', 0)) for entry in entries], bool)
        lengths = np.diff(runs.splits)
        ends = runs.ends[np.repeat(pixels > 0, lengths)]
        for number in chunk:
            annotations[number] = None  # Lists of numbers take much more memory than the arrays.
        parts.append((chunk[kept], boxes, area.astype(np.float32), is_crowd, ends, lengths[kept]))
    where = f'{path}: %d of {len(annotations)} objects'
    dropped.log(f'{where} have no usable mask and are dropped')
    replaced.log(f"{where} have no box that fits; their mask's is taken")
    if len(annotations) and dropped.total == len(annotations):
        raise UserError(
            f'{path}: none of its {len(annotations)} objects has a usable mask: {dropped.text()}. Masks are polygons '
            '(lists x0, y0, x1, y1, … in pixels) or run-length encodings under the key segmentation.'
        )
    numbers_, boxes, area, is_crowd, ends, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Objects(
        splits=np.searchsorted(pictures[numbers_], np.arange(len(sizes) + 1)),
        boxes=boxes,
        classes=classes[numbers_],
        is_crowd=is_crowd,
        area=area,
        ends=ends,
        run_splits=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
    )


class _Tally:
    """Counts by reason, and the first five by name."""

    def __init__(self):
        self._counts, self._named = collections.Counter(), []

    @property
    def total(self) -> int:
        return self._counts.total()

    def add(self, reason: str, name: str) -> None:
        self._counts[reason] += 1
        if len(self._named) < checking.SHOWN:
            self._named.append(f'{name} ({reason})')

    def text(self) -> str:
        counted = ', '.join(f'{count} with {reason}' for reason, count in self._counts.most_common())
        return f'{counted}; {"the first: " if self.total > 1 else ""}{", ".join(self._named)}'

    def log(self, what: str) -> None:
        if self.total:
            logging.warning('%s: %s.', what % self.total, self.text())


def _compressed(segmentation: Any, height: int, width: int) -> bytes:
    """A mask in COCO's compressed form.

    Raises:
      _Unusable: if there is none, or it is damaged beyond use.
    """
    if segmentation is None:
        raise _Unusable('a box only, no segmentation')
    if isinstance(segmentation, Mapping):
        return _compressed_runs(segmentation, height, width)
    if not isinstance(segmentation, Sequence) or not segmentation:
        raise _Unusable('an empty segmentation')
    # Some tools write one polygon without the list around it.
    polygons = [segmentation] if isinstance(segmentation[0], (int, float)) else segmentation
    parts = []
    for polygon in polygons:
        try:
            polygon = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise _Unusable('a polygon that is no list of numbers') from None
        if polygon.ndim == 1 and len(polygon) >= 6 and len(polygon) % 2 == 0:
            if not np.abs(polygon).max() < max(height, width) + _FAR:  # Catches NaN, too.
                raise _Unusable('a polygon that reaches far out of the picture')
            parts.append(polygon)
    if not parts:
        raise _Unusable('polygons of fewer than three points')
    drawn = coco_mask.frPyObjects(parts, height, width)
    return (drawn[0] if len(drawn) == 1 else coco_mask.merge(drawn))['counts']


def _compressed_runs(segmentation: Mapping, height: int, width: int) -> bytes:
    counts, size = segmentation.get('counts'), segmentation.get('size')
    if size is not None and (not isinstance(size, Sequence) or list(size) != [height, width]):
        raise _Unusable('a run-length encoding of another size than the picture')
    if isinstance(counts, (str, bytes)):
        return counts if isinstance(counts, bytes) else counts.encode('ascii', 'replace')
    try:
        runs = np.asarray(counts)
    except ValueError:
        runs = np.zeros(0, object)
    if runs.ndim != 1 or runs.dtype.kind not in 'iu' or (runs < 0).any() or runs.sum() != height * width:
        raise _Unusable('a damaged run-length encoding')
    return coco_mask.frPyObjects({'size': [height, width], 'counts': runs.tolist()}, height, width)['counts']


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


def _boxes(entries: list, mask_boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes from the annotations where they make sense, else from the masks.

    Returns:
      float32 [N, 4], and why a box is the mask's, object [N]; '' where it is not.
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
    overlap, swapped = _iou(boxes, mask_boxes), _iou(as_corners, mask_boxes)
    wrong = np.full(len(entries), '', object)
    wrong[~(overlap > 0)] = 'a box beside its mask'
    wrong[(overlap < 0.5) & (swapped > 0.9)] = 'a box of two corners, where COCO has x, y, width, height'
    wrong[~((width > 0) & (height > 0) & np.isfinite(given).all(axis=1))] = 'no box, or an empty one'
    return np.where((wrong == '')[:, None], boxes, mask_boxes).astype(np.float32), wrong


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, row by row; 0 where one has no area or is no box."""
    side = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = np.where((side > 0).all(axis=1), side.prod(axis=1), 0)
    whole = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (first, second)) - shared
    return np.where(shared > 0, shared / np.where(whole > 0, whole, 1), 0)
