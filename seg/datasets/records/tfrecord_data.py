"""Label maps and images of instances in TFRecord files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from seg.datasets import checking, image_files
from seg.datasets.findings import Finding
from seg.datasets.image_files import ImageHeader
from seg.datasets.label_maps import decoding, semantic
from seg.datasets.label_maps.decoding import Header
from seg.datasets.label_maps.legend import Legend
from seg.datasets.label_maps.semantic import Classes, Files, LabelMaps
from seg.datasets.label_maps.values import Fault, Values
from seg.datasets.records.entries import IMAGE, LABEL
from seg.datasets.records.index import Index

_DROP = 'leave its file out'
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
        return tf.io.parse_single_example(self._index.files.read(index), {IMAGE: _BYTES})[IMAGE]

    def headers(self, where: str) -> list[ImageHeader]:
        return [entry.image for entry in self._index.entries]

    def decoded(self, where: str) -> list[bool | str]:
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def shape(index):
            return tf.shape(image_files.decode_image(self.encoded(index)))

        def decode(index: int) -> bool | str:
            try:
                shape(tf.constant(index, tf.int64))
            except tf.errors.OpError as error:
                return checking.damage(self.place(index), error, _DROP)
            return True

        return self._index.of_each('decoding images', decode, bool)


class Pixels(NamedTuple):
    """What the pixels of a record hold.

    Attributes:
      values: the stored values of its label map, ascending.
      pixels: the number of pixels of each.
      brightest: the greatest value of its image.
    """

    values: list[int]
    pixels: list[int]
    brightest: int


class Labels:
    """The pixels of all records, which are decoded when they are first asked for."""

    def __init__(self, index: Index):
        self.index = index

    @functools.cached_property
    def pixels(self) -> list[Pixels | Fault]:
        """Of each record, or its fault."""

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
                return Fault('damaged_file', checking.damage(self.index.place(index), error, _DROP))

        return self.index.of_each('checking images and labels', look, Pixels)

    def decoded(self, index: tf.Tensor, upright: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The image, uint8 [H, W, 3], and the stored values of the label map, int32 [H, W]; for graphs."""
        stored = tf.io.parse_single_example(self.index.files.read(index), {IMAGE: _BYTES, LABEL: _BYTES})
        return image_files.decode_image(stored[IMAGE], upright), image_files.decode_label(stored[LABEL])

    def values(self) -> dict[str, Values]:
        """The values of the label maps that can be decoded, by the places of the records."""
        return {
            self.index.place(number): Values(item.values, item.pixels)
            for number, item in enumerate(self.pixels)
            if isinstance(item, Pixels)
        }


class RecordLabelMaps(LabelMaps):
    """Label maps in TFRecord files; the arguments of `LabelMaps`, and the labels. Places stand for paths of files."""

    def __init__(
        self,
        labels: Labels,
        files: Files,
        legend: Legend,
        classes: Classes,
        decode_all: bool,
        upright: bool,
        remarks: Sequence[Finding],
    ):
        super().__init__(files, legend, classes, decode_all, upright, remarks=remarks)
        self._labels = labels

    def image_id(self, index: int) -> int | str:
        """The image's `image/source_id`; its position, counted from 1, if the records have none."""
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
        found = []
        for number, entry in enumerate(self._labels.index.entries):
            image, place = entry.image, self._files.labels[number]
            fault = self._compare(number, image, entry.label, place, 'label')
            header = Header(image.height, image.width, image.orientation, True, [decoding.SAMPLES])
            found.append(fault or header)
        return found

    @functools.cached_property
    def _found(self) -> list[Values | Fault]:
        return [p if isinstance(p, Fault) else Values(p.values, p.pixels) for p in self._labels.pixels]

    @functools.cached_property
    def _brightest(self) -> list[int | Fault]:
        return [p if isinstance(p, Fault) else p.brightest for p in self._labels.pixels]
