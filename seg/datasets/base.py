"""The contract of data sets: the class that each one derives from, and the keys of an example for each target."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.datasets import findings
from seg.datasets.findings import Finding
from seg.errors import UserError, built_in, failed, shown, source_file
from seg.masks import ragged
from seg.structures import Annotations, ClassHistogram, DatasetInfo

_COUNTED = 200  # Number of examples of an endless data set that its class histogram counts.
_PARALLEL = 8


class Field(NamedTuple):
    """One key of an example.

    Attributes:
      dtype: dtype of the tensor.
      shape: dimensions as in the documentation: H and W are the image's sides, N is its number of instances.
      meaning: units and range.
    """

    dtype: tf.DType
    shape: str
    meaning: str

    def __str__(self) -> str:
        return f'{self.dtype.name} {self.shape}'

    @property
    def sides(self) -> list[int | None]:
        """The dimensions in `shape`; None for letters."""
        return [int(side) if side.isdigit() else None for side in self.shape.strip('[]').split(', ')]


# What `Dataset.load` returns: these keys for every target, …
IMAGE = {'image': Field(tf.uint8, '[H, W, 3]', 'RGB; any size up to info.max_size')}
# … and these for each target of the built-in tasks. A task of a plugin may have its own target and keys.
# K is the number of names in info.class_names.
TARGETS = {
    'label_map': {
        'label': Field(tf.int32, '[H, W]', 'class of each pixel, 0 to K - 1, or info.ignore_label'),
    },
    'instances': {
        'boxes': Field(tf.float32, '[N, 4]', 'y0, x0, y1, x1 in pixels, within the image'),
        'classes': Field(tf.int32, '[N]', '0 to K - 1; the background is not a class'),
        'is_crowd': Field(tf.bool, '[N]', 'True for a crowd, a region of many instances that counts nowhere'),
        'area': Field(tf.float32, '[N]', 'pixels of the mask'),
        'masks': Field(tf.int32, '[N, (ends)]', 'runs of each mask, a tf.RaggedTensor, see `seg.masks.runs`'),
    },
}


class Dataset:
    """One split of annotated images. Every data set derives from this class.

    A data set sets `info` and defines `load` and `image_name`. The other members have defaults. A data set does not
    handle order, shuffling, batches or augmentation.

    The data set's builder may take the supplied arguments `target` (what the task learns from: 'label_map',
    'instances' or a plugin's own name) and `seed` (of the run). A data set with several targets reads `target`; for a
    target that it does not have, `check_target` raises the error.

    Before a run, the first examples are checked against this contract. Class ids are checked in every loaded example
    (`contract`).

    Attributes:
      info: facts about the split, a `DatasetInfo`. An attribute or a property.
    """

    info: DatasetInfo | None = None

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads one example.

        It is called in a graph, by several threads, and must depend on the index alone. It uses TensorFlow operations
        only, or `tf.numpy_function` with `tf.ensure_shape` around it.

        Args:
          index: scalar int64, 0 to `info.num_examples` - 1; any number from 0 on if that is None.

        Returns:
          A dict with the keys of `IMAGE` and those of the target in `TARGETS`. Instances may come in any order, and an
          image may have none.

        Raises:
          tf.errors.OpError, OSError, EOFError: if a file cannot be read. Such an image has weight 0 in its batch, and
            the log names it. Any other exception ends the run.
        """
        raise _missing(self, 'load(index)', 'Every data set needs it')

    def image_name(self, index: int) -> str:
        """Name of an image, for messages and result files. It may contain slashes and has no ending."""
        raise _missing(self, 'image_name(index)', 'Every data set needs it')

    def findings(self, full: bool) -> Iterable[Finding]:
        """Checks the files, as far as the data set can. By default nothing is found.

        Args:
          full: whether every file is decoded (`--mode=check_data`). Otherwise as a run does before its first step:
            structure, headers and sizes.

        Returns:
          All findings, in the order in which they should be read. The iteration may do the work.
        """
        return ()

    def readable(self) -> Dataset:
        """For `--mode=check_data`: the examples whose headers can be read. Its findings name those that are left out.

        By default all. Thus one unusable file does not hide the faults of the others.
        """
        return self

    def verify(self) -> None:
        """Checks the files before a run: raises the first finding that must be fixed, and logs the warnings.

        Raises:
          UserError: names the unusable files, their faults, and the remedy.
        """
        findings.settle(self.findings(full=False))

    def class_histogram(self) -> ClassHistogram:
        """Pixels of each class, for losses with class weights; called only if such a loss needs it.

        By default all examples are loaded and counted (the first 200 of an endless data set): labelled pixels of a
        label map, areas of instances. Unreadable examples are skipped.

        Raises:
          UserError: if the examples have neither.
        """

        def count(index):
            example = self.load(index)
            if 'label' in example:
                label, number = example['label'], self.info.num_classes
                known = tf.boolean_mask(label, (label != self.info.ignore_label) & (label >= 0) & (label < number))
                return tf.math.bincount(known, minlength=number, dtype=tf.int64)
            if {'classes', 'area'} <= example.keys():
                areas = tf.math.unsorted_segment_sum(example['area'], example['classes'], self.info.num_classes)
                return tf.cast(tf.round(areas), tf.int64)
            raise _missing(
                self,
                'class_histogram()',
                f'A loss needs the pixels of each class, but load returns {shown(sorted(example))} only',
            )

        examples = tf.data.Dataset.range(_COUNTED if self.info.num_examples is None else self.info.num_examples)
        counts = examples.map(count, num_parallel_calls=_PARALLEL).ignore_errors()
        return histogram(np.array(list(counts.as_numpy_iterator()), np.int64).reshape(-1, self.info.num_classes))

    def image_id(self, index: int) -> int | str:
        """Id of an image in result files; by default its position, counted from 1."""
        return index + 1

    def image_path(self, index: int) -> str | None:
        """The file of an image; None if it has no file of its own.

        By the bytes of these files, evaluation images that are copies of training images are found.
        """
        return None

    def annotations(self, index: int) -> Annotations:
        """The ground-truth instances of one image as arrays, for the scores. Only for the target 'instances'.

        By default they come from `load`, which also reads the image. A data set that can avoid this overrides the
        method.

        Args:
          index: 0 to `info.num_examples` - 1.

        Raises:
          UserError: if `load` returns no instances, or fails.
        """
        try:
            example = self.__instances(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:
            where = f'{self.info.name}, image {shown(self.image_name(index))}'
            raise failed(error, f'{where}: load', source_file(self)) from error
        if lacking := [key for key in TARGETS['instances'] if key not in example]:
            raise _missing(self, 'annotations(index)', f'Scores of instances need it, or {", ".join(lacking)} of load')
        height, width = example['size'].numpy().tolist()
        return ragged.annotations(example, height, width)

    @functools.cached_property
    def __instances(self):
        """`load` as a graph, as in the batches, with the image's size in place of the image."""

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=not built_in(self))
        def load(index):
            example = dict(self.load(index))
            return example | {'size': tf.shape(example.pop('image'))[:2]}

        return load


class FirstExamples(Dataset):
    """The first few examples of another data set, `whole`.

    Args:
      dataset: the other data set.
      count: number of examples.
      slot: the setting that needs them, for messages.

    Raises:
      UserError: if the data set has fewer examples.
    """

    def __init__(self, dataset: Dataset, count: int, slot: str):
        known = dataset.info.num_examples
        if known is not None and known < count:
            raise UserError(f'{slot} = {count}: {dataset.info.name} has {known} image(s). Expected at most {known}.')
        self.info = dataclasses.replace(dataset.info, num_examples=count)
        self.whole = dataset

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.whole.load(index)

    def image_name(self, index: int) -> str:
        return self.whole.image_name(index)

    def image_id(self, index: int) -> int | str:
        return self.whole.image_id(index)

    def image_path(self, index: int) -> str | None:
        return self.whole.image_path(index)

    def annotations(self, index: int) -> Annotations:
        return self.whole.annotations(index)


def instances(masks: tf.RaggedTensor, classes: tf.Tensor, height: int | tf.Tensor) -> dict[str, tf.Tensor]:
    """The keys of `TARGETS['instances']` from masks and classes: boxes and areas follow from the masks, no crowds.

    Args:
      masks: int32 [N, (ends)]: `ragged.from_dense` makes them of bool [N, H, W], `ragged.from_labels` of a map of
        instance numbers, int32 [H, W].
      classes: int32 [N].
      height: height of the image, in pixels.
    """
    boxes, area = ragged.boxes_and_areas(masks, height)
    is_crowd = tf.zeros_like(classes, tf.bool)
    return {'boxes': boxes, 'classes': classes, 'is_crowd': is_crowd, 'area': area, 'masks': masks}


def histogram(counts: np.ndarray) -> ClassHistogram:
    """The class histogram of images with these pixels of each class, int64 [images, K]."""
    present = (counts > 0) * counts.sum(axis=1, keepdims=True)
    return ClassHistogram(counts.sum(axis=0), present.sum(axis=0))


def check_target(slot: str, target: Any, targets: Sequence[str]) -> None:
    """Checks that a data set has the target that the task learns from.

    Args:
      slot: the data set's gin key, such as 'datasets.coco'.
      target: what the task learns from.
      targets: the targets that the data set has.

    Raises:
      UserError: if the target is not among them.
    """
    if target not in targets:
        raise UserError(
            f'{slot}: the task learns from target {target!r}; this data set has {" and ".join(map(repr, targets))}. '
            'Use another data set or another task.'
        )


def _missing(dataset: Dataset, member: str, need: str) -> UserError:
    own = type(dataset).__name__
    return UserError(
        f'{dataset.info.name if dataset.info else own}: the data set {own} defines no {member}. {need}: see '
        'docs/plugins_data.md.'
    )
