"""TFRecord files: which ones a setting names, an index of their records, and reading by position in a graph.

A record is its length (8 bytes), a checksum of the length (4), the data, and a checksum of the data (4). TensorFlow's
own operations read it and compute the checksum of the data, so there is no Python in the graph.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from seg.datasets import checking, layouts
from seg.datasets.records.places import Places
from seg.errors import UserError, reason, shown

_HEADER, _AROUND = struct.Struct('<QI'), 16  # Bytes around the data.
_PARALLEL = 2  # Records that are read at a time, file by file on all cores.
_AGAIN = 'Copy or make the file again'
_OF_SHARDS = re.compile(r'(.*)-(\d{5})-of-(\d{5})(.*)')
_LIKE_RECORDS = re.compile(r'\.(tf)?records?\b|-\d{5}-of-\d{5}', re.IGNORECASE)


# ---- Finding the files -----------------------------------------------------------------------------------------------


def looks_like_records(name: str) -> bool:
    """Whether a file's name is one that tools give to TFRecord files: `….tfrecord`, `….record`, `…-00000-of-00010`."""
    return bool(_LIKE_RECORDS.search(name))


def find(part: str, root: str, files: str | Sequence[str] | None, split: str) -> list[str]:
    """The TFRecord files of a split, sorted.

    Args:
      part: the data set's gin key, such as 'datasets.tfrecord'.
      root: the folder.
      files: the setting of this name: globs, separated by commas or in a tuple; `{split}` stands for the split. None:
        files that are named like records and begin with the split's name, or else have it as a word.
      split: the split.

    Raises:
      UserError: if there are no such files.
    """
    if files is None:
        there = [name for name in checking.listed(root) if looks_like_records(name)]
        found = [name for name in there if re.match(rf'{re.escape(split)}[-.]', name)]
        found = found or [name for name in there if split in re.split(r'[\W_]+', name)]
        if not found:
            raise UserError(
                f'{part}.split = {split!r}: {root} has no TFRecord file with a name such as '
                f"'{split}-00000-of-00010.tfrecord'. {layouts.described(root, 'tfrecord')} Set {part}.split, or "
                f"{part}.files, such as '{{split}}*.tfrecord'."
            )
        return [os.path.join(root, name) for name in found]
    patterns = files.split(',') if isinstance(files, str) else files
    if not isinstance(patterns, tuple | list) or not all(isinstance(each, str) and each.strip() for each in patterns):
        raise UserError(
            f"{part}.files = {shown(files)}: expected globs separated by commas, such as '{{split}}-*.tfrecord'."
        )
    found = []
    for pattern in patterns:
        where = os.path.join(root, os.path.expanduser(pattern.strip().replace('{split}', split)))
        matches = [path for path in tf.io.gfile.glob(where) if not tf.io.gfile.isdir(path)]
        if not matches:
            raise UserError(f'{part}.files: no file matches {where!r}. {checking.holds(os.path.dirname(where))}.')
        found += matches
    return sorted(set(found))


def missing_shards(paths: Sequence[str]) -> list[str]:
    """Files that should be there, by the numbers in names such as `train-00003-of-00010.tfrecord`, and are not."""
    sets: dict[tuple[str, int, str], set[int]] = {}
    for path in paths:
        if named := _OF_SHARDS.fullmatch(path):
            sets.setdefault((named[1], int(named[3]), named[4]), set()).add(int(named[2]))
    return [
        f'{begin}-{number:05}-of-{count:05}{end}'
        for (begin, count, end), there in sorted(sets.items())
        for number in range(count)
        if number not in there
    ]


# ---- Reading a file from its beginning -------------------------------------------------------------------------------


def spans(path: str) -> tuple[list[tuple[int, int]], str | None]:
    """The place of each record of a file: (offset of the record, length of its data) in bytes.

    Only the lengths and their checksums are read.

    Returns:
      The places, and what is wrong after the last of them; None if the file ends there.
    """
    found, offset = [], 0
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            size = file.size()
            while offset < size:
                file.seek(offset)
                head = file.read(_HEADER.size)
                if not offset and (strange := _strange(head)):
                    return found, f'{path} {strange}.'
                place = f'{path}: record {len(found)}, at byte {offset},'
                if len(head) < _HEADER.size:
                    return found, f'{place} is cut off: the file ends after {size} bytes. {_AGAIN}.'
                length, checksum = _HEADER.unpack(head)
                if masked_crc32c(head[:8]) != checksum:
                    what = f'{place} is damaged: the checksum of its length is wrong' if offset else _no_records(path)
                    return found, f'{what}. {_AGAIN}.'
                if offset + length + _AROUND > size:
                    return found, (
                        f'{place} is cut off: it should have {length + _AROUND} bytes, and the file ends after '
                        f'{size - offset}. {_AGAIN}.'
                    )
                found.append((offset, length))
                offset += length + _AROUND
    except tf.errors.OpError as error:
        return found, f'{path} cannot be read: {reason(error)}.'
    return found, None


def _strange(head: bytes) -> str:
    """What a file is, by its first bytes, if it is of another known kind; completes "<path> …"."""
    if head[:2] == b'\x1f\x8b':
        return 'is compressed by gzip, so its records cannot be read by position. Decompress it with gunzip'
    if head[:4] in (b'\x83\xaf\x70\xd1', b'Rieg'):
        return 'is an ArrayRecord file, not a TFRecord file. @datasets.tfds reads sets of these'
    return ''


def _no_records(path: str) -> str:
    return f'{path} is not a TFRecord file, or is damaged: the checksum of the first length is wrong'


def contents(path: str, places: Sequence[tuple[int, int]]) -> Iterator[bytes | str]:
    """Yields the data of each record, or the fault of a damaged one; reading goes on after it.

    Data that are yielded can be parsed in a graph. Otherwise the parser's message would hold the whole record, and
    Python would fail to decode it.
    """

    @tf.autograph.experimental.do_not_convert
    def read(offset):
        record = _read(path, offset)
        parsed = tf.io.parse_single_example(record, {'': tf.io.VarLenFeature(tf.string)})
        return record, tf.size(parsed[''])  # Grappler removes what no result depends on.

    offsets = tf.data.Dataset.from_tensor_slices(np.array([offset for offset, _ in places], np.int64))
    records = iter(offsets.map(read, num_parallel_calls=_PARALLEL, deterministic=True))
    for number, (offset, _) in enumerate(places):
        try:
            record, _ = next(records)
            yield record.numpy()
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            what = 'its data are not a tf.train.Example'
            if isinstance(error, tf.errors.DataLossError):
                what = 'the checksum of its data is wrong'
            elif isinstance(error, tf.errors.OpError) and not isinstance(error, tf.errors.InvalidArgumentError):
                what = reason(error)
            yield f'{path}: record {number}, at byte {offset}, is damaged: {what}. {_AGAIN}.'


# ---- Reading by position ---------------------------------------------------------------------------------------------


class RecordFiles(Places):
    """The records of several files; the arguments of `Places`, and the byte at which each record begins, int [N]."""

    def __init__(self, paths: Sequence[str], owners: np.ndarray, numbers: np.ndarray, offsets: np.ndarray):
        super().__init__(paths, owners, numbers)
        # Eager tensors, because a graph captures them without a copy.
        with tf.init_scope(), tf.device('CPU:0'):
            self._in_graph = tf.constant(list(paths)), tf.constant(owners), tf.constant(offsets)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """The data of a record, a scalar string; for graphs, any number of threads.

        Raises:
          tf.errors.OpError: if the file has gone, or is damaged there.
        """
        paths, owners, offsets = self._in_graph
        return _read(tf.gather(paths, tf.gather(owners, index)), tf.gather(offsets, index))


def _read(path: str | tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """The data of the record that begins at an offset. Without a buffer only its own bytes are read."""
    none, one = tf.constant(0, tf.int64), tf.constant(1, tf.int64)
    form = {'output_types': [tf.string], 'output_shapes': [[]]}
    rest = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type='', buffer_size=none, byte_offsets=tf.reshape(offset, [1])
    )
    first = tf.raw_ops.TakeDataset(input_dataset=rest, count=one, **form)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **form)[0]
