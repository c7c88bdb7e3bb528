"""Label maps and images of instances in records."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from seg.datasets import checking, image_files
from seg.datasets.image_files import ImageHeader
from seg.datasets.label_maps import decoding, semantic
from seg.datasets.label_maps.decoding import Header
from seg.datasets.label_maps.legends_of_folders import Meaning
from seg.datasets.label_maps.semantic import Files, LabelMaps
from seg.datasets.label_maps.values import Fault, Values
from seg.datasets.records.index import Index

_BYTES = tf.io.FixedLenFeature([], tf.string)


class RecordImages:
    """The images of instances; the same members as `seg.datasets.instances.images.ImageFiles`."""

    def __init__(self, index: Index):
        self._index = index

    def name(self, index: int) -> str:
        return self._index.names[index]

    def path(self, index: int) -> None:
        return None

    def place(self, index: int) -> str:
        return self._index.place(index)

    def encoded(self, index: tf.Tensor) -> tf.Tensor:
        key = self._index.origin.image
        return tf.io.parse_single_example(self._index.files.read(index), {key: _BYTES})[key]

    def headers(self, where: str) -> Sequence[ImageHeader]:
        return self._index.images

    def decoded(self, where: str) -> list[bool | str]:
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def shape(index):
            return tf.shape(image_files.decode_image(self.encoded(index)))

        def decode(index: int) -> bool | str:
            try:
                shape(tf.constant(index, tf.int64))
            except tf.errors.OpError as error:
                return checking.damage(self.place(index), error, self._index.origin.drop)
            return True

        return self._index.of_each('decoding images', decode, bool)


class Pixels(NamedTuple):
    """The values of the pixels of a record.

    Attributes:
      values: the stored values of its label map, ascending.
      pixels: the number of pixels of each.
      brightest: the greatest value of its image.
    """

    values: list[int]
    pixels: list[int]
    brightest: int


class Labels:
    """The pixels of all records, which are decoded on first use."""

    def __init__(self, index: Index):
        self.index = index

    @functools.cached_property
    def pixels(self) -> list[Pixels | Fault]:
        """The values of each record, or its fault."""

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def counted(index):
            image, label = self.decoded(index, upright=False)
            pixels = tf.math.bincount(tf.reshape(label, [-1]), maxlength=1 << 16)
            values = tf.cast(tf.where(pixels)[:, 0], tf.int32)
            return values, tf.gather(pixels, values), tf.reduce_max(image)

        def look(index: int) -> Pixels | Fault:
            try:
                return Pixels(*(part.numpy().tolist() for part in counted(tf.constant(index, tf.int64))))
            except tf.errors.OpError as error:
                return Fault('damaged_file', checking.damage(self.index.place(index), error, self.index.origin.drop))

        return self.index.of_each('checking images and labels', look, Pixels)

    def decoded(self, index: tf.Tensor, upright: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The image, uint8 [H, W, 3], and the stored values of the label map, int32 [H, W]; for graphs."""
        image, label = self.index.origin.image, self.index.origin.label
        stored = tf.io.parse_single_example(self.index.files.read(index), {image: _BYTES, label: _BYTES})
        return image_files.decode_image(stored[image], upright), image_files.decode_label(stored[label])

    def values(self) -> dict[str, Values]:
        """The values of the label maps that can be decoded, by the places of the records."""
        return {
            self.index.place(number): Values(item.values, item.pixels)
            for number, item in enumerate(self.pixels)
            if isinstance(item, Pixels)
        }


class RecordLabelMaps(LabelMaps):
    """Label maps in records.

    Args:
      labels: the records.
      meaning: what their values mean.
      decode_all: whether `verify()` decodes every record.
      upright: whether images are turned by their EXIF orientation.
      name: name of the set, for `DatasetInfo.name`; empty for that of the reader.
    """

    def __init__(self, labels: Labels, meaning: Meaning, decode_all: bool, upright: bool, name: str = ''):
        index = labels.index
        places = [index.place(number) for number in range(len(index.names))]  # In place of paths.
        files = Files(
            part=index.origin.part,
            split=index.origin.split,
            root=index.origin.root,
            name=name,
            names=index.names,
            images=places,
            labels=places,
            drop=index.origin.drop,
            add_names=meaning.remedy,
            hint=meaning.hint,
            any_format=False,
        )
        remarks = [*index.remarks, *meaning.remarks]
        super().__init__(files, meaning.legend, meaning.classes, decode_all, upright, remarks=remarks)
        self._labels = labels

    def image_id(self, index: int) -> int | str:
        """The image's id in its record; its position, counted from 1, if the records have none."""
        return self._labels.index.ids[index]

    def image_path(self, index: int) -> None:
        """None: an image has no file of its own."""
        return None

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if the record is missing or damaged, or if image and label differ in size."""
        image, stored = self._labels.decoded(index, self._upright)
        label = self._legend.lookup(stored)
        return {'image': image, 'label': semantic.fitting(label, image, tf.strings.as_string(index))}

    @functools.cached_property
    def _headers(self) -> list[Header | Fault]:
        found, index = [], self._labels.index
        for number, (image, label) in enumerate(zip(index.images, index.labels, strict=True)):
            fault = self._compare(number, image, label, self._files.labels[number], 'label')
            header = Header(image.height, image.width, image.orientation, True, [decoding.SAMPLES])
            found.append(fault or header)
        return found

    @functools.cached_property
    def _found(self) -> list[Values | Fault]:
        return [p if isinstance(p, Fault) else Values(p.values, p.pixels) for p in self._labels.pixels]

    @functools.cached_property
    def _brightest(self) -> list[int | Fault]:
        return [p if isinstance(p, Fault) else p.brightest for p in self._labels.pixels]
