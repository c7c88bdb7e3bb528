"""The inputs of a task on images: training, evaluation, overfitting. `Rows` has what depends on the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from seg.datasets.base import Dataset
from seg.errors import UserError
from seg.inputs import augmentation, pipeline
from seg.inputs.rows import Example, Rows, Size
from seg.ops.sizes import fitted_size
from seg.registry import augments as augment_registry
from seg.structures import PAD_PIXEL, Input


class ImageInputs:
    """Inputs with one kind of rows.

    Attributes:
      train_data: the data set of the last training input; None before.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        augments: Sequence[Any],
        slot: str,
        ignore_label: int,
        seed: int,
        stride: int,
        train_stride: int,
        eval_size: Size | None = None,
        mixes: bool = False,
        check_size: Callable[[Size, int], None] = lambda size, batch_size: None,
    ):
        """Builds the augmentations.

        Args:
          rows: makes rows of the target's examples.
          augments: references to augmentations.
          slot: the setting that holds the references, for messages.
          ignore_label: supplied to augmentations.
          seed: seed for the order of the images and for all augmentation.
          stride: sides of an evaluation canvas are multiples of it.
          train_stride: sides of a training canvas are multiples of it.
          eval_size: (height, width) that images are scaled to fit in evaluation, up or down; None for their own size.
          mixes: whether augmentations are supplied with `other`, which gives them other training examples.
          check_size: called with the size of a training canvas and the batch size; raises a `UserError` if the model
            cannot be trained on that.
        """
        supplied = {'ignore_label': ignore_label} | ({'other': self._another} if mixes else {})
        self._rows, self._slot, self._seed = rows, slot, seed
        self._stride, self._train_stride, self._eval_size = stride, train_stride, eval_size
        self._check_size = check_size
        factories = augment_registry.check_each(augments, slot)
        self.augments = augmentation.build(factories, slot, rows.target, **supplied)
        self.train_data = None

    def training(self, dataset: Dataset, batch_size: int) -> Input:
        """Shuffled, augmented examples without end.

        Raises:
          UserError: if the augmented images have no common size, or `check_size` refuses it.
        """
        canvas = _padded(self._training_size(dataset, batch_size), self._train_stride)
        prepare = lambda example, seed: self.row(example, seed, canvas)  # noqa: E731
        return pipeline.training_input(dataset, prepare, self._rows.blank, batch_size, self._seed, self._rows.target)

    def evaluation(self, dataset: Dataset, batch_size: int, canvas: Size | None = None) -> Input:
        """Every image once, on one canvas.

        Args:
          dataset: the evaluation data.
          batch_size: images of a batch.
          canvas: (height, width) of another canvas, which the images are scaled to fit if some are larger; None for the
            one of the data.
        """
        if canvas is None:
            return self._evaluation(dataset, batch_size, self.canvas(dataset.info.max_size), self._eval_size)
        fits = all(own <= side for own, side in zip(dataset.info.max_size, canvas, strict=True))
        return self._evaluation(dataset, batch_size, canvas, None if fits and self._eval_size is None else canvas)

    def overfit(self, dataset: Dataset, batch_size: int) -> tuple[Input, Input]:
        """The same few images for training and evaluation, scaled to the training size, without augmentation.

        Raises:
          UserError: as `training`.
        """
        size = self._training_size(dataset, batch_size)
        canvas = _padded(size, self._train_stride)
        prepare = lambda example, seed: self._rows.packed(self.fitted(self._rows.begin(example), size), canvas)  # noqa: E731
        return (
            pipeline.training_input(dataset, prepare, self._rows.blank, batch_size, self._seed, self._rows.target),
            self._evaluation(dataset, batch_size, canvas, size),
        )

    def canvas(self, max_size: Size) -> Size:
        """(height, width) that images of at most `max_size` are padded to in evaluation, once they are scaled."""
        return _padded(self._eval_size or max_size, self._stride)

    def row(self, example: Example, seed: tf.Tensor, canvas: Size) -> Example:
        """A loaded example as a training row: augmented by a seed, int32 [2], and padded to a canvas."""
        return self._rows.packed(self._augmented(example, seed), canvas)

    @tf.autograph.experimental.do_not_convert
    def fitted(self, example: Example, size: Size) -> Example:
        """Scales an example from `begin`, at its aspect ratio, to the largest size that fits into `size`."""
        before = tf.shape(example['image'], out_type=tf.int64)[:2]
        target = tf.cast(tf.stack(fitted_size(tf.unstack(before), size, tf.clip_by_value)), tf.int32)
        image = tf.image.resize(example['image'], target, antialias=True)
        scaled = example | {'image': tf.cast(image, example['image'].dtype), 'size': target}
        return self._rows.follow(scaled, before)

    def _another(self, seed: tf.Tensor) -> Example:
        """A random example of the training data, for augmentations that mix examples."""
        return self._rows.begin(pipeline.any_example(self.train_data, seed, self._rows.target))

    def _augmented(self, example: Example, seed: tf.Tensor) -> Example:
        return augmentation.applied(self._rows.begin(example), self.augments, seed)

    def _evaluation(self, dataset: Dataset, batch_size: int, canvas: Size, size: Size | None) -> Input:
        def prepare(example: Example, seed: tf.Tensor) -> Example:
            example = self._rows.begin(example)
            native_size = example['size']
            return self._rows.scored(example if size is None else self.fitted(example, size), native_size, canvas)

        source = pipeline.evaluation_input(dataset, prepare, self._rows.blank, batch_size, self._rows.target)
        return dataclasses.replace(source, truth=self._rows.truth(dataset))

    def _training_size(self, dataset: Dataset, batch_size: int) -> Size:
        """The size of an augmented image."""
        self.train_data = dataset
        # Not a constant: then TensorFlow would compute shapes that depend on the seed, and they would look static.
        seed = lambda i: tf.cast(tf.stack([i, i]), tf.int32)  # noqa: E731
        load = lambda i: pipeline.load(dataset, i, self._rows.target)  # noqa: E731
        examples = tf.data.Dataset.range(1).map(lambda i: self._augmented(load(i), seed(i)))
        shape = examples.element_spec['image'].shape
        if not shape.is_fully_defined():
            raise UserError(
                f'{self._slot}: the images of {dataset.info.name} have different sizes after these augmentations. The '
                'last one must give all the same size, as @augments.scale_crop_flip does.'
            )
        size = shape[0], shape[1]
        self._check_size(_padded(size, self._train_stride), batch_size)
        return size


def padded_image(image: tf.Tensor, canvas: Size) -> tf.Tensor:
    """Pads an image at the bottom and the right with the mean pixel."""
    shape = tf.shape(image)
    pixel = tf.constant(PAD_PIXEL, image.dtype)
    image = tf.pad(image - pixel, [[0, canvas[0] - shape[0]], [0, canvas[1] - shape[1]], [0, 0]]) + pixel
    return tf.ensure_shape(image, (*canvas, 3))


def _padded(size: Size, stride: int) -> Size:
    """The next multiples of a stride."""
    return tuple(-(-side // stride) * stride for side in size)
