"""Instance maps in files, for the target 'instances'."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.datasets import checking, findings, image_files, remembered
from seg.datasets.base import instances
from seg.datasets.findings import Finding
from seg.datasets.label_maps import values
from seg.datasets.label_maps.legend import IGNORE, UNKNOWN
from seg.datasets.label_maps.semantic import LabelMaps
from seg.datasets.label_maps.values import Counts, Fault
from seg.masks import ragged
from seg.structures import Annotations, ClassHistogram

KIND = 'instance map'
_LEAST_FRACTION = 0.9  # Least fraction of an instance's pixels with its class; below it, the two maps do not match.


class Numbers(NamedTuple):
    """The instances of one instance map, as `InstanceMaps` remembers them.

    Attributes:
      numbers: the number of each.
      ids: its class, as an id of the legend: 0 background, 1 to K classes, K + 1 void; -1 if unknown.
      pixels: the number of its pixels.
      groups: whether it is a group of many instances.
      fault: a sentence if an instance has no single class.
    """

    numbers: list[int]
    ids: list[int]
    pixels: list[int]
    groups: list[bool]
    fault: str = ''


class InstanceMaps(LabelMaps):
    """Images with instance maps, in which each pixel has the number of its instance, and 0 is the background.

    Examples have `image` uint8 [H, W, 3] and, for N instances, `boxes` float32 [N, 4] (y0, x0, y1, x1, around the
    pixels), `classes` int32 [N], `is_crowd` bool [N], `area` float32 [N] (pixels) and `masks` int32 [N, (ends)], see
    `seg.masks.runs`. An instance of a void class is a crowd of every class: scores count crowds by class.

    The class of an instance follows from
    - the label map: it is the most common one of its pixels; the ignored border belongs to no instance;
    - or, without label maps, from its number: `class_of` gives a stored value of the legend, and whether it is a group.

    Args:
      class_of: as above, from and to tensors int32 [N]; None with label maps.
      (the others as for `LabelMaps`; `legend.ids` as `legend.instance_ids` makes them)
    """

    def __init__(
        self,
        *args: Any,
        class_of: Callable[[Any], tuple[Any, Any]] | None = None,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self._first_class = 1
        self._class_of = class_of
        self._num_classes = len(self._classes.names)
        self._num_ids = self._num_classes + 1 + int(self._num_classes + 1 in self._legend.ids)  # Void is the last one.

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if a file is missing or damaged, or if the files differ in size."""
        image = self._load_image(index)
        found, size = self._load_instances(index)
        fits = tf.reduce_all(tf.shape(image)[:2] == size)
        path = tf.gather(self._files.numbers, index)
        with tf.control_dependencies([tf.debugging.Assert(fits, ['Image and instances differ in size:', path])]):
            return {'image': tf.identity(image), **found}

    def annotations(self, index: int) -> Annotations:
        """The instances of one image, for scores."""
        found, size = self._read_instances(tf.constant(index, tf.int64))
        return ragged.annotations(found, *size.numpy().tolist())

    def class_histogram(self) -> ClassHistogram:
        """Pixels by class of the whole split; decodes the maps if `verify()` has not done so.

        Raises:
          UserError: if a map cannot be decoded or is out of range.
        """
        if self._files.labels:
            return super().class_histogram()
        findings.settle(self._gathered(self._numbers))
        ids = [np.array(item.ids, np.int64) for item in self._numbers]
        return values.class_histogram(
            [
                Counts(np.bincount(each[each >= 0], np.array(item.pixels)[each >= 0], self._num_classes + 2), 0, {})
                for each, item in zip(ids, self._numbers, strict=True)
            ],
            np.arange(self._num_classes + 2),
            1,
            self._num_classes,
        )

    # ---- In the graph ----

    def _maps(self, index: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor]:
        """The label map as ids of the legend, or None, and the instance map, int32 [H, W]; 0 means no instance."""
        label_paths, paths = self._files.labels, self._files.numbers
        numbers = self._decode_map(index, paths, 1 if label_paths else 0, by_color=False)
        numbers = tf.where(numbers >= 0, numbers, 0)
        if not label_paths:
            for value in self._legend.ignored:
                numbers = tf.where(numbers == value, 0, numbers)
            return None, numbers
        label = self._legend.lookup(self._decode_map(index, label_paths, 0, self._legend.by_color))
        fits = tf.reduce_all(tf.shape(label) == tf.shape(numbers))
        with tf.control_dependencies([tf.debugging.Assert(fits, ['Label and instances differ in size.'])]):
            label = tf.identity(label)
        return label, tf.where((numbers == IGNORE) & self._is_shallow(tf.gather(paths, index)), 0, numbers)

    def _is_shallow(self, path: tf.Tensor) -> tf.Tensor:
        """Whether a map has up to 8 bits: then 255 is the ignored border, as in PASCAL VOC."""
        head = tf.strings.substr(tf.io.read_file(path), 0, 33)
        is_png = tf.strings.substr(head, 0, 4) == b'\x89PNG'
        return is_png & (image_files.label_bits(tf.strings.join([head, bytes(33)])) <= 8)

    def _instances(self, index: tf.Tensor):
        """The instances of an example, with those of no class.

        Returns:
          Their numbers int32 [N], runs, ids of the legend int32 [N], whether they are groups bool [N], their pixels of
          each id int32 [N, ids] (None without label maps), and the instance map int32 [H, W].
        """
        label, numbers = self._maps(index)
        if label is not None:
            found, masks, counts = _instances_and_counts(label, numbers, self._num_ids)
            return (
                found,
                masks,
                tf.argmax(counts, axis=1, output_type=tf.int32),
                tf.zeros_like(found, tf.bool),
                counts,
                numbers,
            )
        found, masks = ragged.from_labels(numbers)
        value, is_group = self._class_of(found)
        return found, masks, self._legend.lookup(value), is_group, None, numbers

    def _load_instances(self, index: tf.Tensor):
        """The instances of an example, and (height, width), int32 [2]."""
        _, masks, ids, is_group, _, numbers = self._instances(index)
        # Instances of background alone are omitted; `verify` reports them.
        known = tf.where((ids > 0) & (ids != IGNORE))[:, 0]
        masks, ids, is_group = (tf.gather(part, known) for part in (masks, ids, is_group))
        void = self._num_classes + 1
        if void in self._legend.ids:
            copies = tf.where(ids == void, self._num_classes, 1)
            place = tf.repeat(tf.range(tf.size(ids)), copies)
            number = tf.range(tf.size(place)) - tf.gather(tf.cumsum(copies, exclusive=True), place)
            masks, ids, is_group = (tf.gather(part, place) for part in (masks, ids, is_group))
            is_group |= ids == void
            ids = tf.where(ids == void, number + 1, ids)
        found = instances(masks, ids - 1, tf.shape(numbers)[0])
        return {**found, 'is_crowd': is_group}, tf.shape(numbers)

    @functools.cached_property
    def _read_instances(self):
        return tf.function(self._load_instances, input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)

    # ---- Checks ----

    def _label_files(self) -> list[tuple[str, Sequence[str]]]:
        labels = super()._label_files() if self._files.labels else []
        return [*labels, (KIND, self._files.numbers)]

    @functools.cached_property
    def _numbers(self) -> list[Numbers | Fault]:
        """The instances of every instance map."""
        files = self._files
        graph = tf.function(self._summary, input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)

        def look(index):
            try:
                parts = graph(tf.constant(index, tf.int64))
            except tf.errors.OpError as error:
                return Fault('damaged_file', checking.damage(files.numbers[index], error, files.drop))
            numbers, ids, pixels, groups, counts = (part.numpy() for part in parts)
            return Numbers(
                *(part.tolist() for part in (numbers, ids, pixels, groups)), self._fault(index, numbers, ids, counts)
            )

        _ = self._good_headers
        legend = self._legend
        key = [files.part, files.root, files.split, 'instances', legend.values, legend.ids.tolist(), legend.ignored]
        paths = list(zip(*(each for _, each in self._label_files()), strict=True))
        looked = remembered.each(key, paths, look, Numbers, f'{self._where}: checking instances')
        return [
            Fault('instances_without_class', item.fault) if isinstance(item, Numbers) and item.fault else item
            for item in looked
        ]

    def _summary(self, index: tf.Tensor):
        numbers, masks, ids, groups, counts, _ = self._instances(index)
        _, area = ragged.boxes_and_areas(masks, 1)
        none = tf.zeros([0, 0], tf.int32)
        return numbers, ids, tf.cast(area, tf.int64), groups, none if counts is None else counts

    def _fault(self, index: int, numbers: np.ndarray, ids: np.ndarray, counts: np.ndarray) -> str:
        """A sentence about instances without a single class; empty if there are none."""
        path = self._files.numbers[index]
        if not self._files.labels:
            wrong = np.flatnonzero(ids == UNKNOWN)
            if not wrong.size:
                return ''
            return (
                f'{path}: {len(wrong)} of {len(numbers)} values have no meaning, such as {numbers[wrong[0]]}. Classes '
                f'are {self._legend.shown_classes()}.'
            )
        most = counts.max(axis=1, initial=0)
        # A border may have the number 255 in a map of 16 bits as well, if all of it is ignored.
        border = (numbers == IGNORE) & (most == 0)
        wrong = np.flatnonzero(~border & ((counts.argmax(axis=1) == 0) | (most < _LEAST_FRACTION * counts.sum(axis=1))))
        if not wrong.size:
            return ''
        names = ['void' if n > self._num_classes else self._id_name(n) for n in np.flatnonzero(counts[wrong[0]])]
        return (
            f'{path}: {len(wrong)} of {len(numbers)} instances have no single class, such as number '
            f'{numbers[wrong[0]]}, which covers {", ".join(names) or "ignored pixels only"} in '
            f'{self._files.labels[index]}. Each instance needs its own number, and all of its pixels the same class.'
        )

    def _id_name(self, n: int) -> str:
        return self._classes.names[n - 1] if n else self._legend.names[0]

    def _pixel_findings(self) -> Iterator[Finding]:
        if self._files.labels:
            found = list(super()._pixel_findings())
            yield from found
            if any(each.severity == findings.FIX for each in found):
                return
        else:
            damaged = self._gathered(self._brightest)
            yield from damaged
            if damaged:
                return
        faults = self._gathered(self._numbers)
        yield from faults
        if faults:
            return
        ids = np.concatenate([np.array(item.ids, np.int64) for item in self._numbers])
        groups = np.concatenate([np.array(item.groups, bool) for item in self._numbers])
        solid = (ids > 0) & (ids <= self._num_classes) & ~groups
        if not solid.any():
            crowds = int((groups | (ids == self._num_classes + 1)).sum())
            yield (
                self._without_instances(crowds)
                if crowds
                else checking.without_instances(self._where, 0, self._files.names)
            )

    def _without_instances(self, crowds: int) -> Finding:
        part = self._files.part
        return Finding(
            kind='all_crowds',
            severity=findings.FIX,
            text=f'{self._where}: all of its {crowds} instances are groups, or of classes that are void by '
            f'{part}.classes or {part}.void; they count neither in training nor in scores.',
            remedy='Name at least one class that has instances.',
            images=tuple(self._files.names),
            count=len(self._files.names),
        )


def one_class(number: Any) -> tuple[Any, Any]:
    """`class_of` for maps whose instances are all of one class, the second name of the legend."""
    return tf.ones_like(number), tf.zeros_like(number, tf.bool)


def _instances_and_counts(label: tf.Tensor, numbers: tf.Tensor, num_ids: int):
    """Returns numbers of instances int32 [N], their runs, and their pixels of each id, int32 [N, num_ids]."""
    found, masks = ragged.from_labels(numbers)
    inside = tf.where((numbers > 0) & (label >= 0) & (label < num_ids))
    number = tf.searchsorted(found, tf.gather_nd(numbers, inside))
    key = number * num_ids + tf.gather_nd(label, inside)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(key), key, tf.size(found) * num_ids)
    return found, masks, tf.reshape(counts, [-1, num_ids])


def instances_of_maps(label: tf.Tensor, numbers: tf.Tensor, num_ids: int) -> dict[str, tf.Tensor]:
    """The instances of a label map and an instance map, as `InstanceMaps` gives them.

    Args:
      label: int32 [H, W], 0 is the background; values from `num_ids` on are ignored.
      numbers: int32 [H, W], the number of each pixel's instance; 0 is none.
      num_ids: the classes are 1 to `num_ids` - 1.

    Returns:
      The keys of the target 'instances' of an example; class 1 is number 0.
    """
    _, masks, counts = _instances_and_counts(label, numbers, num_ids)
    ids = tf.argmax(counts, axis=1, output_type=tf.int32)
    known = tf.where(ids > 0)[:, 0]
    return instances(tf.gather(masks, known), tf.gather(ids, known) - 1, tf.shape(numbers)[0])
