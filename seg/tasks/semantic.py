"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from seg import drawing
from seg.drawing import examples
from seg.drawing.palette import class_palette
from seg.errors import UserError
from seg.metrics.mean_iou import image_mean_iou
from seg.ops import dispatch
from seg.ops.resize import resize_images
from seg.ops.sizes import rounded
from seg.prediction.class_maps import ClassMaps
from seg.prediction.settings import PredictSettings
from seg.registry import Factory, tasks
from seg.structures import PAD_PIXEL, ClassHistogram, DataLimits, DatasetInfo, LossTerm
from seg.tasks.base import Batch, Task
from seg.tasks.references import TRIAL_IMAGES, build_losses, build_metrics, build_model, check_model
from seg.tasks.traced import traced

if TYPE_CHECKING:
    from seg.inputs.images import ImageInputs

_TARGET = 'label_map'


@tasks.register('semantic', target=_TARGET, free=('metrics', 'eval_scales', 'eval_flip'))
class Semantic(Task):
    """Semantic segmentation with any model that returns logits for every pixel."""

    def __init__(
        self,
        *,
        dataset_info: DatasetInfo,
        class_histogram: Callable[[], ClassHistogram] | None = None,
        seed: int = 0,
        model,
        losses: Sequence[Any],
        metrics: Sequence[Any],
        augments: Sequence[Any] = (),
        auxiliary_weight: float = 0.4,
        eval_scales: Sequence[float] = (1.0,),
        eval_flip: bool = False,
    ):
        """Builds the model, the losses and the metrics.

        Args:
          dataset_info: supplied by the experiment.
          class_histogram: supplied; counts the pixels per class of the training data, if a loss calls it.
          seed: supplied; for the order of the images and all augmentation.
          model: reference to a model.
          losses: references to losses; their sum is minimised.
          metrics: references to metrics.
          augments: references to augmentations of training examples, in this order. The last one gives all images
            one size, unless the data set does.
          auxiliary_weight: coefficient of the losses on the model's auxiliary logits, if there are any.
          eval_scales: image scales at evaluation; the class probabilities are averaged.
          eval_flip: whether to include the mirrored image at every scale.
        """
        if not eval_scales or min(eval_scales) <= 0:
            raise UserError(f'tasks.semantic.eval_scales = {eval_scales!r}: expected at least one positive scale.')
        self._info = dataset_info
        self._scales, self._flip = tuple(eval_scales), eval_flip
        supplied = {'num_classes': dataset_info.num_classes, 'ignore_label': dataset_info.ignore_label}
        self._model, factory = build_model(model, 'tasks.semantic.model', dataset_info.num_classes)
        self._check_model(factory)
        self._losses = build_losses(
            losses, 'tasks.semantic.losses', _TARGET, self._loss_trial, **supplied, class_histogram=class_histogram
        )
        self._auxiliary_weight = auxiliary_weight

        def inputs() -> ImageInputs:
            from seg.inputs.images import ImageInputs
            from seg.inputs.maps import MapRows

            return ImageInputs(
                MapRows(_TARGET, 'label', dataset_info.ignore_label),
                augments=augments,
                slot='tasks.semantic.augments',
                ignore_label=dataset_info.ignore_label,
                seed=seed,
                stride=self._model.output_stride,
                train_stride=1,
                check_size=self._check_statistics,
            )

        names = dataset_info.class_names
        super().__init__(
            checkpoint_items=self._model.parts,
            inputs=inputs,
            metrics=build_metrics(
                metrics, 'tasks.semantic.metrics', _TARGET, self._metric_trial, **supplied, class_names=names
            ),
            class_names=names,
        )
        self._colors = dataset_info.colors or class_palette(names)

    @property
    def model(self) -> keras.Model:
        return self._model

    def data_limits(self) -> DataLimits:
        return DataLimits(stride=self._model.output_stride)

    # ---- On the device -----------------------------------------------------------------------------------------------

    def loss_terms(self, batch: Batch, step) -> dict[str, LossTerm]:
        """Losses on the logits; losses on the auxiliary logits are named `auxiliary_…`."""
        outputs = self._model({key: batch[key] for key in ('image', 'size', 'seed')}, training=True)
        terms = self._terms(outputs, batch, step)
        if 'aux_logits' in outputs:
            for name, term in self._terms({'logits': outputs['aux_logits']}, batch, step).items():
                terms[f'auxiliary_{name}'] = LossTerm(self._auxiliary_weight * term.total, term.weight)
        return terms

    def evaluate_batch(self, batch: Batch) -> tuple[dict[str, Any], dict[str, LossTerm]]:
        """Predictions with all scales and flips; losses at scale 1 without flip, at the end of any annealing."""
        logits = self._logits(batch, 1.0, False)
        terms = self._terms({'logits': logits}, batch, ops.convert_to_tensor(2**31 - 1, 'int32'))
        return _decided(self._probabilities(batch, logits)), terms

    def evaluation_losses(self) -> Sequence[str]:
        return list(self._losses)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Predictions for images, averaged over all scales and flips.

        Returns:
          `classes` int32 [B, H, W], `confidence` [B, H, W], the probability of that class, and `probabilities`
          [B, H, W, K]. The latter two are float32 or better.
        """
        mean = self._probabilities(batch, self._logits(batch, 1.0, False))
        return _decided(mean) | {'probabilities': mean}

    def image_scores(self, batch: Batch, predictions: dict[str, Any]) -> Any:
        """Scores that select the worst and the best images: mean IoU of each image, [B]; NaN without a label."""
        info = self._info
        return image_mean_iou(batch['label'], predictions['classes'], info.num_classes, info.ignore_label)

    def _terms(self, outputs: Batch, batch: Batch, step) -> dict[str, LossTerm]:
        return {name: loss(outputs, batch, step) for name, loss in self._losses.items()}

    def _probabilities(self, batch: Batch, logits) -> Any:
        """Class probabilities, mean over the views; `logits` are the logits of the original image."""
        views = [(scale, flip) for scale in self._scales for flip in ((False, True) if self._flip else (False,))]
        probabilities = [ops.softmax(logits if view == (1.0, False) else self._logits(batch, *view)) for view in views]
        return sum(probabilities[1:], probabilities[0]) / len(probabilities)

    def _logits(self, batch: Batch, scale: float, flip: bool):
        """Logits at the batch's own resolution, from a scaled or mirrored view of it."""
        image, size = batch['image'], batch['size']
        canvas = tuple(image.shape[1:3])
        if scale != 1.0:
            # Computed for every side on the host: rounding halves needs float64, which not every device has.
            sides = np.maximum(rounded(np.arange(max(canvas) + 1) * scale), 1).astype(np.int32)
            scaled = tuple(int(sides[side]) for side in canvas)
            size = ops.take(sides, size)
            image = resize_images(image, batch['size'], size, scaled)
            padding = ops.convert_to_tensor(PAD_PIXEL, dtype=image.dtype)
            image = ops.where(_inside(size, scaled)[..., None], image, padding)
        if flip:
            image = _mirror(image, size)
        logits = self._model({'image': image, 'size': size}, training=False)['logits']
        if flip:
            logits = _mirror(logits, size)
        return logits if scale == 1.0 else resize_images(logits, size, batch['size'], canvas)

    # ---- Checks ------------------------------------------------------------------------------------------------------

    def _check_model(self, factory: Factory) -> None:
        """Calls a plugin's model as in training and as in evaluation, with symbolic images."""
        shape = (TRIAL_IMAGES, *(2 * self._model.output_stride,) * 2)
        pair = keras.KerasTensor((TRIAL_IMAGES, 2), 'int32')
        batch = {'image': keras.KerasTensor((*shape, 3), keras.config.floatx()), 'size': pair}
        logits = {'logits': (*shape, self._info.num_classes)}
        check_model(factory, self._model, {**batch, 'seed': pair}, True, logits)
        check_model(factory, self._model, batch, False, logits)

    def _metric_trial(self) -> tuple:
        """Symbolic batch and predictions."""
        outputs, batch, _ = self._loss_trial()
        classes, confidence = batch['label'], keras.KerasTensor(batch['label'].shape, outputs['logits'].dtype)
        return batch, {'classes': classes, 'confidence': confidence}

    def _loss_trial(self) -> tuple:
        """Symbolic outputs, batch and step."""
        shape = (TRIAL_IMAGES, 16, 16)
        logits = keras.KerasTensor((*shape, self._info.num_classes), keras.config.floatx())
        batch = {
            'image': keras.KerasTensor((*shape, 3), keras.config.floatx()),
            'label': keras.KerasTensor(shape, 'int32'),
            'size': keras.KerasTensor((TRIAL_IMAGES, 2), 'int32'),
            'weight': keras.KerasTensor((TRIAL_IMAGES,), 'float32'),
        }
        return {'logits': logits}, batch, keras.KerasTensor((), 'int32')

    def _check_statistics(self, size: tuple[int, int], batch_size: int) -> None:
        """Calls batch normalisation, which refuses a global batch with one value per channel (a UserError).

        Only a batch of one image can be so small; the check calls the model with a symbolic one.
        """
        if batch_size == 1:
            image = keras.KerasTensor((1, *size, 3), keras.config.floatx())
            pair = keras.KerasTensor((1, 2), 'int32')
            batch = {'image': image, 'size': pair, 'seed': pair}
            traced(lambda batch: self._model(batch, training=True), batch)

    # ---- Output for users --------------------------------------------------------------------------------------------

    def summary(self, metrics: Mapping[str, float]) -> str:
        shown = ['miou', 'pixel_accuracy', 'loss']
        return ', '.join(f'{name} {metrics[name]:.4f}' for name in shown if metrics.get(name) is not None)

    def training_figure(self, example, name: str) -> np.ndarray:
        return examples.label_map(
            name,
            np.clip(example['image'], 0, 255).astype(np.uint8),
            example['label'],
            class_names=self.class_names,
            colors=self._colors,
            ignore_label=self._info.ignore_label,
        )

    def figure(self, example, prediction, name: str, truth: None) -> drawing.Comparison:
        """One image with its label map, its prediction and its errors."""
        height, width = example['size']
        return drawing.Comparison(
            name,
            np.clip(example['image'][:height, :width], 0, 255).astype(np.uint8),
            example['label'][:height, :width],
            prediction['classes'][:height, :width],
            class_names=self.class_names,
            colors=self._colors,
            ignore_label=self._info.ignore_label,
        )

    def writer(self, folder: str, info: DatasetInfo, settings: PredictSettings, probabilities: bool) -> ClassMaps:
        """Class maps and overlays, and the probabilities on request."""
        return ClassMaps(folder, info, self._colors, settings, probabilities)


def _decided(probabilities: Any) -> dict[str, Any]:
    return {'classes': dispatch.argmax(probabilities), 'confidence': ops.max(probabilities, -1)}


def _mirror(image: Any, size: Any) -> Any:
    """Mirrors the valid part of each image left to right; padding stays at the right."""
    height, width, channels = image.shape[1:]
    batch = image.shape[0] or ops.shape(image)[0]
    columns = ops.arange(width, dtype='int32')[None]
    valid = size[:, 1:]
    source = ops.where(columns < valid, valid - 1 - columns, columns)
    rows = ops.reshape(ops.arange(batch * height, dtype='int32'), (batch, height, 1))
    return ops.take(ops.reshape(image, (-1, channels)), rows * width + source[:, None], axis=0)


def _inside(size: Any, canvas: tuple[int, int]) -> Any:
    """Bool [B, H, W]: the pixels of the images on a canvas."""
    rows, columns = (ops.arange(side, dtype='int32') < size[:, axis, None] for axis, side in enumerate(canvas))
    return rows[:, :, None] & columns[:, None, :]
