"""Data sets of records: images with label maps, and images with instances."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from seg.datasets import checking, findings, image_files, remembered
from seg.datasets.base import Dataset
from seg.datasets.class_maps import VOID, ClassMap
from seg.datasets.findings import Finding
from seg.datasets.label_maps import values
from seg.datasets.label_maps.legend import Legend
from seg.datasets.label_maps.semantic import Classes
from seg.datasets.label_maps.values import Counts, Values
from seg.datasets.records import fields as forms
from seg.datasets.records.array_files import ArrayFiles
from seg.datasets.records.fields import Field
from seg.drawing.palette import instance_palette
from seg.errors import python_error, reason
from seg.masks import ragged, runs
from seg.structures import Annotations, ClassHistogram, DatasetInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The records of a split.

    Attributes:
      part: the data set's gin key, such as 'datasets.tfds'.
      split: name of the split.
      root: the folder of the set.
      name: name of the set, for `DatasetInfo.name`.
      files: the records.
      fields: where they hold the image and its annotations, see `fields.find`.
      whole_ids: whether ids of images are whole numbers in text.
    """

    part: str
    split: str
    root: str
    name: str
    files: ArrayFiles
    fields: Mapping[str, Field]
    whole_ids: bool = False


class Seen(NamedTuple):
    """What a record says about its image before anything is decoded.

    Attributes:
      name: name of the image; empty if the record has none.
      id: id of the image; None if the record has none.
      height: in stored pixels.
      width: likewise.
      fault: what makes the record unusable, a sentence; empty for a sound one.
    """

    name: str = ''
    id: int | str | None = None
    height: int = 0
    width: int = 0
    fault: str = ''


class Decoded(NamedTuple):
    """What decoding a record shows.

    Attributes:
      values: stored values in the label map.
      pixels: pixels of each.
      crowds: number of instances that are crowds.
      instances: number of all instances.
      fault: as for `Seen`.
    """

    values: list[int] = []
    pixels: list[int] = []
    crowds: int = 0
    instances: int = 0
    fault: str = ''


class RecordData(Dataset):
    """Images in records; a subclass adds the annotations.

    The constructor has the records' places, `info` reads the headers of all images, and `verify()` decodes the images.
    Both are remembered, file by file.

    Args:
      source: the records.
      classes: the classes.
      ignore: the ignore label.
      decode_all: whether `verify()` decodes every record.
    """

    def __init__(self, source: Source, classes: Classes, ignore: int, decode_all: bool):
        self._source, self._classes, self._ignore, self._decode_all = source, classes, ignore, decode_all
        self._where = f'{source.part}, split {source.split!r} of {source.root}'
        self._places = {name: field.key for name, field in source.fields.items()}

    @functools.cached_property
    def info(self) -> DatasetInfo:
        """Facts about the split.

        Raises:
          UserError: if the header of an image cannot be read.
        """
        findings.settle(self._faults('unreadable_record', self._seen))
        return DatasetInfo(
            name=f'{self._source.name}/{self._source.split}',
            class_names=self._classes.names,
            num_examples=len(self._source.files),
            max_size=(max(seen.height for seen in self._seen), max(seen.width for seen in self._seen)),
            ignore_label=self._ignore,
            original_ids=self._classes.original_ids,
            colors=self._classes.colors,
        )

    def image_name(self, index: int) -> str:
        """Name of an image; its number if the records have no names."""
        return self._seen[index].name or f'{index}'

    def image_id(self, index: int) -> int | str:
        """The id of an image in its record; without one, its position, counted from 1."""
        found = self._seen[index].id
        return super().image_id(index) if found is None else found

    def verify(self) -> None:
        """Checks every record of the split, by decoding it unless the setting `verify` is off.

        Raises:
          UserError: names the first five records that cannot be used, the fault of each, and the remedy.
        """
        _ = self.info
        findings.settle(self.findings(self._decode_all))

    def findings(self, full: bool) -> Iterator[Finding]:
        """Faults of records; `full` decodes all of them."""
        faults = self._faults('unreadable_record', self._seen)
        yield from faults
        if full and not faults:
            faults = self._faults('damaged_record', self._decoded)
            yield from faults
            if not faults:
                yield from self._content_findings()

    def _content_findings(self) -> Iterator[Finding]:
        """Findings about sound records."""
        raise NotImplementedError

    def _faults(self, kind: str, items: Sequence[Seen | Decoded]) -> list[Finding]:
        faults = [(self.image_name(index), item.fault) for index, item in enumerate(items) if item.fault]
        return findings.unusable(kind, self._where, faults, len(items), 'records')

    # ---- In the graph ----

    def _parse(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """The fields of the record at a position, as stored: scalars, and [N] or [4 N] for objects."""
        record = tf.ensure_shape(tf.numpy_function(self._source.files.read, [index], tf.string), [])
        shapes = {}
        for field in self._source.fields.values():
            dtype = _DTYPES[field.form]
            shapes[field.key] = tf.io.RaggedFeature(dtype) if field.of_objects else tf.io.FixedLenFeature([], dtype)
        parsed = tf.io.parse_single_example(record, shapes)
        return {name: parsed[key] for name, key in self._places.items()}

    # ---- Looking at all records ----

    _known = 0  # Class ids that a check of instances allows.

    @functools.cached_property
    def _seen(self) -> list[Seen]:
        return self._each('headers', self._look_at_header, Seen)

    @functools.cached_property
    def _decoded(self) -> list[Decoded]:
        return self._each('pixels', self._decode, Decoded)

    def _each(self, what: str, look: Callable[[int], Any], kind: type) -> list[Any]:
        """What looking at each record gives, one file after the other."""
        files, source = self._source.files, self._source

        stated = [list(field[:3]) for field in source.fields.values()]
        spans = [[part.start, part.count] for part in files.parts]
        found = remembered.items_of_each(
            [source.part, source.root, source.split, what, stated, spans, source.whole_ids, self._known],
            [part.path for part in files.parts],
            lambda number: [look(index) for index in files.span(number)],
            lambda _, items: not any(item.fault for item in items),
            kind,
            f'{self._where}: reading {what}',
        )
        return [item for items in found for item in items]

    def _look_at_header(self, index: int) -> Seen:
        files, fields = self._source.files, self._source.fields
        try:
            example = tf.train.Example.FromString(files.read(index)).features.feature
            stored = {name: _first(example[field.key]) for name, field in fields.items() if not field.of_objects}
        except Exception as error:
            told = str(error) if isinstance(error, OSError) else f'{files.place(index)}: not a tf.train.Example.'
            return Seen(fault=told)
        name, identity = stored.get('image_name'), stored.get('image_id')
        name = '' if name is None else name.decode(errors='replace')
        if 'image_name' in fields and fields['image_name'].key != 'image_name':  # A file's name.
            name = re.sub(r'\.(jpe?g|png)$', '', name, flags=re.IGNORECASE)
        if isinstance(identity, bytes):
            identity = identity.decode(errors='replace')
            identity = int(identity) if self._source.whole_ids and identity.lstrip('-').isdecimal() else identity
        headers = {}
        for place in ('image', 'label'):
            if place in fields:
                try:
                    headers[place] = _header(stored[place])
                except ValueError as error:
                    return Seen(name, identity, fault=f'{files.place(index)}, {fields[place].key}: {error}.')
        image, label = headers['image'], headers.get('label')
        fault = ''
        if label is not None and (label.format != 'png' or label.color_type not in (0, 3)):
            fault = f'{label.format} of type {label.color_type}; expected PNG, greyscale or palette'
        elif label is not None and (label.height, label.width) != (image.height, image.width):
            fault = (
                f'the label map is {label.width}x{label.height} pixels, the image {image.width}x{image.height} (width '
                'x height); both must have the same size'
            )
        if fault:
            fault = f'{files.place(index)}, {fields["label"].key}: {fault}.'
        return Seen(name, identity, image.height, image.width, fault)

    def _decode(self, index: int) -> Decoded:
        try:
            return self._decoded_record(index)
        except tf.errors.OpError as error:
            place, found = self._source.files.place(index), python_error(error)
            text = found[1] if found else reason(error)
            return Decoded(fault=f'{text.rstrip(".")}.' if text.startswith(place) else f'{place}: {text}.')

    def _decoded_record(self, index: int) -> Decoded:
        """Decodes a record as `load` does.

        Raises:
          tf.errors.OpError: if it cannot be decoded.
        """
        raise NotImplementedError


_DTYPES = {
    forms.IMAGE: tf.string,
    forms.TEXT: tf.string,
    forms.NUMBER: tf.int64,
    forms.REAL: tf.float32,
    forms.NORMALISED: tf.float32,
    forms.PIXELS: tf.float32,
    forms.RUNS: tf.string,
    forms.IMAGES: tf.string,
}


def _first(feature: Any) -> Any:
    """The first value of a feature of a record; None if there is none."""
    kind = feature.WhichOneof('kind')
    stored = getattr(feature, kind).value if kind else ()
    return stored[0] if len(stored) else None


def _header(contents: Any) -> image_files.ImageHeader:
    """The header of an image in a record.

    Raises:
      ValueError: if it is not one.
    """
    if not isinstance(contents, bytes):
        raise ValueError('it is missing')
    try:
        header = image_files.parse_header(contents)
    except EOFError:
        raise ValueError('the image ends within its header') from None
    if 0 in (header.height, header.width):
        raise ValueError('the image has no pixels')
    return header


# ---- Label maps ------------------------------------------------------------------------------------------------------


class LabelRecords(RecordData):
    """Images with label maps: `image` uint8 [H, W, 3] and `label` int32 [H, W].

    Args:
      source: the records, with the field `label`.
      legend: what stored values mean.
      classes: the classes.
      decode_all: whether `verify()` decodes every record.
      hint: where values get a meaning, for messages.
    """

    def __init__(self, source: Source, legend: Legend, classes: Classes, decode_all: bool, hint: str):
        super().__init__(source, classes, legend.ignore, decode_all)
        self._legend, self._hint = legend, hint

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if the record is damaged, or if image and label differ in size."""
        image, stored = self._stored(index)
        return {'image': image, 'label': self._legend.lookup(stored)}

    def class_histogram(self) -> ClassHistogram:
        """Pixels by class of the whole split; decodes the labels if `verify()` has not done so.

        Raises:
          UserError: if a label cannot be decoded or is out of range.
        """
        findings.settle([*self._faults('damaged_record', self._decoded), *self._value_faults()])
        return values.class_histogram(self._counts, self._legend.ids, 0, len(self._classes.names), self._ignore)

    def _stored(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = self._parse(index)
        image, stored = image_files.decode_image(parsed['image']), image_files.decode_label(parsed['label'])
        fits = tf.reduce_all(tf.shape(image)[:2] == tf.shape(stored))
        with tf.control_dependencies([tf.debugging.Assert(fits, ['Image and label differ in size.'])]):
            return image, tf.identity(stored)

    @functools.cached_property
    def _count(self):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def count(index):
            _, stored = self._stored(index)
            pixels = tf.math.bincount(tf.reshape(stored, [-1]), maxlength=1 << 16)
            found = tf.where(pixels)[:, 0]
            return found, tf.gather(pixels, found)

        return count

    def _decoded_record(self, index: int) -> Decoded:
        return Decoded(*(part.numpy().tolist() for part in self._count(tf.constant(index, tf.int64))))

    @functools.cached_property
    def _counts(self) -> list[Counts]:
        return [values.counts_of(Values(item.values, item.pixels), self._legend) for item in self._decoded]

    def _value_faults(self) -> list[Finding]:
        """Labels with unknown values."""
        total, faults = values.total_of(self._counts), []
        for index, counts in enumerate(self._counts):
            if counts.unknown:
                place = self._source.files.place(index)
                add = f'to {self._source.part}.class_names'
                text = values.unknown_values(place, counts, total, self._legend, add, self._hint)
                faults.append((self.image_name(index), str(text)))
        return findings.unusable('unknown_values', self._where, faults, len(self._counts), 'records')

    def _content_findings(self) -> Iterator[Finding]:
        faults = self._value_faults()
        yield from faults
        if not faults:
            names = [self.image_name(index) for index in range(len(self._seen))]
            yield from values.remarks(self._where, names, self._counts, values.total_of(self._counts), self._legend)


# ---- Instances -------------------------------------------------------------------------------------------------------


class InstanceRecords(RecordData):
    """Images with instances: `image`, `boxes`, `classes`, `is_crowd`, `area` and `masks`, as in `base.TARGETS`.

    Boxes and areas are those of the masks where the records have none. An instance of a void class is a crowd of every
    class, because scores count crowds by class.

    Args:
      source: the records, with the fields `classes` and `masks`.
      mapping: the class of each stored class.
      classes: the classes.
      ignore: the ignore label.
      decode_all: whether `verify()` decodes every record.
    """

    def __init__(self, source: Source, mapping: ClassMap, classes: Classes, ignore: int, decode_all: bool):
        super().__init__(source, classes, ignore, decode_all)
        self._mapping, self._known = mapping, len(mapping.ids)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if the record is damaged, or if the masks have another size."""
        parsed = self._parse(index)
        image = image_files.decode_image(parsed['image'])
        return {'image': image, **self._instances(index, parsed, tf.shape(image)[:2])}

    def annotations(self, index: int) -> Annotations:
        """The instances of one image, for scores; the image is not decoded."""
        seen = self._seen[index]
        found = self._read_instances(tf.constant(index, tf.int64), tf.constant([seen.height, seen.width]))
        return ragged.annotations(found, seen.height, seen.width)

    def class_histogram(self) -> ClassHistogram:
        """Pixels of all instances by class, by their areas."""

        def areas(index):
            found = self.annotations(index)
            return np.bincount(found.classes, found.area.astype(np.float64), self.info.num_classes)

        counts = np.array(list(checking.in_threads(areas, len(self._seen), f'{self._where}: counting pixels')))
        present = (counts > 0) * counts.sum(axis=1, keepdims=True)
        return ClassHistogram(*(part.sum(axis=0).round().astype(np.int64) for part in (counts, present)))

    def _instances(self, index: tf.Tensor, parsed: Mapping[str, tf.Tensor], size: tf.Tensor) -> dict[str, tf.Tensor]:
        """The annotations of an example; `size` is (height, width) of its image, int32 [2]."""
        masks = self._masks(index, parsed['masks'], size)
        stored = tf.cast(parsed['classes'], tf.int32)
        count = tf.size(stored)
        mask_boxes, mask_area = ragged.boxes_and_areas(masks, size[0])
        boxes, area = mask_boxes, mask_area
        if 'boxes' in parsed:
            boxes = tf.reshape(parsed['boxes'], [-1, 4])
            if self._source.fields['boxes'].form == forms.NORMALISED:
                boxes *= tf.cast(tf.tile(size, [2]), tf.float32)
        if 'area' in parsed:
            area = tf.cast(parsed['area'], tf.float32)
        is_crowd = parsed['is_crowd'] != 0 if 'is_crowd' in parsed else tf.zeros([count], tf.bool)
        counts = tf.stack([tf.size(is_crowd), tf.size(area), tf.shape(boxes)[0], tf.cast(masks.nrows(), tf.int32)])
        same = tf.debugging.Assert(
            tf.reduce_all(counts == count), ['Fields differ in their number of objects.', counts]
        )
        known = len(self._mapping.ids)
        unknown = len(self._mapping.names)  # Above all class ids, which the contract refuses.
        with tf.control_dependencies([same]):
            inside = (stored >= 0) & (stored < known)
            classes = tf.gather(self._mapping.ids, tf.clip_by_value(stored, 0, known - 1))
            classes = tf.where(inside, classes, unknown)
        found = {'boxes': boxes, 'classes': classes, 'is_crowd': is_crowd, 'area': area, 'masks': masks}
        return self._with_void(found) if (self._mapping.ids == VOID).any() else found

    def _with_void(self, found: dict[str, Any]) -> dict[str, Any]:
        """Makes a crowd of every class of each void instance."""
        void = found['classes'] == VOID
        times = tf.where(void, len(self._mapping.names), 1)
        place = tf.repeat(tf.range(tf.size(times)), times)
        number = tf.range(tf.size(place)) - tf.gather(tf.cumsum(times, exclusive=True), place)
        found = {key: tf.gather(part, place) for key, part in found.items()}
        void = found['classes'] == VOID
        return found | {
            'classes': tf.where(void, number, found['classes']),
            'is_crowd': found['is_crowd'] | void,
        }

    def _masks(self, index: tf.Tensor, stored: tf.Tensor, size: tf.Tensor) -> tf.RaggedTensor:
        if self._source.fields['masks'].form == forms.RUNS:
            ends, splits = tf.numpy_function(self._read_runs, [index, stored, size], [tf.int32, tf.int64])
            ends, splits = tf.ensure_shape(ends, [None]), tf.ensure_shape(splits, [None])
            return tf.RaggedTensor.from_row_splits(ends, splits, validate=False)

        def read(contents):
            mask = image_files.decode_label(contents) > 0
            fits = tf.reduce_all(tf.shape(mask) == size)
            with tf.control_dependencies([tf.debugging.Assert(fits, ['A mask differs in size from the image.'])]):
                return ragged.from_dense(mask[None]).values

        return tf.map_fn(read, stored, fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0))

    def _read_runs(self, index: np.ndarray, stored: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs from COCO's compressed form."""
        pixels = np.full(len(stored), np.prod(size, dtype=np.int64))
        found, covered = runs.from_strings(list(stored), pixels)
        for n in np.flatnonzero(covered != pixels):
            what = 'are damaged' if covered[n] < 0 else f'cover {covered[n]} pixels of {pixels[n]}'
            raise OSError(f'{self._source.files.place(int(index))}: the run lengths of object {n} {what}.')
        return found.ends, found.splits

    @functools.cached_property
    def _read_instances(self):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([2], tf.int32)], autograph=False)
        def read(index, size):
            return self._instances(index, self._parse(index), size)

        return read

    @functools.cached_property
    def _check(self):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def check(index):
            example = InstanceRecords.load(self, index)
            wrong = tf.reduce_any(example['classes'] >= len(self._mapping.names))
            # An image that nothing reads would not be decoded.
            return tf.reduce_max(example['image']), tf.size(example['area']), example['is_crowd'], wrong

        return check

    def _decoded_record(self, index: int) -> Decoded:
        _, count, is_crowd, wrong = self._check(tf.constant(index, tf.int64))
        if wrong:
            fault = f'a class is out of range. Expected 0 to {len(self._mapping.ids) - 1}'
            return Decoded(fault=f'{self._source.files.place(index)}: {fault}.')
        return Decoded(crowds=int(np.sum(is_crowd.numpy())), instances=int(count))

    def _content_findings(self) -> Iterator[Finding]:
        crowds, total = (sum(getattr(each, key) for each in self._decoded) for key in ('crowds', 'instances'))
        if crowds == total:
            yield checking.without_instances(self._where, crowds)
        logging.info('%s: %d images; %d instances, %d of them crowds.', self._where, len(self._decoded), total, crowds)


class PaintedRecords(InstanceRecords):
    """Label maps from instances: `image`, and `label` int32 [H, W]. Later instances lie above earlier ones.

    Class 0 is the background. Crowds, and instances of no class, have the ignore label.
    """

    def __init__(self, source: Source, mapping: ClassMap, classes: Classes, ignore: int, decode_all: bool):
        super().__init__(source, mapping, classes, ignore, decode_all)
        colors = classes.colors or instance_palette(len(classes.names))
        self._classes = Classes(names=('background', *classes.names), colors=((0, 0, 0), *colors))

    class_histogram = Dataset.class_histogram

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails as for instances."""
        example = super().load(index)
        label = tf.where(example['is_crowd'] | (example['classes'] < 0), self._ignore, example['classes'] + 1)
        height, width = tf.unstack(tf.shape(example['image'])[:2])
        return {'image': example['image'], 'label': ragged.painted(example['masks'], label, height, width)}

    def _with_void(self, found: dict[str, Any]) -> dict[str, Any]:
        return found
