"""Reads COCO's annotation files, and checks that they are consistent."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from seg.datasets import checking, coco_masks
from seg.errors import UserError, shown
from seg.files import parse_json, read_bytes

# Pixels of an image. pycocotools allocates 6 bytes per run and writes one more at the end. If there are four or more
# runs and all take 6 bytes, that corrupts its memory; such runs have at least 2^24 pixels each.
_MOST_PIXELS = 2**26
_KEYS = ('images', 'annotations')
_OTHER_FORMATS = {
    b'PK\x03\x04': 'a ZIP archive: unpack it',
    b'\x1f\x8b': 'a gzip file: unpack it',
    b'version https://git-lfs': "a pointer of Git LFS: download the file with 'git lfs pull'",
}
# The strings come from files that were converted from CSV and XML.
_IS_CROWD = {0: False, 1: True, None: False, '0': False, '1': True, 'false': False, 'true': True, '': False}


class Contents(NamedTuple):
    """The content of an annotation file.

    Attributes:
      image_ids: the id of each image in the file, a number or a string, in the file's order.
      file_names: file names of the images, as written in the file.
      sizes: int32 [images, 2], (height, width).
      class_names: names of the classes, by ascending category id.
      category_ids: the id of each class in the file.
      instances: all instances with a usable mask.
    """

    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    sizes: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    instances: coco_masks.Instances


def read(path: str) -> Contents:
    """Reads an annotation file.

    Instances without a usable mask are dropped; the log counts them by reason, and names the first five.

    Raises:
      UserError: if the file is truncated, of another kind, or inconsistent: two images with one id, instances of
        unknown images or classes, …
    """
    data = _load(path)
    index_of, file_names, sizes = _images(path, data['images'])
    annotations = data['annotations']
    names, category_ids = _classes(path, data.get('categories'), annotations)
    class_of = {category: number for number, category in enumerate(category_ids)}
    image_of, classes, is_crowd = _references(path, annotations, index_of, class_of)

    def title(number):
        return f'{_title(annotations[number], number)} of {shown(file_names[image_of[number]])}'

    instances = coco_masks.read(path, annotations, image_of, classes, is_crowd, sizes, title)
    return Contents(tuple(index_of), file_names, sizes, names, category_ids, instances)


def _load(path: str) -> dict[str, Any]:
    content = read_bytes(path)
    try:
        data = parse_json(content)
    except ValueError as error:
        other = next((name for begin, name in _OTHER_FORMATS.items() if content.startswith(begin)), None)
        if other:
            raise UserError(f'{path} is not JSON but {other}.') from None
        raise UserError(f'{path} is not a complete JSON file: {error}. Download or create it again.') from None
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


def _id(value: Any) -> int | str | None:
    """An id: a number or a string. (pandas writes numbers as 1.0.) None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) or checking.is_text(value) else None


class _Found(dict):
    """Entries by id. A string also matches the number that it stands for, and vice versa, if that is unambiguous."""

    def __init__(self, ids: Iterable[int | str]):
        super().__init__((identity, n) for n, identity in enumerate(ids))
        self.other_kind = 0
        self._by_text = {}
        for identity, n in self.items():
            self._by_text[str(identity)] = None if str(identity) in self._by_text else n

    def find(self, value: Any) -> int | None:
        """The position of the entry with an id; None if there is none."""
        identity = _id(value)
        found = self.get(identity)
        if found is None and identity is not None:
            found = self._by_text.get(str(identity))
            self.other_kind += found is not None
        return found


def _side(value: Any) -> int:
    """A height or width in pixels; 0 for an invalid value."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value < 2**31 and int(value) == value else 0


def _images(path: str, images: list) -> tuple[dict[int | str, int], tuple[str, ...], np.ndarray]:
    """Returns position by image id, file names, and sizes."""
    if not images:
        raise UserError(f'{path}: images is empty. There is nothing to train on or to evaluate.')
    index_of, problems = {}, []
    for number, image in enumerate(images):
        image_id, name = _id(image.get('id')), image.get('file_name')
        height, width = _side(image.get('height')), _side(image.get('width'))
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
    sizes = np.array([(_side(image['height']), _side(image['width'])) for image in images], np.int32)
    return index_of, file_names, sizes


def _about_name(image: Mapping) -> str:
    message = f'file_name is {shown(image.get("file_name"))}, expected a file name.'
    if 'file_name' in image or 'coco_url' not in image:
        return message
    return (
        f'there is no file_name. In LVIS, images have a coco_url only, here {shown(image["coco_url"])}: give each '
        'entry a file_name, such as train2017/000000391895.jpg.'
    )


def _classes(path: str, categories: Any, annotations: list) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns class names and category ids, by ascending id."""
    if categories is not None and not isinstance(categories, list):
        raise UserError(f'{path}: categories is {shown(categories)}, expected a list of {{"id": …, "name": …}}.')
    used = {_id(annotation.get('category_id')) for annotation in annotations} - {None}
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
        category_id, name = _id(entry.get('id')), entry.get('name')
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
    parents = _parents(categories, used)
    if parents:
        logging.warning(
            '%s: the categories %s are not used as classes: they are parents of others and have no instances.',
            *(path, checking.first_of([name_of.pop(parent) for parent in parents])),
        )
    _refuse_one_name_twice(path, name_of)
    ids = sorted(name_of)
    return tuple(name_of[category_id] for category_id in ids), tuple(ids)


def _parents(categories: list, used: set) -> list[int]:
    """Ids of categories without instances that are the parent of all others, or share a name with another one.

    The first category in Roboflow's files is the parent of all others.
    """
    above = collections.Counter(c['supercategory'] for c in categories if isinstance(c.get('supercategory'), str))
    named = collections.Counter(category['name'] for category in categories)
    used, parents = set(map(str, used)), []
    for category in categories:
        name = category['name']
        children = above[name] - (category.get('supercategory') == name)
        stands_for_another = children and (children == len(categories) - 1 or named[name] > 1)
        if stands_for_another and str(_id(category['id'])) not in used:
            parents.append(_id(category['id']))
    return parents


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


def _references(path: str, annotations: list, index_of: Mapping, class_of: Mapping):
    """Returns the image, the class and the crowd mark of every annotation, int64, int32 and bool [annotations]."""
    count = len(annotations)
    image_of, classes, is_crowd = np.zeros(count, np.int64), np.zeros(count, np.int32), np.zeros(count, bool)
    images, categories = _Found(index_of), _Found(class_of)
    only = next(iter(class_of)) if len(class_of) == 1 else None
    listed = [checking.first_of(list(ids)) for ids in (index_of, class_of)]
    problems, seen, twice = [], set(), {}
    for number, annotation in enumerate(annotations):
        image_id, category_id = annotation.get('image_id'), annotation.get('category_id')
        category_id = only if category_id is None else category_id
        image, its_class, crowd = images.find(image_id), categories.find(category_id), _crowd(annotation)
        if image is None:
            problems.append(
                f'{_title(annotation, number)}: image_id is {shown(image_id)}, which is not in images. It lists '
                f'{listed[0]}.'
            )
        elif its_class is None:
            problems.append(
                f'{_title(annotation, number)}: category_id is {shown(category_id)}; categories lists {listed[1]}.'
            )
        elif crowd is None:
            problems.append(
                f'{_title(annotation, number)}: iscrowd is {shown(annotation["iscrowd"])}, expected 0 or 1.'
            )
        else:
            image_of[number], classes[number], is_crowd[number] = image, its_class, crowd
        annotation_id = _id(annotation.get('id'))
        if annotation_id is not None:
            if annotation_id in seen:
                twice[annotation_id] = twice.get(annotation_id, 0) + 1
            seen.add(annotation_id)
    checking.raise_problems(path, problems, count, 'annotations')
    for found, key in ((images, 'image_id'), (categories, 'category_id')):
        if found.other_kind:
            logging.warning(
                '%s: %d annotations have a string as %s where the list has a number, or vice versa; both are treated '
                'as equal.',
                *(path, found.other_kind, key),
            )
    if twice:
        logging.warning(
            '%s: %d annotations have the id of an earlier one, such as %s. All are used; if the file was merged from '
            'others, check that it contains no instance twice.',
            *(path, sum(twice.values()), checking.first_of(list(twice))),
        )
    return image_of, classes, is_crowd


def _crowd(annotation: Mapping) -> bool | None:
    """Whether an annotation is marked as a crowd; None if the mark is neither 0 nor 1."""
    mark = annotation.get('iscrowd')
    if isinstance(mark, str):
        mark = mark.strip().lower()
    return _IS_CROWD.get(mark) if mark is None or isinstance(mark, (str, int, float)) else None


def _title(annotation: Mapping, number: int) -> str:
    identity = _id(annotation.get('id'))
    return f'annotations[{number}]' if identity is None else f'annotation {shown(identity)}'
