"""Instance segmentation: box, class and mask of every instance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from seg.drawing import examples
from seg.drawing.instances import InstanceComparison
from seg.drawing.palette import instance_palette
from seg.errors import UserError, shown
from seg.masks import paste
from seg.metrics.base import RowMetric
from seg.metrics.coco_ap import CocoAP
from seg.number_checks import check_counts
from seg.ops.boxes import iou
from seg.prediction.instances import InstanceOutputs
from seg.prediction.settings import PredictSettings
from seg.registry import Factory, tasks
from seg.structures import Annotations, DataLimits, DatasetInfo, LossTerm
from seg.tasks.base import Batch, Task
from seg.tasks.references import TRIAL_IMAGES, build_losses, build_metrics, build_model, check_model
from seg.tasks.traced import traced

if TYPE_CHECKING:
    from seg.inputs.images import ImageInputs

_TARGET = 'instances'

_MODEL_INPUTS = ('image', 'size', 'seed', 'boxes', 'classes', 'masks')  # In training.
_SHOWN = ('mask_ap', 'mask_ap50', 'box_ap', 'box_ap50')
_CERTAIN = 0.5  # Lowest score of the detections that count when images are ranked.


@tasks.register('instance', target=_TARGET, free=('metrics', 'eval_size'))
class Instance(Task):
    """Instance segmentation with any model that returns boxes, classes and masks."""

    def __init__(
        self,
        *,
        dataset_info: DatasetInfo,
        seed: int = 0,
        model,
        losses: Sequence[Any],
        metrics: Sequence[Any],
        augments: Sequence[Any] = (),
        max_objects: int = 100,
        mask_size: int = 112,
        eval_size: Sequence[int] | None = None,
    ):
        """Builds the model, the losses and the metrics.

        Args:
          dataset_info: supplied by the experiment.
          seed: supplied; for the order of the images, all augmentation, and the sampling of anchors and ROIs.
          model: reference to a model.
          losses: references to losses; their sum is minimised.
          metrics: references to metrics.
          augments: references to augmentations of training examples, in this order. The last one gives all images
            one size, unless the data set does.
          max_objects: number of instances in a training image; beyond it the smallest are omitted. Evaluation counts
            all instances.
          mask_size: side of the square map of each instance's mask over its box, for training.
          eval_size: (height, width) that images are scaled to fit, up or down, in evaluation and prediction; None for
            their own size.
        """
        check_counts('tasks.instance', max_objects=max_objects, mask_size=mask_size)
        if eval_size is not None and (len(eval_size) != 2 or min(eval_size) < 1):
            raise UserError(f'tasks.instance.eval_size = {eval_size!r}: expected (height, width) in pixels, or None.')
        self._max_objects, self._mask_size = max_objects, mask_size
        self._eval_size = None if eval_size is None else tuple(eval_size)
        num_classes = dataset_info.num_classes
        self._model, factory = build_model(model, 'tasks.instance.model', num_classes)
        self._check_model(factory)
        supplied = {'num_classes': num_classes, 'ignore_label': dataset_info.ignore_label}
        self._losses = build_losses(
            losses, 'tasks.instance.losses', _TARGET, self._loss_trial, **supplied, class_histogram=None
        )

        def inputs() -> ImageInputs:
            from seg.inputs.images import ImageInputs
            from seg.inputs.instances import InstanceRows

            return ImageInputs(
                InstanceRows(max_objects, mask_size),
                augments=augments,
                slot='tasks.instance.augments',
                ignore_label=dataset_info.ignore_label,
                seed=seed,
                stride=self._model.output_stride,
                train_stride=self._model.output_stride,
                eval_size=self._eval_size,
                mixes=True,
                check_size=self._check_statistics,
            )

        names = dataset_info.class_names
        super().__init__(
            checkpoint_items=self._model.parts,
            inputs=inputs,
            metrics=build_metrics(
                metrics, 'tasks.instance.metrics', _TARGET, self._metric_trial, **supplied, class_names=names
            ),
            class_names=names,
        )
        self._advised: set[str] = set()
        self._colors = dataset_info.colors or instance_palette(num_classes)

    @property
    def model(self) -> keras.Model:
        return self._model

    # ---- On the device -----------------------------------------------------------------------------------------------

    def loss_terms(self, batch: Batch, step) -> dict[str, LossTerm]:
        outputs = self._model({key: batch[key] for key in _MODEL_INPUTS}, training=True)
        return {name: loss(outputs, batch, step) for name, loss in self._losses.items()}

    def counts(self, batch: Batch) -> dict[str, Any]:
        """`objects`: number of instances in the batch; `left_out`: number beyond `max_objects`."""
        return {'objects': ops.sum(ops.cast(batch['classes'] >= 0, 'int32'), 1), 'left_out': batch['left_out']}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Detects instances in images.

        An evaluation has no losses, because they depend on randomly sampled anchors and ROIs: values of two evaluations
        could not be compared.

        Returns:
          `boxes` [B, D, 4] (y0, x0, y1, x1 in the canvas's pixels), `scores` [B, D], `classes` int32 [B, D] (-1 in an
          empty row) and `masks` [B, D, m, m], probabilities over each box; by decreasing score.
        """
        return self._model({key: batch[key] for key in ('image', 'size')}, training=False)

    def image_scores(self, batch: Batch, predictions: dict[str, Any]) -> Any:
        """Scores that select the worst and the best images, [B].

        The F1 score of the boxes: an instance and a detection match if they have the same class and an IoU of at least
        0.5. NaN for an image with neither instances nor detections.
        """
        ious = iou(ops.cast(predictions['boxes'], batch['boxes'].dtype), batch['boxes'])
        certain = (predictions['scores'] >= _CERTAIN) & (predictions['classes'] >= 0)
        present = batch['classes'] >= 0
        pairs = (ious >= 0.5) & (predictions['classes'][:, :, None] == batch['classes'][:, None])
        pairs &= certain[:, :, None] & present[:, None]
        right = ops.minimum(_count(ops.any(pairs, 2)), _count(ops.any(pairs, 1)))
        both = _count(certain) + _count(present)
        return ops.where(both > 0, 2 * right / ops.maximum(both, 1), float('nan'))

    def data_limits(self) -> DataLimits:
        model = self._model
        detections = [metric.max_detections for metric in self.metrics() if isinstance(metric, CocoAP)]
        return DataLimits(
            instances={'tasks.instance.max_objects': self._max_objects, **getattr(model, 'instance_limits', {})},
            instances_of_class={'metrics.coco_ap.max_detections': min(detections)} if detections else {},
            anchor_sizes=getattr(model, 'anchor_sizes', ()),
            eval_size=self._eval_size,
            stride=model.output_stride,
        )

    # ---- Checks ------------------------------------------------------------------------------------------------------

    def _check_model(self, factory: Factory) -> None:
        """Calls a plugin's model as in training and as in evaluation, with symbolic images."""
        batch = self._batch(TRIAL_IMAGES, (2 * self._model.output_stride,) * 2)
        rows = (TRIAL_IMAGES, None)
        found = {'boxes': (*rows, 4), 'scores': rows, 'classes': rows, 'masks': (*rows, None, None)}
        check_model(factory, self._model, {key: batch[key] for key in _MODEL_INPUTS}, True, {})
        check_model(factory, self._model, {key: batch[key] for key in ('image', 'size')}, False, found)

    def _metric_trial(self) -> tuple:
        """Symbolic batch and predictions."""
        side, places = 2 * self._model.stride, (TRIAL_IMAGES, 10)
        batch = self._batch(TRIAL_IMAGES, (side, side))
        del batch['masks']
        return batch | {'native_size': keras.KerasTensor((TRIAL_IMAGES, 2), 'int32')}, {
            'boxes': keras.KerasTensor((*places, 4), 'float32'),
            'scores': keras.KerasTensor(places, 'float32'),
            'classes': keras.KerasTensor(places, 'int32'),
            'masks': keras.KerasTensor((*places, 28, 28), 'float32'),
        }

    def _loss_trial(self) -> tuple:
        """The model's outputs in training, the batch and the step, as symbolic tensors."""
        side = 2 * self._model.output_stride
        batch = self._batch(TRIAL_IMAGES, (side, side))
        return self._outputs(batch), batch, keras.KerasTensor((), 'int32')

    def _check_statistics(self, size: tuple[int, int], batch_size: int) -> None:
        """Calls batch normalisation, which refuses a global batch with one value per channel (a UserError).

        Only a batch of one image can be so small.
        """
        if batch_size == 1:
            self._outputs(self._batch(batch_size, size))

    def _batch(self, batch_size: int, size: tuple[int, int]) -> Batch:
        """A symbolic training batch of images of a size."""
        instances = (batch_size, self._max_objects)
        return {
            'image': keras.KerasTensor((batch_size, *size, 3), keras.config.floatx()),
            'size': keras.KerasTensor((batch_size, 2), 'int32'),
            'seed': keras.KerasTensor((batch_size, 2), 'int32'),
            'boxes': keras.KerasTensor((*instances, 4), 'float32'),
            'classes': keras.KerasTensor(instances, 'int32'),
            'masks': keras.KerasTensor((*instances, self._mask_size, self._mask_size), 'uint8'),
            'weight': keras.KerasTensor((batch_size,), 'float32'),
        }

    def _outputs(self, batch: Batch) -> dict[str, Any]:
        """The model's outputs in training, as symbolic tensors, for a symbolic batch."""
        batch = {key: batch[key] for key in _MODEL_INPUTS}
        of_shape = lambda x: keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))  # noqa: E731
        return traced(lambda batch: keras.tree.map_structure(of_shape, self._model(batch, training=True)), batch)

    # ---- Output for users --------------------------------------------------------------------------------------------

    def self_test(self, dataset) -> None:
        """Scores the instances of two images as if they were detections, before a training.

        Raises:
          UserError: if the AP is not 1: then ids, boxes or masks are wrong, and no training could be evaluated.
        """
        for metric in self.metrics():
            if isinstance(metric, RowMetric):
                metric.self_test(self._truths(dataset))

    def _truths(self, dataset) -> Iterator[tuple[str, Annotations]]:
        """The images whose instances all fit into a batch, without those that cannot be read.

        Yields:
          The name of the image with its data set, and its annotations.
        """
        for index in range(dataset.info.num_examples):
            with contextlib.suppress(UserError):
                truth = dataset.annotations(index)
                if len(truth.classes) - np.sum(truth.is_crowd) <= self._max_objects:
                    yield f'{dataset.info.name}, image {shown(dataset.image_name(index))}', truth

    def advice(self, counts: Mapping[str, float]) -> str | None:
        """Advice about instances beyond `max_objects` or without an anchor, and images without instances; once each."""
        problems = {}
        if counts['left_out'] > 0:
            problems['left_out'] = (
                f'{counts["left_out"]:.1f} instances per image are beyond tasks.instance.max_objects = '
                f'{self._max_objects}: the smallest were omitted. A higher limit takes memory.'
            )
        if not counts['objects']:
            problems['objects'] = (
                'The training images of these steps contain no instance. Check that they have annotations, and that '
                'crop and scale leave some.'
            )
        elif counts.get('anchors_matched') == 0:
            anchors = ', '.join(f'{size:g}' for size in self.data_limits().anchor_sizes) or 'of unknown size'
            problems['anchors'] = (
                'No anchor reaches the positive IoU with an instance, so the proposals learn from forced matches only. '
                f'Most instances measure {self._instance_sizes()} pixels (square root of the box area, before '
                f'augmentation), the anchors {anchors}. Change heads.rpn.anchor_scale or the scale of the images.'
            )
        new = [text for key, text in problems.items() if key not in self._advised]
        self._advised |= set(problems)
        return '\n'.join(new) or None

    def _instance_sizes(self) -> str:
        """Describes the sizes of the instances in the first 100 training images, in pixels."""
        count = min(self.inputs.train_data.info.num_examples or 100, 100)
        boxes = [self.inputs.train_data.annotations(i).boxes for i in range(count)]
        boxes = np.concatenate([b for b in boxes if len(b)] or [np.zeros((1, 4))])
        sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        low, middle, high = np.percentile(sides, [5, 50, 95])
        return f'{low:.0f} to {high:.0f} (median {middle:.0f})'

    def summary(self, metrics: Mapping[str, float]) -> str:
        return ', '.join(f'{name} {metrics[name]:.4f}' for name in _SHOWN if metrics.get(name) is not None)

    def training_figure(self, example, name: str) -> np.ndarray:
        image = np.clip(example['image'], 0, 255).astype(np.uint8)
        height, width = image.shape[:2]
        rows = {
            'boxes': example['boxes'],
            'classes': example['classes'],
            'scores': np.ones(len(example['classes'])),
            'masks': example['masks'] / 255,
        }
        found = paste.detections(rows, (height, width), (height, width))
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        truth = Annotations(
            height,
            width,
            found.boxes,
            found.classes,
            np.zeros(len(found.classes), bool),
            sides.prod(axis=1),
            found.masks,
        )
        return examples.instances(name, image, truth, class_names=self.class_names, colors=self._colors)

    def figure(self, example, prediction, name: str, truth: Annotations) -> InstanceComparison:
        """One image with its instances and the detections."""
        height, width = example['size']
        return InstanceComparison(
            name,
            np.clip(example['image'][:height, :width], 0, 255).astype(np.uint8),
            truth,
            paste.detections(prediction, example['size'], (truth.height, truth.width)),
            class_names=self.class_names,
            colors=self._colors,
        )

    def writer(self, folder: str, info: DatasetInfo, settings: PredictSettings, probabilities: bool) -> InstanceOutputs:
        """Overlays and `detections.json`."""
        for asked, flag in (
            (probabilities, '--probabilities'),
            (settings.large_pictures == 'tile', "predict.large_pictures = 'tile'"),
        ):
            if asked:
                raise UserError(
                    f'{flag} is for class maps, and this run detects instances: each has a score in detections.json, '
                    'and a large image is always scaled down, because windows would cut instances. Remove it.'
                )
        return InstanceOutputs(folder, info, self._colors, settings, self._eval_size is not None)


def _count(flags: Any) -> Any:
    return ops.sum(ops.cast(flags, 'float32'), -1)
