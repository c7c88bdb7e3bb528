"""Reads COCO's annotation files, and checks that they are consistent."""

from __future__ import annotations

import codecs
import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from seg.datasets import checking
from seg.datasets.findings import Finding
from seg.datasets.instances import coco_references, collected
from seg.errors import UserError, shown
from seg.files import parse_json, read_bytes

# Pixels of an image. pycocotools allocates 6 bytes per run and writes one more at the end. If there are four or more
# runs and all take 6 bytes, that corrupts its memory; such runs have at least 2^24 pixels each.
_MOST_PIXELS = 2**26
_KEYS = ('images', 'annotations')
_NO_PARENT = ('none', '', None)  # Supercategories of a category that has none.
_OTHER_FORMATS = {
    b'PK\x03\x04': 'a ZIP archive: unpack it',
    b'\x1f\x8b': 'a gzip file: unpack it',
    b'version https://git-lfs': "a pointer of Git LFS: download the file with 'git lfs pull'",
}


class Contents(NamedTuple):
    """The content of an annotation file.

    Attributes:
      image_ids: the id of each image in the file, a number or a string, in the file's order.
      file_names: file names of the images, as written in the file.
      sizes: int32 [images, 2], (height, width).
      class_names: names of the classes, by ascending category id.
      category_ids: the id of each class in the file.
      instances: all instances with a usable mask.
      remarks: findings about the annotations.
    """

    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    sizes: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    instances: collected.Instances
    remarks: Sequence[Finding]


class _File(msgspec.Struct, gc=False):
    """An annotation file whose content is not parsed yet."""

    images: msgspec.Raw
    annotations: list[msgspec.Raw]
    categories: msgspec.Raw


def read(path: str, content_of: Callable[[str], bytes] = read_bytes) -> Contents:
    """Reads an annotation file.

    A file in the ordinary form, with numbers for ids, is read piece by piece in the types that it should have, which
    takes a third of the time. Any other file is parsed as a whole and checked value by value.

    Instances without a usable mask are dropped.

    Args:
      path: the file.
      content_of: function that reads it.

    Raises:
      UserError: if the file is truncated, of another kind, or inconsistent: two images with one id, instances of
        unknown images or classes, …
    """
    with _without_collection():
        with contextlib.suppress(coco_references.Other, msgspec.MsgspecError, RecursionError, OverflowError):
            return _read_ordinary(path, content_of)
        return _read_any(path, content_of)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Switches Python's search for cycles off: it would search millions of lists repeatedly, and find none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read_any(path: str, content_of: Callable[[str], bytes]) -> Contents:
    """Reads a file of any form."""
    data, remarks = _load(path, content_of(path)), []
    annotations = data['annotations']
    index_of, file_names, sizes = _images(path, data['images'])
    used = {coco_references.identity(annotation.get('category_id')) for annotation in annotations} - {None}
    names, category_ids = _classes(path, data.get('categories'), used, remarks)
    class_of = {category: number for number, category in enumerate(category_ids)}
    references = coco_references.find(path, annotations, index_of, class_of, remarks)

    def chunks() -> Iterator[tuple[np.ndarray, list]]:
        for numbers in collected.in_pieces(len(annotations)):
            yield numbers, [annotations[number] for number in numbers]
            for number in numbers:
                annotations[number] = None  # To free its values.

    instances = _collect(path, chunks(), references, sizes, file_names, remarks)
    return Contents(tuple(index_of), file_names, sizes, names, category_ids, instances, remarks)


def _read_ordinary(path: str, content_of: Callable[[str], bytes]) -> Contents:
    """Does the same as `_read_any` for a file in the ordinary form.

    Raises:
      Other, msgspec.MsgspecError, RecursionError, OverflowError: if the file has another form.
    """
    content = content_of(path)
    _check_utf8(content)
    file = msgspec.json.decode(content, type=_File)
    count, spans = len(file.annotations), _spans(content, file.annotations)
    images, categories = bytes(file.images), bytes(file.categories)
    piece_of = content.__getitem__
    if content_of is read_bytes:
        piece_of = functools.partial(_piece, path)
    del content, file  # Half a gigabyte for COCO. A file on disk is read again, piece by piece.
    images, categories = _parsed(path, images), _parsed(path, categories)
    if not (_are_objects(images) and categories and _are_objects(categories)):
        raise coco_references.Other
    index_of, file_names, sizes = _images(path, images)
    _classes(path, categories, set(), [])  # Refuses wrong ones before anything about annotations.
    ids = [coco_references.identity(category['id']) for category in categories]
    category_of = {identity: position for position, identity in enumerate(ids)}
    del images
    references, remarks = coco_references.Typed(count, index_of, category_of), []
    chunks = _chunks(path, piece_of, spans, references)
    instances = _collect(path, chunks, references.found, sizes, file_names, remarks)
    used = {ids[position] for position in np.unique(references.found.classes)}
    of_classes: list[Finding] = []
    names, category_ids = _classes(path, categories, used, of_classes)
    numbers = np.array([category_ids.index(i) if i in category_ids else -1 for i in ids], np.int32)
    remarks = [*of_classes, *coco_references.repeated_ids(path, references.repeated()), *remarks]
    instances = instances._replace(classes=numbers[instances.classes])
    return Contents(tuple(index_of), file_names, sizes, names, category_ids, instances, remarks)


def _piece(path: str, place: slice) -> bytes:
    """A part of a file. If the file has changed, the part is not JSON, or too short."""
    try:
        with open(path, 'rb') as file:
            file.seek(place.start)
            return file.read(place.stop - place.start)
    except OSError:
        raise coco_references.Other from None


def _chunks(
    path: str, piece_of: Callable[[slice], bytes], spans: Sequence[slice], references: coco_references.Typed
) -> Iterator:
    """Reads pieces of the list of annotations: their references, and the instances for `collected.collect`."""
    for numbers, span in zip(collected.in_pieces(len(references.found.ids)), spans, strict=True):
        joined = b'[%b]' % piece_of(span)
        yield numbers, references.read(numbers, joined) or _parsed(path, joined)


def _collect(path, chunks, references, sizes, file_names, remarks) -> collected.Instances:
    def title(number):
        name = coco_references.title(references.ids[number], number)
        return f'{name} of {shown(file_names[references.image_of[number]])}'

    return collected.collect(path, chunks, *references[1:], sizes, title, remarks)


_SLICE = 2**24


def _check_utf8(content: bytes) -> None:
    """Raises `Other` if the file is not UTF-8; needs little memory."""
    if content.isascii():
        return
    slices = (content[start : start + _SLICE] for start in range(0, len(content), _SLICE))
    try:
        for _ in codecs.iterdecode(slices, 'utf-8'):
            pass
    except UnicodeDecodeError:
        raise coco_references.Other from None


def _spans(content: bytes, raws: Sequence[msgspec.Raw]) -> list[slice]:
    """The places of pieces of the list of annotations in the file: they take less memory than `raws`."""

    def place(view):
        return np.frombuffer(view, np.uint8).__array_interface__['data'][0]

    spans = []
    for numbers in collected.in_pieces(len(raws)):
        first, last = raws[numbers[0]], raws[numbers[-1]]
        spans.append(slice(place(first) - place(content), place(last) - place(content) + len(last)))
    return spans


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _parsed(path: str, content: bytes) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        other = next((name for begin, name in _OTHER_FORMATS.items() if content.startswith(begin)), None)
        if other:
            raise UserError(f'{path} is not JSON but {other}.') from None
        raise UserError(f'{path} is not a complete JSON file: {error}. Download or create it again.') from None


def _load(path: str, content: bytes) -> dict[str, Any]:
    data = _parsed(path, content)
    if isinstance(data, list):
        raise UserError(
            f"{path} is a list, like COCO's result files. Expected annotations: an object with the lists images, "
            'annotations and categories.'
        )
    lacking = [key for key in _KEYS if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    if lacking:
        there = f'it is {shown(data)}'
        if isinstance(data, dict):
            there = f'it has {checking.first_of(sorted(data))}' if data else 'it is empty'
        raise UserError(
            f"{path}: expected COCO's instance annotations, an object with the lists images, annotations and "
            f'categories. There is no list {" and no list ".join(lacking)}; {there}.'
        )
    for key in _KEYS:
        strange = next((n for n, entry in enumerate(data[key]) if not isinstance(entry, dict)), None)
        if strange is not None:
            raise UserError(f'{path}: {key}[{strange}] is {shown(data[key][strange])}, expected an object.')
    if any('segments_info' in entry for entry in data['annotations']):
        raise UserError(
            f"{path} holds COCO's panoptic annotations (segments_info), whose masks are in PNG files. Expected its "
            'instance annotations, such as instances_train2017.json beside panoptic_train2017.json.'
        )
    return data


def _side(value: Any) -> int:
    """A height or width in pixels; 0 for an invalid value."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value < 2**31 and int(value) == value else 0


def _images(path: str, images: list) -> tuple[dict[int | str, int], tuple[str, ...], np.ndarray]:
    """Returns position by image id, file names, and sizes."""
    if not images:
        raise UserError(f'{path}: images is empty. There is nothing to train on or to evaluate.')
    index_of, sizes, problems = {}, [], []
    for number, image in enumerate(images):
        image_id, name = coco_references.identity(image.get('id')), image.get('file_name')
        height, width = _side(image.get('height')), _side(image.get('width'))
        sizes.append((height, width))
        if image_id is None:
            problems.append(f'images[{number}]: id is {shown(image.get("id"))}, expected a number.')
        elif image_id in index_of:
            other = images[index_of[image_id]].get('file_name')
            problems.append(
                f'images[{number}], {shown(name)}: the id {shown(image_id)} also belongs to {shown(other)}. Ids of '
                'images must differ: if the file was merged from two, give the images of the second one new ids, in '
                'images and in its annotations.'
            )
        elif not checking.is_text(name) or '\0' in name:
            problems.append(f'images[{number}], id {shown(image_id)}: {_about_name(image)}')
        elif not (height and width and height * width < _MOST_PIXELS):
            problems.append(
                f'images[{number}], {shown(name)}: height is {shown(image.get("height"))} and width '
                f'{shown(image.get("width"))}, expected pixels, and at most {_MOST_PIXELS} per image.'
            )
        index_of.setdefault(image_id, number)
    checking.raise_problems(path, problems, len(images), 'entries of images')
    file_names = tuple(image['file_name'] for image in images)
    return index_of, file_names, np.array(sizes, np.int32)


def _about_name(image: Mapping) -> str:
    message = f'file_name is {shown(image.get("file_name"))}, expected a file name.'
    if 'file_name' in image or 'coco_url' not in image:
        return message
    return (
        f'there is no file_name. In LVIS, images have a coco_url only, here {shown(image["coco_url"])}: give each '
        'entry a file_name, such as train2017/000000391895.jpg.'
    )


def _classes(path: str, categories: Any, used: set, remarks: list[Finding]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns class names and category ids, by ascending id; `used` are the category ids of annotations."""
    if categories is not None and not isinstance(categories, list):
        raise UserError(f'{path}: categories is {shown(categories)}, expected a list of {{"id": …, "name": …}}.')
    if not categories:
        if len(used) > 1:
            raise UserError(
                f'{path}: there are no categories, but the annotations have the category ids '
                f'{checking.first_of(sorted(used, key=str))}. Add categories, a list of {{"id": …, "name": …}}.'
            )
        return ('object',), (used.pop() if used else 1,)
    problems, name_of = [], {}
    for number, category in enumerate(categories):
        entry = category if isinstance(category, dict) else {}
        category_id, name = coco_references.identity(entry.get('id')), entry.get('name')
        if not isinstance(category_id, int) or not checking.is_text(name):
            problems.append(
                f'categories[{number}] is {shown(category, 80)}: expected {{"id": <number>, "name": <string>}}.'
            )
        elif category_id in name_of:
            problems.append(
                f'categories[{number}], {shown(name)}: the id {shown(category_id)} also belongs to '
                f'{shown(name_of[category_id])}.'
            )
        else:
            name_of[category_id] = name
    checking.raise_problems(path, problems, len(categories), 'categories')
    if (parent := _parent(categories)) is not None:
        about = f'{path}: the category {shown(name_of.pop(parent))} (id {parent})'
        if str(parent) in set(map(str, used)):
            raise UserError(
                f'{about} has annotations, but it is not a class: it is the supercategory of all others, as in files '
                'of Roboflow. Give these annotations the id of another category; or, if it is a class, remove its name '
                'from the supercategory of the others, in the files of all splits.'
            )
        text = f'{about} is not used as a class: it is the supercategory of all others, as in files of Roboflow.'
        remarks.append(coco_references.warning('parent_category', text, 1))
    _refuse_one_name_twice(path, name_of)
    ids = sorted(name_of)
    return tuple(name_of[category_id] for category_id in ids), tuple(ids)


def _parent(categories: list) -> int | None:
    """The id of the category that is the supercategory of all others and has none itself; None if there is none.

    Roboflow begins its files with one. Only the categories decide, not which of them have annotations: the files of all
    splits have the same categories, so that all splits have the same classes.
    """
    above = [category.get('supercategory') for category in categories]
    for place, category in enumerate(categories):
        others = above[:place] + above[place + 1 :]
        if others and above[place] in _NO_PARENT and all(name == category['name'] for name in others):
            return coco_references.identity(category['id'])
    return None


def _refuse_one_name_twice(path: str, name_of: Mapping[int, str]) -> None:
    first_id, problems = {}, []
    for category_id, name in name_of.items():
        if name in first_id:
            problems.append(
                f'the ids {shown(first_id[name])} and {shown(category_id)} both have the name {shown(name)}. Rename '
                'one of them, or, if they mean the same class, remove one and give its annotations the id of the other.'
            )
        first_id.setdefault(name, category_id)
    checking.raise_problems(path, problems, len(name_of), 'categories')
