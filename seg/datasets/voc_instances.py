"""Instances in a folder in the layout of PASCAL VOC."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from seg.datasets import checking, image_files, voc_folder
from seg.datasets.base import instances
from seg.datasets.voc_folder import IGNORE_LABEL
from seg.datasets.voc_label_maps import VocLabelMaps
from seg.masks import ragged
from seg.structures import Annotations

_KIND = 'instance map'
_LEAST_SHARE = 0.9  # Least fraction of an instance's pixels with its class; below it, the two maps do not match.


class VocInstances(VocLabelMaps):
    """The data set made by `voc_layout` with the target 'instances'.

    Examples have `image` uint8 [H, W, 3] and, for N instances, `boxes` float32 [N, 4] (y0, x0, y1, x1, around the
    pixels), `classes` int32 [N] (the label's id minus 1), `is_crowd` bool [N], all False, `area` float32 [N] (pixels)
    and `masks` int32 [N, (ends)], see `seg.masks.runs`. The ignored border belongs to no instance.
    """

    _first_class = 1

    _too_few = 'which is the background. Name at least one class after it'

    def __init__(self, root: str, split: str, class_names: Sequence[str], stems: Sequence[str], decode_all: bool):
        super().__init__(root, split, class_names, stems, decode_all)
        self._number_paths = self._find_files(voc_folder.OBJECTS, ('.png',), _KIND)
        self._has_instances = False  # Set when the maps are decoded.

    def verify(self) -> None:
        """Does the same as `VocLabelMaps.verify`, and decodes the instance maps as well.

        Raises:
          UserError: also if none of the decoded maps has an instance.
        """
        super().verify()
        if self._decode_all:
            checking.need_instances(self._where, int(self._has_instances), 0)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if a file is missing or damaged, or if the files differ in size."""
        image = image_files.decode_image(tf.io.read_file(tf.gather(self._image_paths, index)))
        found, size = self._load_instances(index)
        fits = tf.reduce_all(tf.shape(image)[:2] == size)
        path = tf.gather(self._number_paths, index)
        with tf.control_dependencies([tf.debugging.Assert(fits, ['Image and instances differ in size:', path])]):
            return {'image': tf.identity(image), **found}

    def annotations(self, index: int) -> Annotations:
        """The instances of one image, for scores."""
        found, size = self._read_instances(tf.constant(index, tf.int64))
        return ragged.annotations(found, *size.numpy().tolist())

    def _load_instances(self, index):
        """The instances of an example, and (height, width), int32 [2]."""
        label, owner = _decode_pair(
            *(tf.io.read_file(tf.gather(p, index)) for p in (self._label_paths, self._number_paths))
        )
        ids, masks, counts = _instances_and_counts(label, owner, len(self._class_names))
        classes = tf.argmax(counts, axis=1, output_type=tf.int32)
        known = tf.where(classes > 0)[:, 0]  # Instances of background alone are omitted; `verify` reports them.
        masks, classes = tf.gather(masks, known), tf.gather(classes, known) - 1
        return instances(masks, classes, tf.shape(label)[0]), tf.shape(label)

    @functools.cached_property
    def _read_instances(self):
        return tf.function(self._load_instances, input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)

    def _label_files(self, index: int) -> list[tuple[str, str]]:
        return [*super()._label_files(index), (self._number_paths[index], _KIND)]

    def _decode(self, index: int, check_image: bool):
        counts = super()._decode(index, check_image)
        if isinstance(counts, str) or counts.unknown:
            return counts
        path, label_path = self._number_paths[index], self._label_paths[index]
        try:
            ids, shares = _class_counts(
                tf.io.read_file(label_path), tf.io.read_file(path), tf.constant(len(self._class_names))
            )
        except tf.errors.OpError as error:
            return checking.damage(path, error, 'remove its name from the split')
        ids, shares = ids.numpy(), shares.numpy()
        most = shares.max(axis=1, initial=0)
        # A border may have the number 255 in a map of 16 bits as well, if all of it is ignored.
        border = (ids == IGNORE_LABEL) & (most == 0)
        wrong = np.flatnonzero(~border & ((shares.argmax(axis=1) == 0) | (most < _LEAST_SHARE * shares.sum(axis=1))))
        if not wrong.size:
            self._has_instances = self._has_instances or not border.all()
            return counts
        named = ', '.join(self._class_names[n] for n in np.flatnonzero(shares[wrong[0]]))
        return (
            f'{path}: {len(wrong)} of {len(ids)} instances have no single class, such as number {ids[wrong[0]]}, '
            f'which covers {named or "ignored pixels only"} in {label_path}. Each instance needs its own number, and '
            'all of its pixels the same class.'
        )


def _decode_pair(label, owner):
    """Decodes a label map and an instance map, int32 [H, W] each; 0 marks pixels without an instance.

    The number 255 is the ignored border in maps of up to 8 bits, as in PASCAL VOC. Maps of 16 bits may have instances
    with this number.
    """
    label, numbers = image_files.decode_label(label), image_files.decode_label(owner)
    fits = tf.reduce_all(tf.shape(label) == tf.shape(numbers))
    with tf.control_dependencies([tf.debugging.Assert(fits, ['Label and instances differ in size.'])]):
        is_deep = image_files.label_bits(owner) > 8
        return tf.identity(label), tf.where((numbers == IGNORE_LABEL) & ~is_deep, 0, numbers)


def _instances_and_counts(label, owner, num_classes):
    """Returns numbers of instances int32 [N], their runs, and their pixels of each class, int32 [N, num_classes]."""
    ids, masks = ragged.from_labels(owner)
    inside = tf.where((owner > 0) & (label < num_classes))
    number = tf.searchsorted(ids, tf.gather_nd(owner, inside))
    key = number * num_classes + tf.gather_nd(label, inside)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(key), key, tf.size(ids) * num_classes)
    return ids, masks, tf.reshape(counts, [-1, num_classes])


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)])
def _class_counts(label, owner, num_classes):
    """Numbers of instances and their pixels of each class, as in `load`."""
    ids, _, counts = _instances_and_counts(*_decode_pair(label, owner), num_classes)
    return ids, counts
