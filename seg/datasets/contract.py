"""Checks data sets against their contract (`base`): the first examples before a run, class ids of every example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from seg.datasets import checking
from seg.datasets.base import IMAGE, TARGETS, Dataset, Field, FirstExamples
from seg.errors import UserError, built_in, failed, reason, shown, source_file
from seg.structures import Annotations, DatasetInfo

_FIRST = 3  # Number of examples that are checked before a run.
_OUTSIDE = 1.0  # Pixels that a box may reach beyond its image: boxes in files are rounded.


# ---- In the graph ----------------------------------------------------------------------------------------------------


def load_in_graph(dataset: Dataset, index: tf.Tensor) -> Mapping[str, Any]:
    """Calls `load` while a graph is made.

    Raises:
      UserError: if the `load` of a plugin cannot be part of a graph.
    """
    # AutoGraph takes half of the tracing time, and no built-in data set needs it.
    load = tf.autograph.experimental.do_not_convert(dataset.load) if built_in(_whole(dataset)) else dataset.load
    try:
        return load(index)
    except Exception as error:
        raise _graph_failed(dataset, error) from error


@tf.autograph.experimental.do_not_convert
def _graph_failed(dataset: Dataset, error: Exception) -> Exception:
    return load_failed(dataset, f'{dataset.info.name}: load, called in a graph,', error, in_graph=True)


def asserted(example: Mapping[str, Any], info: DatasetInfo, target: str | None) -> Mapping[str, Any]:
    """Returns the example, with an assertion in the graph that its class ids are in range, for every step.

    A loss cannot raise in a compiled step, and some losses are finite for ids out of range.

    Raises:
      UserError: if the graph does not know the number of dimensions of a tensor.
    """
    if target is not None:
        for key, field in (IMAGE | TARGETS.get(target, {})).items():
            _check_static(example[key], key, field, info)
    if target == 'label_map':
        label = example['label']
        ok = tf.reduce_all((label >= 0) & (label < info.num_classes) | (label == info.ignore_label))
    elif target == 'instances':
        classes, boxes = example['classes'], example['boxes']
        ok = tf.reduce_all((classes >= 0) & (classes < info.num_classes)) & tf.reduce_all(tf.math.is_finite(boxes))
    else:
        return example
    with tf.control_dependencies([tf.debugging.Assert(ok, ['Class ids out of range.'])]):
        return {**example, 'image': tf.identity(example['image'])}


@tf.autograph.experimental.do_not_convert
def _check_static(value: Any, key: str, field: Field, info: DatasetInfo) -> None:
    """Refuses a tensor whose static shape is unknown or wrong."""
    if not isinstance(value, (tf.Tensor, tf.RaggedTensor)):
        return  # The shape of an array is known.
    if value.shape.rank is None or not value.shape.is_compatible_with(field.sides):
        raise UserError(
            f'{info.name}: in a graph, load returns {key} of shape {value.shape}; expected {field}. The results of '
            f'tf.numpy_function and tf.py_function have no shape: tf.ensure_shape({key}, {field.sides}) sets it.'
        )


# ---- On the host -----------------------------------------------------------------------------------------------------


def verify(dataset: Any, target: str, slot: str) -> None:
    """Calls the data set's own check, then loads its first examples and compares them with the contract.

    Args:
      dataset: what the data set's builder returned.
      target: what the task learns from. For a target that is not in `TARGETS`, only the image is compared.
      slot: the setting and its reference to the data set, for messages.

    Raises:
      UserError: names the data set, the image, the key, its value and what was expected.
    """
    check_type(dataset, slot)
    dataset.verify()
    check_first(dataset, target, slot)


def check_type(dataset: Any, slot: str) -> None:
    """Refuses a value that is not a `Dataset`; arguments and errors as `verify`."""
    if not isinstance(dataset, Dataset):
        raise UserError(
            f'{slot} returned {type(dataset).__name__}, expected a seg.datasets.base.Dataset. Derive the class of the '
            'data set from it; docs/plugins_data.md has an example.'
        )


def check_first(dataset: Dataset, target: str, slot: str) -> None:
    """Loads the first examples of a data set and compares them with the contract; arguments and errors as `verify`."""
    info = dataset.info
    _check_info(info, target, slot)
    failures = []
    count = _FIRST if info.num_examples is None else min(info.num_examples, _FIRST)
    for index in range(count):
        name = dataset.image_name(index)
        if not isinstance(name, str):
            raise UserError(f'{info.name}: image_name({index}) returned {shown(name)}, expected a string.')
        try:
            with tf.device('CPU:0'):
                example = dataset.load(tf.constant(index, tf.int64))
                check(example, info, name, target)
                annotations = dataset.annotations(index) if target == 'instances' else None
        except UserError:
            raise
        except Exception as error:
            if not checking.unreadable(error):
                raise load_failed(dataset, f'{slot}: load of image {shown(name)}', error) from error
            failures.append(f'image {shown(name)}: {reason(error)}')  # The image has weight 0, and the log names it.
            continue
        if annotations is not None:
            _check_annotations(annotations, example, info, name)
    if len(failures) == count:
        raise UserError(f'{info.name}: none of the first {count} examples can be loaded. {failures[0]}.')


def load_failed(dataset: Dataset, what: str, error: Exception, in_graph: bool = False) -> Exception:
    """Returns the exception to raise if `load` fails for another reason than an unreadable file.

    Args:
      dataset: the data set.
      what: the data set, the image and the call.
      error: the exception.
      in_graph: whether `load` was only traced, so that no file was read.

    Returns:
      A message with the line in the plugin's file; `error` itself if it is a `UserError` or from a built-in data set.
    """
    dataset = _whole(dataset)
    if isinstance(error, UserError) or built_in(dataset):
        return error
    remedy = 'If a file cannot be read, raise an OSError: the image then has weight 0, and the log names it.'
    return failed(error, what, source_file(dataset), '' if in_graph else remedy)


def _whole(dataset: Dataset) -> Dataset:
    """The data set itself, or the one whose first examples it has."""
    while isinstance(dataset, FirstExamples):
        dataset = dataset.whole
    return dataset


def _check_info(info: Any, target: str, slot: str) -> None:
    if not isinstance(info, DatasetInfo):
        raise UserError(f'{slot}: info is {shown(info)}, expected a seg.structures.DatasetInfo.')
    if info.num_examples is not None and not (_is_count(info.num_examples) and info.num_examples > 0):
        raise UserError(
            f'{info.name}: info.num_examples is {shown(info.num_examples)}. Expected at least one example, or None for '
            'an endless data set.'
        )
    if not (isinstance(info.max_size, tuple) and len(info.max_size) == 2 and all(map(_is_count, info.max_size))):
        raise UserError(f'{info.name}: info.max_size is {shown(info.max_size)}, expected (height, width) in pixels.')
    if target == 'label_map' and info.num_classes < 2:
        raise UserError(
            f'{info.name}: its classes are {shown(info.class_names)}, which leaves nothing to distinguish. Expected '
            'two or more; a background is a class as well.'
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0


def check(example: Any, info: DatasetInfo, name: str, target: str | None) -> None:
    """Compares one example with the contract.

    Args:
      example: an example that was loaded eagerly.
      info: facts about the data set.
      name: name of the image.
      target: what the task learns from. If None, the only check is that the example is a dict.

    Raises:
      UserError: for the first difference.
    """
    where = f'{info.name}, image {shown(name)}'
    if not isinstance(example, Mapping):
        raise UserError(f'{where}: load returned {shown(example)}, expected a dict of tensors.')
    if target is None:
        return
    expected = IMAGE | TARGETS.get(target, {})
    if lacking := [key for key in expected if key not in example]:
        needed = ', '.join(f'{key} ({expected[key]})' for key in lacking)
        raise UserError(
            f'{where}: load returned {", ".join(map(shown, sorted(example)))}. The target {target!r} also needs '
            f'{needed}. Is this a data set for another target?'
        )
    image = _value(example['image'], IMAGE['image'], 'image', where)
    height, width = image.shape[:2]
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f'{where}: image has shape {image.shape}, expected [H, W, 3], RGB.')
    if height > info.max_size[0] or width > info.max_size[1]:
        raise UserError(
            f'{where}: the image is {height} x {width} pixels (height x width), but info.max_size is {info.max_size}. '
            'Expected the largest height and the largest width of all images.'
        )
    if target == 'label_map':
        _check_label(_value(example['label'], expected['label'], 'label', where), image, info, where)
    elif target == 'instances':
        _check_instances(example, image, info, where)


def _value(value: Any, field: Field, key: str, where: str) -> np.ndarray:
    value = tf.convert_to_tensor(value)
    if value.dtype != field.dtype:
        raise UserError(f'{where}: {key} is {value.dtype.name}, expected {field}. Use tf.cast if the values are right.')
    return value.numpy()


def _check_label(label: np.ndarray, image: np.ndarray, info: DatasetInfo, where: str) -> None:
    if label.shape != image.shape[:2]:
        raise UserError(f'{where}: label has shape {label.shape}, expected the sides of its image, {image.shape[:2]}.')
    values, counts = np.unique(label, return_counts=True)
    wrong = ((values < 0) | (values >= info.num_classes)) & (values != info.ignore_label)
    if wrong.any():
        found = [f'{v} ({n} pixels)' for v, n in zip(values[wrong], counts[wrong], strict=True)]
        raise UserError(
            f'{where}: label holds {", ".join(found[: checking.SHOWN])}{", …" if found[checking.SHOWN :] else ""}. '
            f'Expected class ids 0..{info.num_classes - 1} ({info.num_classes} classes) or {info.ignore_label}, which '
            'is ignored. From a palette PNG, tf.io.decode_png returns colours; seg.datasets.image_files.decode_label '
            'returns the ids. Otherwise correct the labels or class_names.'
        )


def _check_instances(example: Mapping[str, Any], image: np.ndarray, info: DatasetInfo, where: str) -> None:
    fields, masks = TARGETS['instances'], example['masks']
    if not (isinstance(masks, tf.RaggedTensor) and masks.dtype == tf.int32 and masks.ragged_rank):
        raise UserError(
            f'{where}: masks is {shown(masks)}, expected a tf.RaggedTensor {fields["masks"]}. '
            'seg.masks.ragged.from_dense makes it from masks bool [N, H, W].'
        )
    parts = {key: _value(example[key], field, key, where) for key, field in fields.items() if key != 'masks'}
    lengths = {key: part.shape[0] if part.ndim else 0 for key, part in parts.items()}
    _check_lengths(lengths | {'masks': masks.nrows()}, where)
    boxes = parts['boxes']
    if boxes.shape[1:] != (4,):
        raise UserError(f'{where}: boxes has shape {boxes.shape}, expected [N, 4]: y0, x0, y1, x1 in pixels.')
    height, width = image.shape[:2]
    _check_values(boxes, parts['classes'], (height, width), info, where)
    _check_runs(masks, height * width, where)


def _check_lengths(lengths: Mapping[str, Any], where: str) -> None:
    if len({int(length) for length in lengths.values()}) > 1:
        found = ', '.join(f'{key} {int(length)}' for key, length in lengths.items())
        raise UserError(f'{where}: lengths {found}. Expected one entry of each key for every instance.')


def _check_values(boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], info: DatasetInfo, where: str) -> None:
    limits = np.asarray([*size, *size], np.float32)
    inside = np.isfinite(boxes) & (boxes >= -_OUTSIDE) & (boxes <= limits + _OUTSIDE)
    right = inside.all(1) & (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
    if not right.all():
        n = int(np.argmin(right))
        raise UserError(
            f'{where}: boxes[{n}] is {boxes[n].tolist()}. Expected y0, x0, y1, x1 in pixels, y0 <= y1 and x0 <= x1, '
            f'within the image of {size[0]} x {size[1]} pixels (height x width).'
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
                'seg.masks.ragged.from_dense makes them from masks bool [N, H, W].'
            )


def _check_annotations(found: Any, example: Mapping[str, Any], info: DatasetInfo, name: str) -> None:
    """Compares the annotations with the loaded example."""
    where = f'{info.name}, image {shown(name)}: annotations'
    if not isinstance(found, Annotations):
        raise UserError(f'{where} returned {shown(found)}, expected a seg.structures.Annotations.')
    size = tuple(example['image'].shape[:2])
    if (found.height, found.width) != size:
        raise UserError(f'{where} have height {found.height} and width {found.width}; the image has {size}.')
    parts = found._asdict()
    _check_lengths({key: len(parts[key]) for key in TARGETS['instances']}, where)
    _check_values(np.reshape(found.boxes, (-1, 4)), np.asarray(found.classes), size, info, where)
