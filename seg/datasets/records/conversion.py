"""Writes any data set as a set of TensorFlow Datasets, in ArrayRecord files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from seg import files
from seg.datasets import checking, contract, image_files
from seg.datasets.base import Dataset
from seg.datasets.records import array_files, layout, tfds_folder
from seg.datasets.records.array_files import Part
from seg.errors import UserError, failed, shown, source_file
from seg.masks import runs

MANIFEST = 'manifest.json'
SHARD = 256  # Examples per file: at most as many are lost by a kill, on each core.
_VERSION = '1.0.0'
_FORMAT = 1  # Of the manifest.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is converted, and to which files.

    Attributes:
      name: name of the set.
      target: 'label_map' or 'instances'.
      splits: the data set of each split.
      facts: what the manifest says about the input. Files of another input are never mixed with its files.
    """

    name: str
    target: str
    splits: Mapping[str, Dataset]
    facts: Mapping[str, Any]

    def shards(self) -> list[tuple[str, str, range]]:
        """For each file its name, its split, and the positions of its examples."""
        made = []
        for split, dataset in self.splits.items():
            count = dataset.info.num_examples
            total = -(-count // SHARD)
            made += [
                (
                    f'{self.name}-{split}.array_record-{n:05d}-of-{total:05d}',
                    split,
                    range(n * count // total, (n + 1) * count // total),
                )
                for n in range(total)
            ]
        return made


def plan(data: Mapping[str, Dataset], target: str) -> Plan:
    """Plans the conversion of data sets with the same classes.

    Args:
      data: the data set of each setting, such as 'experiment.train_data'. If two are the same, one is converted.
      target: their target, 'label_map' or 'instances'.

    Raises:
      UserError: if a data set is endless, or if different data sets have the same split.
    """
    splits, facts, slots = {}, {}, {}
    for slot, dataset in data.items():
        info = dataset.info
        if target not in ('label_map', 'instances'):
            raise UserError(f'{slot}: target {target!r} cannot be converted. Expected label maps or instances.')
        if info.num_examples is None:
            raise UserError(f'{slot}: {info.name} is endless and cannot be converted. Set its number of examples.')
        split = _word(info.name.rpartition('/')[2]) or 'data'
        split = f'{split}_split' if split == 'all' else split  # In TFDS 'all' is the sum of all splits.
        ids = [dataset.image_id(index) for index in range(info.num_examples)]
        found = {
            'source': info.name,
            'examples': info.num_examples,
            'images': _digest(dataset, ids),
            'metadata': layout.metadata(info, ids),
        }
        if facts.get(split, found) != found:
            raise UserError(
                f'{slot}: {info.name} and {slots[split]} have the same split {split!r}, and are different data. '
                'Convert them one after the other, to two folders.'
            )
        splits[split], facts[split], slots[split] = dataset, found, f'{slot}: {info.name}'
    name = _word(next(iter(splits.values())).info.name.rpartition('/')[0]) or 'data'
    name = name if name[0].isalpha() else f'set_{name}'
    return Plan(name=name, target=target, splits=splits, facts={'format': _FORMAT, 'target': target, 'splits': facts})


def _word(text: str) -> str:
    return re.sub(r'\W+', '_', text, flags=re.ASCII).strip('_')


def _digest(dataset: Dataset, ids: Sequence[int | str]) -> str:
    """A digest of the names, ids and files of all images, which changes with the input."""
    digest = hashlib.sha256()
    for index, identity in enumerate(ids):
        path = dataset.image_path(index)
        size = os.path.getsize(path) if path is not None and os.path.isfile(path) else None
        digest.update(json.dumps([dataset.image_name(index), identity, size]).encode())
    return digest.hexdigest()


def check_place(folder: str, planned: Plan) -> None:
    """Refuses a folder that holds anything but this conversion, finished or not.

    Raises:
      UserError: says what the folder holds.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f'--output={folder} is a file, expected a folder.')
    there = checking.listed(folder)
    if not there:
        return
    manifest = os.path.join(folder, MANIFEST)
    if not os.path.isfile(manifest):
        raise UserError(f'--output={folder}: {checking.holds(folder)}. Expected an empty folder, or a new one.')
    found = files.read_object(manifest, f'Remove {folder}.')
    differs = [key for key in planned.facts if found.get(key) != json.loads(json.dumps(planned.facts[key]))]
    if differs:
        was = ', '.join(f'{split} ({each["examples"]} examples)' for split, each in _splits(found).items())
        raise UserError(
            f'--output={folder} holds a conversion of other data: {was}; {differs[0]} differs. Choose another folder, '
            'or remove this one.'
        )


def _splits(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found = manifest.get('splits')
    return found if isinstance(found, dict) and all(isinstance(each, dict) for each in found.values()) else {}


def convert(planned: Plan, folder: str) -> dict[str, Any]:
    """Writes what is missing of a conversion, and reads everything back.

    A file appears under its name when it is complete and has been read back, so a start after a kill writes the other
    files only. `dataset_info.json`, which makes the folder a set of TFDS, comes last.

    Args:
      planned: from `plan`.
      folder: where to write.

    Returns:
      Numbers of examples by split, of files, of files that were there, and of bytes.

    Raises:
      UserError: if an example cannot be loaded or violates the contract, or a file cannot be written.
    """
    check_place(folder, planned)
    with files.writing(folder):
        os.makedirs(folder, exist_ok=True)
    files.sweep(folder)
    manifest = os.path.join(folder, MANIFEST)
    if not os.path.exists(manifest):
        files.write_json(manifest, planned.facts)
    encoders = {split: Encoder(dataset, planned.target) for split, dataset in planned.splits.items()}
    shards = planned.shards()

    def write(number):
        name, split, span = shards[number]
        path = os.path.join(folder, name)
        if kept := _is_written(path, encoders[split], span):
            return kept, _facts_of(path, len(span))
        with files.writing(path), files.atomically(path) as temporary:
            digest = hashlib.sha256()
            with tfds_folder.writing_records(temporary) as writer:
                for index in span:
                    record = encoders[split].record(index)
                    digest.update(record)
                    writer.write(record)
            _read_back(temporary, digest.digest(), len(span))
        return False, _facts_of(path, len(span))

    results = list(checking.in_threads(write, len(shards), f'{folder}: writing files'))
    written = {name: facts for (name, _, _), (_, facts) in zip(shards, results, strict=True)}
    _write_facts(planned, folder, written)
    kept = sum(was_there for was_there, _ in results)
    if kept:
        logging.info('%s: %d of %d files were there, and have been read back.', folder, kept, len(shards))
    return {
        'output': folder,
        'examples': {split: dataset.info.num_examples for split, dataset in planned.splits.items()},
        'files': len(shards),
        'kept': kept,
        'bytes': sum(each['bytes'] for each in written.values()),
    }


def _is_written(path: str, encoder: Encoder, span: range) -> bool:
    """Whether an earlier start wrote the whole file, undamaged. Its first record must equal the one made now."""
    if not os.path.exists(path):
        return False
    try:
        array_files.check('', [Part(path, 0, len(span), len(span))], MANIFEST, '')
    except UserError:
        return False
    records = array_files.contents(path, range(len(span)), '')
    first = next(records)
    return first == encoder.record(span[0]) and all(isinstance(record, bytes) for record in records)


def _read_back(path: str, digest: bytes, expected: int) -> None:
    """Compares the records of a file with those that were written.

    Raises:
      OSError: if they differ.
    """
    found, reader = hashlib.sha256(), array_files.opened(path)
    try:
        for index in range(expected):
            found.update(reader.read([index])[0])
        same = reader.num_records() == expected and found.digest() == digest
    except (RuntimeError, ValueError, IndexError):
        same = False
    finally:
        reader.close()
    if not same:
        raise OSError('what was read back differs from what was written; the disk may be faulty')


def _facts_of(path: str, examples: int) -> dict[str, Any]:
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return {'examples': examples, 'bytes': os.path.getsize(path), 'sha256': digest}


def _write_facts(planned: Plan, folder: str, written: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the manifest and the files of facts that TFDS reads."""
    tfds = tfds_folder.library()
    core = tfds.core
    info = next(iter(planned.splits.values())).info
    shards = planned.shards()
    template = core.ShardedFileTemplate(dataset_name=planned.name, data_dir=folder, filetype_suffix='array_record')
    splits = [
        core.SplitInfo(
            name=split,
            shard_lengths=[len(span) for _, of, span in shards if of == split],
            num_bytes=sum(written[name]['bytes'] for name, of, _ in shards if of == split),
            filename_template=template.replace(split=split),
        )
        for split in planned.splits
    ]
    described = core.DatasetInfo(
        builder=core.dataset_info.DatasetIdentity(
            name=planned.name, version=core.Version(_VERSION), data_dir=folder, module_name=''
        ),
        description=f'Converted from {", ".join(dataset.info.name for dataset in planned.splits.values())}.',
        features=layout.features(planned.target, info.class_names),
        disable_shuffling=True,
        metadata=core.MetadataDict(next(iter(planned.facts['splits'].values()))['metadata']),
        split_dict=core.splits.SplitDict(splits),
    )
    described.set_file_format('array_record')
    temporary = os.path.join(folder, f'facts.tmp-{os.getpid()}')
    with files.writing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        os.makedirs(temporary)
        try:
            described.write_to_directory(temporary)
            for name in sorted(os.listdir(temporary), key=lambda name: name == tfds_folder.INFO):
                with files.atomically(os.path.join(folder, name), os.path.join(temporary, name)):
                    pass
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    files.write_json(os.path.join(folder, MANIFEST), {**planned.facts, 'files': written})


# ---- Records ---------------------------------------------------------------------------------------------------------


class Encoder:
    """Makes records of the examples of a data set; any number of threads may use it.

    Args:
      dataset: the data set.
      target: 'label_map' or 'instances'.
    """

    def __init__(self, dataset: Dataset, target: str):
        self._dataset, self._target = dataset, target
        self._load = tf.function(
            lambda index: contract.load_in_graph(dataset, index),
            input_signature=[tf.TensorSpec([], tf.int64)],
            autograph=False,
        )
        self._dtype = tf.uint8 if layout.label_bits(dataset.info.num_classes) == 8 else tf.uint16

    def record(self, index: int) -> bytes:
        """The record of an example, a serialised `tf.train.Example`.

        Raises:
          UserError: if the example cannot be loaded, or violates the contract.
        """
        dataset, name = self._dataset, self._dataset.image_name(index)
        try:
            example = self._load(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:
            what = f'{dataset.info.name}, image {shown(name)}: load'
            raise failed(error, what, source_file(dataset), 'Repair or remove it, then start again.') from error
        contract.check(example, dataset.info, name, self._target)
        image = self._image(index, example['image'])
        stored = {
            'image': _bytes([image]),
            'image_name': _bytes([name.encode()]),
            'image_id': _bytes([str(dataset.image_id(index)).encode()]),
        }
        stored |= self._label(example) if self._target == 'label_map' else self._objects(example)
        return tf.train.Example(features=tf.train.Features(feature=stored)).SerializeToString(deterministic=True)

    def _image(self, index: int, image: tf.Tensor) -> bytes:
        """The image's own file where it has one that gives the same pixels, otherwise a PNG file."""
        path = self._dataset.image_path(index)
        contents = files.read_bytes(path) if path is not None and os.path.isfile(path) else b''
        if _is_rgb(contents) and bool(_decodes_to(contents, image)):
            return contents
        return tf.io.encode_png(image).numpy()

    def _label(self, example: Mapping[str, Any]) -> dict[str, Any]:
        info, label = self._dataset.info, example['label']
        label = tf.where(label == info.ignore_label, layout.stored_ignore(info), label)
        return {'label': _bytes([tf.io.encode_png(tf.cast(label, self._dtype)[..., None]).numpy()])}

    def _objects(self, example: Mapping[str, Any]) -> dict[str, Any]:
        height, width = example['image'].shape[:2]
        masks = runs.Runs(example['masks'].values.numpy(), example['masks'].row_splits.numpy())
        encoded = [runs.to_coco(masks[n], height, width)['counts'] for n in range(len(masks.splits) - 1)]
        return {
            'objects/bbox': _floats(example['boxes']),
            'objects/label': _numbers(example['classes']),
            'objects/is_crowd': _numbers(example['is_crowd']),
            'objects/area': _floats(example['area']),
            'objects/mask': _bytes(encoded),
        }


def _is_rgb(contents: bytes) -> bool:
    """Whether a file is JPEG or PNG of three channels of 8 bits, which every reader of the set decodes alike."""
    try:
        header = image_files.parse_header(contents)
        if header.format == 'jpeg':
            return int(tf.io.extract_jpeg_shape(contents)[2]) == 3
        return header.color_type == 2 and contents[24] == 8
    except (EOFError, ValueError, tf.errors.OpError):
        return False


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False)
def _decodes_to(contents, image):
    found = image_files.decode_image(contents)
    same_size = tf.reduce_all(tf.shape(found) == tf.shape(image))
    return tf.cond(same_size, lambda: tf.reduce_all(found == image), lambda: False)


def _bytes(each: Sequence[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=each))


def _numbers(values: tf.Tensor) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values.numpy().astype(np.int64)))


def _floats(values: tf.Tensor) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values.numpy().ravel()))
