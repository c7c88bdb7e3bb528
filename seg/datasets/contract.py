"""What a data set has to give, built-in or a plugin's: asked before anything is built, and of every example later.

docs/plugins.md tells it to those who write one.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from seg.datasets import checking
from seg.errors import UserError, shown
from seg.structures import DatasetInfo

_FIRST = 3  # So many examples are looked at before a run.
_OBJECT_KEYS = {'boxes': tf.float32, 'classes': tf.int32, 'is_crowd': tf.bool, 'area': tf.float32, 'masks': tf.int32}
_OUTSIDE = 1.0  # Pixels that a box may reach beyond its picture: boxes in files are rounded.


# ---- In the graph ----------------------------------------------------------------------------------------------------


def asserted(example: Mapping[str, Any], info: DatasetInfo) -> Mapping[str, Any]:
    """The example, with an error in the graph for labels that `check` refuses: the cheap part of it, for every step.

    A loss cannot raise in a compiled step, and some give finite values for ids that are no class.
    """
    if 'label' in example:
        label = example['label']
        ok = tf.reduce_all((label >= 0) & (label < info.num_classes) | (label == info.ignore_label))
    elif 'classes' in example:
        classes, boxes = example['classes'], example['boxes']
        ok = tf.reduce_all((classes >= 0) & (classes < info.num_classes)) & tf.reduce_all(tf.math.is_finite(boxes))
    else:
        return example
    with tf.control_dependencies([tf.debugging.Assert(ok, ['Labels out of range.'])]):
        return {**example, 'image': tf.identity(example['image'])}


# ---- On the host -----------------------------------------------------------------------------------------------------


def verify(dataset, target: str) -> None:
    """Lets a data set check itself, then loads its first examples and compares them with what a task needs.

    Args:
      dataset: any data set.
      target: what the task learns from, such as 'label_map' or 'instances'.

    Raises:
      UserError: names the data set, the image, the key, what it holds and what was expected.
    """
    own = type(dataset).__name__
    needed = ['info', 'image_name', 'load', 'verify', *(['annotations'] if target == 'instances' else [])]
    if missing := [name for name in needed if not hasattr(dataset, name)]:
        raise UserError(
            f'The data set {own} has no {", ".join(missing)}, which the target {target} needs. '
            'docs/plugins.md has an example.'
        )
    dataset.verify()
    info = dataset.info
    if target == 'label_map' and info.num_classes < 2:
        raise UserError(
            f'{info.name}: its classes are {shown(info.class_names)}, which leaves nothing to tell apart. Expected two '
            'or more; a background is a class, too.'
        )
    failures = []
    count = _FIRST if info.num_examples is None else min(info.num_examples, _FIRST)
    for index in range(count):
        name = dataset.image_name(index)
        try:
            with tf.device('CPU:0'):
                example = dataset.load(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:  # A damaged file; it counts nowhere, and the run tells of it.
            failures.append(f'image {shown(name)}: {checking.reason(error)}')
            continue
        check(example, info, name, target)
        if target == 'instances':
            _check_annotations(dataset.annotations(index), example, info, name)
    if len(failures) == count:
        raise UserError(f'{info.name}: none of the first {count} examples can be loaded. {failures[0]}.')


def warn_of_shared(train, evaluation) -> None:
    """Warns of pictures that are learnt from and scored on.

    They are the same where their files hold the same bytes (`image_path`), or, of data sets without files, where name
    and pixels are.

    Args:
      train: the data set to learn from.
      evaluation: the data set to score on.
    """
    if None in (train.info.num_examples, evaluation.info.num_examples):
        return
    has_files = hasattr(train, 'image_path') and hasattr(evaluation, 'image_path')
    same = (_same_files if has_files else _same_pictures)(train, evaluation)
    if same:
        logging.warning(
            '%d of the %d pictures of %s are the same as pictures of %s, such as %s: a score on pictures that were '
            'learnt is worth nothing. Let each picture belong to one of the two only.',
            *(len(same), evaluation.info.num_examples, evaluation.info.name, train.info.name, checking.first_of(same)),
        )


def _same_files(train, evaluation) -> list[str]:
    """Names of pictures to score on whose files are copies of files to learn from."""
    by_size: dict[int, list[str]] = {}
    for path in map(train.image_path, range(train.info.num_examples)):
        by_size.setdefault(_size(path), []).append(path)
    same = []
    for index in range(evaluation.info.num_examples):
        path = evaluation.image_path(index)
        candidates = by_size.get(_size(path), []) if _size(path) else []
        with contextlib.suppress(OSError):
            if path in candidates or any(filecmp.cmp(path, other, shallow=False) for other in candidates):
                same.append(evaluation.image_name(index))
    return same


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # Not there, or not on a local disk.
        return 0


def _same_pictures(train, evaluation) -> list[str]:
    """Names that occur in both, if the first few of them stand for the same pixels."""
    learnt = {train.image_name(index): index for index in range(train.info.num_examples)}
    scored = {evaluation.image_name(index): index for index in range(evaluation.info.num_examples)}
    common = [name for name in scored if name in learnt]
    pairs = [(learnt[name], scored[name]) for name in common[: checking.SHOWN]]
    return common if any(_is_same(train, index, evaluation, place) for index, place in pairs) else []


def _is_same(one, index: int, other, place: int) -> bool:
    try:
        with tf.device('CPU:0'):
            pictures = [d.load(tf.constant(i, tf.int64))['image'].numpy() for d, i in ((one, index), (other, place))]
    except tf.errors.OpError:
        return False
    return np.array_equal(*pictures)


def check(example: Any, info: DatasetInfo, name: str, target: str | None = None) -> None:
    """Compares one example with the contract of data sets.

    Args:
      example: as loaded, eagerly.
      info: of the data set.
      name: of the image.
      target: what a task learns from; None for what the example has, if any.

    Raises:
      UserError: for the first difference.
    """
    where = f'{info.name}, image {shown(name)}'
    if not isinstance(example, Mapping):
        raise UserError(f'{where}: load returned {shown(example)}, expected a dict of tensors.')
    target = target or ('label_map' if 'label' in example else 'instances' if 'classes' in example else None)
    if target is None:
        return
    image = _part(example, where, 'image', tf.uint8, '[H, W, 3]')
    height, width = image.shape[:2]
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f'{where}: image has shape {image.shape}, expected [H, W, 3], RGB.')
    if height > info.max_size[0] or width > info.max_size[1]:
        raise UserError(
            f'{where}: the image is {height} x {width} pixels (height x width), but info.max_size is {info.max_size}. '
            'Expected (height, width) of the largest image: largest of the heights, largest of the widths.'
        )
    if target == 'label_map':
        _check_label(_part(example, where, 'label', tf.int32, '[H, W]'), image, info, where)
    else:
        _check_objects(example, image, info, where)


def _part(example: Mapping[str, Any], where: str, key: str, dtype: tf.DType, shape: str) -> np.ndarray:
    if key not in example:
        raise UserError(f'{where}: load returned {shown(sorted(example))}, without {key!r}: {dtype.name} {shape}.')
    value = tf.convert_to_tensor(example[key])
    if value.dtype != dtype:
        raise UserError(
            f'{where}: {key} is {value.dtype.name}, expected {dtype.name} {shape}. Use tf.cast if the values are right.'
        )
    return value.numpy()


def _check_label(label: np.ndarray, image: np.ndarray, info: DatasetInfo, where: str) -> None:
    if label.shape != image.shape[:2]:
        raise UserError(f'{where}: label has shape {label.shape}, expected that of its image, {image.shape[:2]}.')
    values, counts = np.unique(label, return_counts=True)
    wrong = ((values < 0) | (values >= info.num_classes)) & (values != info.ignore_label)
    if wrong.any():
        found = [f'{v} ({n} pixels)' for v, n in zip(values[wrong], counts[wrong], strict=True)]
        raise UserError(
            f'{where}: label holds {", ".join(found[: checking.SHOWN])}{", …" if found[checking.SHOWN :] else ""}. '
            f'Expected class ids 0..{info.num_classes - 1} ({info.num_classes} classes) or {info.ignore_label}, which '
            'is ignored. Of a palette PNG, tf.io.decode_png gives colours; seg.datasets.image_files.decode_label gives '
            'the ids. Else change the labels or class_names.'
        )


def _check_objects(example: Mapping[str, Any], image: np.ndarray, info: DatasetInfo, where: str) -> None:
    shapes = {'boxes': '[N, 4]', 'masks': '[N, (ends)]'}
    masks = example.get('masks')
    if 'masks' in example and not (
        isinstance(masks, tf.RaggedTensor) and masks.dtype == tf.int32 and masks.ragged_rank
    ):
        raise UserError(
            f'{where}: masks is {shown(masks)}, expected a tf.RaggedTensor int32 [N, (ends)], as '
            'seg.masks.ragged.from_dense makes it of masks bool [N, H, W].'
        )
    parts = {
        key: _part(example, where, key, dtype, shapes.get(key, '[N]'))
        for key, dtype in _OBJECT_KEYS.items()
        if key != 'masks' or masks is None
    }
    lengths = {key: len(part) if part.ndim else 0 for key, part in parts.items()}
    lengths['masks'] = int(masks.nrows())
    if len(set(lengths.values())) > 1:
        told = ', '.join(f'{key} {length}' for key, length in lengths.items())
        raise UserError(f'{where}: {told}: expected one entry of each for every object.')
    boxes = parts['boxes']
    if boxes.shape[1:] != (4,):
        raise UserError(f'{where}: boxes has shape {boxes.shape}, expected [N, 4]: y0, x0, y1, x1 in pixels.')
    height, width = image.shape[:2]
    _check_values(boxes, parts['classes'], (height, width), info, where)
    _check_runs(masks, height * width, where)


def _check_values(boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], info: DatasetInfo, where: str) -> None:
    limits = np.asarray([*size, *size], np.float32)
    inside = np.isfinite(boxes) & (boxes >= -_OUTSIDE) & (boxes <= limits + _OUTSIDE)
    right = inside.all(1) & (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
    if not right.all():
        n = int(np.argmin(right))
        raise UserError(
            f'{where}: boxes[{n}] is {boxes[n].tolist()}. Expected y0, x0, y1, x1 in pixels, y0 <= y1 and x0 <= x1, '
            f'within the picture of {size[0]} x {size[1]} pixels (height x width).'
        )
    known = (classes >= 0) & (classes < info.num_classes)
    if not known.all():
        n = int(np.argmin(known))
        raise UserError(
            f'{where}: classes[{n}] is {classes[n]}. Expected 0..{info.num_classes - 1} ({info.num_classes} classes, '
            'without a background).'
        )


def _check_runs(masks: tf.RaggedTensor, pixels: int, where: str) -> None:
    for n, ends in enumerate(masks.to_list()):
        if len(ends) % 2 or ends != sorted(ends) or (ends and not 0 <= ends[0] <= ends[-1] <= pixels):
            raise UserError(
                f'{where}: masks[{n}] is {shown(ends)}. Expected its runs: start, stop, start, stop, … ascending, '
                f'within 0..{pixels}, where pixel (y, x) has position x * height + y. '
                'seg.masks.ragged.from_dense makes them of masks bool [N, H, W].'
            )


def _check_annotations(found: Any, example: Mapping[str, Any], info: DatasetInfo, name: str) -> None:
    """Compares what scores are computed against with the loaded example."""
    where = f'{info.name}, image {shown(name)}: annotations'
    size = tuple(example['image'].shape[:2])
    if (found.height, found.width) != size:
        raise UserError(f'{where} have height {found.height} and width {found.width}; the image has {size}.')
    lengths = {key: len(getattr(found, key)) for key in _OBJECT_KEYS}
    if len({*lengths.values()}) > 1:
        told = ', '.join(f'{key} {length}' for key, length in lengths.items())
        raise UserError(f'{where}: {told}: expected one entry of each for every object.')
    _check_values(np.reshape(found.boxes, (-1, 4)), np.asarray(found.classes), size, info, where)
