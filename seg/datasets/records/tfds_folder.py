"""Sets of TensorFlow Datasets on disk: where they are, how they are prepared, and as ArrayRecord files."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import os
import pathlib
import random
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from seg import files, log_level
from seg.datasets import checking
from seg.datasets.records.array_files import Part
from seg.errors import UserError, reason, shown

INFO = 'dataset_info.json'
_ARRAY, _TFRECORD = 'array_record', 'tfrecord'
# One record at a time is read. Images are compressed already.
WRITER_OPTIONS = 'group_size:1,uncompressed'


def library() -> Any:
    """The module `tensorflow_datasets`, ready to prepare sets.

    For that it imports `importlib_resources`, which is the standard library's `importlib.resources` for old Pythons,
    and which it does not name among its dependencies.
    """
    import tensorflow_datasets

    if 'importlib_resources' not in sys.modules and importlib.util.find_spec('importlib_resources') is None:
        importlib.import_module('importlib.resources.abc')
        sys.modules['importlib_resources'] = importlib.import_module('importlib.resources')
    return tensorflow_datasets


@contextlib.contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Context for preparing sets: TFDS draws names by Python's generator, as Keras draws seeds of weights."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def on_disk(part: str, name: str, version: str | None, data_dir: str | None) -> str | None:
    """The folder of a prepared set; None for a set of TFDS that is not prepared.

    Args:
      part: the data set's gin key, for messages.
      name: the folder of a prepared set, or of its versions; or its name in TFDS.
      version: which version; None for the newest one.
      data_dir: the folder of prepared sets; None for TFDS' own.

    Raises:
      UserError: if it is the name of a folder without a prepared set, or of one with other versions.
    """
    if _is_path(name):
        return _folder(part, os.path.expanduser(name), version)
    tfds = library()
    try:
        with _quiet():
            builder = tfds.core.read_only_builder.builder_from_files(_full(name, version), **_where(data_dir))
        return os.fspath(builder.data_dir)
    except tfds.core.DatasetNotFoundError:
        return None
    except Exception as error:  # TFDS raises exceptions of any kind.
        raise UserError(f'{part}.name = {shown(name)}: {_first_line(error)}.') from None


def known(part: str, name: str, version: str | None, data_dir: str | None) -> Any:
    """The `DatasetBuilder` that prepares a set of TFDS; arguments as for `on_disk`.

    Raises:
      UserError: if TFDS does not know the set.
    """
    tfds = library()
    try:
        with _quiet():
            return tfds.builder(_full(name, version), file_format=_ARRAY, **_where(data_dir))
    except Exception as error:
        message = _first_line(error).partition(' Available datasets')[0].rstrip('.')
        raise UserError(
            f'{part}.name = {shown(name)}: it is not prepared in {data_dir or tfds.core.constants.DATA_DIR}, and '
            f'TensorFlow Datasets has no such set: {message}.'
            f"{_near(name)} Expected the name of a set, such as 'oxford_iiit_pet', or the folder of a prepared one."
        ) from None


def find(part: str, name: str, version: str | None, data_dir: str | None) -> Any:
    """Finds a prepared set, or prepares it; arguments as for `on_disk`.

    Returns:
      A `DatasetBuilder` that can read only, for ArrayRecord files.

    Raises:
      UserError: if there is no such set, it cannot be prepared, or its files are damaged.
    """
    folder = on_disk(part, name, version, data_dir)
    if folder is None:
        folder = _prepared(part, known(part, name, version, data_dir), _full(name, version))
    builder = opened(part, folder)
    kind = builder.info.file_format.file_suffix if builder.info.file_format else _TFRECORD
    if kind == _ARRAY:
        return builder
    if kind == _TFRECORD:
        return opened(part, _as_array_records(part, builder))
    raise UserError(f'{part}.name = {shown(name)}: {folder} holds {kind} files. Expected {_ARRAY} or {_TFRECORD}.')


def parts(part: str, builder: Any, split: str) -> list[Part]:
    """The records of a split, such as 'train', 'train[:80%]' or 'train+test'.

    Raises:
      UserError: if there is no such split, or it has no examples.
    """
    slot, info = f'{part}.split', builder.info
    if not isinstance(split, str) or not split:
        raise UserError(f"{slot} = {shown(split)}: expected the name of a split, such as 'train' or 'train[:80%]'.")
    there = ', '.join(f'{name!r} ({each.num_examples} examples)' for name, each in info.splits.items()) or 'none'
    try:
        found = info.splits[split].file_instructions
    except Exception as error:  # TFDS raises exceptions of several kinds.
        raise UserError(
            f'{slot} = {shown(split)}: {_first_line(error)}. Splits of {builder.data_dir}: {there}.'
        ) from None
    found = [Part(os.fspath(each.filename), each.skip, each.take, each.examples_in_shard) for each in found]
    if not sum(each.count for each in found):
        raise UserError(f'{slot} = {shown(split)}: it has no examples. Splits of {builder.data_dir}: {there}.')
    return found


def damaged(builder: Any) -> str:
    """What to do about damaged files of a set, a sentence."""
    return f'Copy the file again; or remove {builder.data_dir} and prepare the set again.'


# ---- Folders ---------------------------------------------------------------------------------------------------------


def _is_path(name: str) -> bool:
    """Whether a name is that of a folder; names in TFDS may have one slash, before their configuration."""
    return name.startswith(('/', '~', '.')) or name.count('/') > 1 or os.path.isdir(name)


def _folder(part: str, path: str, version: str | None) -> str:
    """The folder of a prepared set, which is given, or that of its versions.

    Raises:
      UserError: if there is none.
    """
    slot = f'{part}.name = {shown(path)}'
    if os.path.isfile(os.path.join(path, INFO)):
        if version is not None and (found := _version_of(part, path)) != version:
            raise UserError(f'{part}.version = {shown(version)}: {path} holds version {found}.')
        return path
    there = [name for name in checking.listed(path) if os.path.isfile(os.path.join(path, name, INFO))]
    versions = sorted((name for name in there if re.fullmatch(r'\d+\.\d+\.\d+', name)), key=_by_number)
    if version is None and versions:
        return os.path.join(path, versions[-1])
    if version in versions:
        return os.path.join(path, version)
    if versions:
        raise UserError(f'{part}.version = {shown(version)}: {path} holds {", ".join(map(repr, versions))}.')
    raise UserError(
        f'{slot}: there is no {INFO} in it. {checking.holds(path)}. Expected the folder of a prepared set of '
        "TensorFlow Datasets, or a set's name there."
    )


def _by_number(version: str) -> list[int]:
    return [int(number) for number in version.split('.')]


def _version_of(part: str, folder: str) -> str:
    return str(opened(part, folder).version)


def opened(part: str, folder: str) -> Any:
    """The builder of a prepared set.

    Raises:
      UserError: if its files of facts are damaged.
    """
    try:
        with _quiet():
            builder = library().builder_from_directory(folder)
        _ = builder.info.features.items()
        return builder
    except Exception as error:  # TFDS raises exceptions of any kind.
        raise UserError(
            f'{part}.name: {folder} cannot be read as a prepared set of TensorFlow Datasets: {_first_line(error)}. '
            'Copy it again, or remove it and prepare it again.'
        ) from None


def _full(name: str, version: str | None) -> str:
    return name if version is None else f'{name}:{version}'


def _where(data_dir: str | None) -> dict[str, str]:
    return {} if data_dir is None else {'data_dir': os.path.expanduser(data_dir)}


def _prepared(part: str, builder: Any, name: str) -> str:
    """Prepares a set of TFDS. Returns its folder.

    Raises:
      UserError: if that fails, such as without a network.
    """
    logging.info('%s: %s is prepared in %s, once: its files are fetched.', part, name, builder.data_dir)
    try:
        with random_numbers_kept():
            builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f'{part}.name = {shown(name)}: it is not on this machine, and cannot be prepared in {builder.data_dir}: '
            f'{_first_line(error)}. Without a network, prepare it on another machine (tfds build {name} '
            f'--file_format={_ARRAY}), and copy that folder here, or set {part}.data_dir.'
        ) from error
    return os.fspath(builder.data_dir)


def _near(name: str) -> str:
    """A sentence with the known name that may be meant; empty without one."""
    near = difflib.get_close_matches(name.partition('/')[0], library().list_builders(), 1)
    return f' Did you mean {near[0]!r}?' if near else ''


def _quiet() -> contextlib.AbstractContextManager[None]:
    """Hides what TFDS logs about each set that it opens."""
    return log_level.at(logging.WARNING)


def _first_line(error: Exception) -> str:
    text = reason(error).partition(': ')[2] or type(error).__name__
    return text.rstrip('.')


# ---- From TFRecord files ---------------------------------------------------------------------------------------------


def _as_array_records(part: str, builder: Any) -> str:
    """Copies the records of a set in TFRecord files, which cannot be read by position, into ArrayRecord files.

    The copy is made once: beside the original if that folder can be written, otherwise in `~/.cache/seg/records`. Its
    name has a digest of the original's facts, so another original has another copy. A kill leaves no partial copy
    that a later start would read.

    Raises:
      UserError: if a file of the original is damaged, or the copy cannot be written.
    """
    source = os.fspath(builder.data_dir).rstrip('/')
    facts = [path for path in pathlib.Path(source).iterdir() if path.suffix in ('.json', '.txt')]
    digest = hashlib.sha256(b'\n'.join(path.read_bytes() for path in sorted(facts))).hexdigest()[:8]
    beside = f'{source}-{_ARRAY}-{digest}'
    cache = os.path.join(_cache(), f'{builder.info.name}-{os.path.basename(beside)}')
    for place in (beside, cache):
        if os.path.isfile(os.path.join(place, INFO)):
            return place
    place = beside if os.access(os.path.dirname(source), os.W_OK) else cache
    logging.info('%s: %s is in TFRecord files, which are copied to %s, once.', part, source, place)
    temporary = f'{place}.tmp-{os.getpid()}'
    with files.writing(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        files.sweep(*os.path.split(place))
        os.makedirs(temporary)
    try:
        with files.writing(place):
            _copy(part, builder, facts, temporary)
            with contextlib.suppress(OSError):  # Another process may have been faster.
                os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _cache() -> str:
    cache = os.environ.get('XDG_CACHE_HOME', '')
    return os.path.join(cache if os.path.isabs(cache) else os.path.expanduser('~/.cache'), 'seg', 'records')


def _copy(part: str, builder: Any, facts: Sequence[pathlib.Path], folder: str) -> None:
    shards = []
    for split in builder.info.splits.values():
        template = split.filename_template.replace(filetype_suffix=_ARRAY)
        targets = [os.path.join(folder, name) for name in template.sharded_filenames(split.num_shards)]
        shards += zip(split.filepaths, targets, split.shard_lengths, strict=True)
    remedy = damaged(builder)

    def copy(number):
        origin, target, expected = shards[number]
        found = 0
        with writing_records(target) as writer:
            try:
                for record in tf.data.TFRecordDataset(os.fspath(origin)).as_numpy_iterator():
                    writer.write(record)
                    found += 1
            except tf.errors.OpError as error:
                return f'{origin}, record {found}: {reason(error)}. {remedy}'
        if found != expected:
            return f'{origin} holds {found} records, expected {expected} as in {INFO}. {remedy}'
        return ''

    faults = list(checking.in_threads(copy, len(shards), f'{part}: copying files'))
    checking.raise_problems(f'{part}, {builder.data_dir}', [fault for fault in faults if fault], len(shards), 'files')
    for path in facts:
        if path.name != INFO:
            shutil.copyfile(path, os.path.join(folder, path.name))
    info = files.read_object(os.path.join(os.fspath(builder.data_dir), INFO), 'Copy the set again.')
    files.write_json(os.path.join(folder, INFO), info | {'fileFormat': _ARRAY})


@contextlib.contextmanager
def writing_records(path: str) -> Iterator[Any]:
    """A writer of an ArrayRecord file; `write(record)` appends a record.

    Raises:
      OSError: if the file cannot be written.
    """
    from array_record.python import array_record_module

    try:
        writer = array_record_module.ArrayRecordWriter(path, WRITER_OPTIONS)
        try:
            yield writer
        finally:
            writer.close()
    except RuntimeError as error:
        raise OSError(f'{path}: {" ".join(str(error).split())}') from error
