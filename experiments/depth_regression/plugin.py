"""Depth from one image: data set, head, loss, metric and task. Loaded by `import experiments.depth_regression.plugin`.

The model is DeepLab v3+ with a single output channel. Depths are in metres; 0 means unknown.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from PIL import Image

from seg.datasets.base import Dataset
from seg.drawing import PlainFigure
from seg.inputs.images import ImageInputs
from seg.inputs.maps import MapRows
from seg.metrics.base import SumMetric
from seg.prediction.canvas import OneCanvas, upscaled
from seg.prediction.outputs import Outputs, encoded
from seg.registry import datasets, heads, losses, metrics, models, tasks
from seg.structures import DatasetInfo, LossTerm
from seg.tasks.base import Task
from seg.tasks.references import TRIAL_IMAGES, build_losses, build_metrics


@datasets.register('balls', target='depth')
class Balls(Dataset):
    """Drawn balls above a floor, lit from the camera, so that farther surfaces are darker. Needs no files.

    Args:
      split: 'train' or 'val'; their scenes differ.
      num_examples: number of scenes.
      size: (height, width) in pixels.
    """

    def __init__(self, *, split: str = 'train', num_examples: int = 64, size: tuple[int, int] = (64, 64)):
        self.info = DatasetInfo(f'balls/{split}', (), num_examples, tuple(size))
        self._key = 0 if split == 'train' else 1

    def image_name(self, index: int) -> str:
        return f'scene-{index:04d}'

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws a scene: `image` uint8 [H, W, 3] and `depth` float32 [H, W]."""
        height, width = self.info.max_size
        seed = tf.stack([tf.cast(index, tf.int32), self._key])
        y = tf.linspace(0.0, 1.0, height)[:, None]
        x = tf.linspace(0.0, 1.0, width)[None]
        depth = tf.tile(4.0 - 2.0 * y, (1, width))
        for ball in tf.unstack(tf.random.stateless_uniform((4, 4), seed)):
            radius = 0.1 + 0.2 * ball[2]
            bulge = 1 - ((y - ball[0]) ** 2 + (x - ball[1]) ** 2) / radius**2
            surface = 1.0 + 2.0 * ball[3] - radius * tf.sqrt(tf.maximum(bulge, 0.0))
            depth = tf.where(bulge > 0, tf.minimum(depth, surface), depth)
        noise = tf.random.stateless_normal((height, width, 3), seed, stddev=3.0)
        image = 230.0 / (0.4 + 0.6 * depth[..., None]) + noise
        return {'image': tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8), 'depth': depth}


@heads.register('depth')
def depth(*, start: float = 2.0) -> keras.layers.Layer:
    """Depth by one 1x1 convolution: a layer from [B, h, w, C] to [B, h, w, 1], in metres.

    Args:
      start: depth in metres that an untrained head returns everywhere.
    """
    return DepthHead(1, 1, bias_initializer=keras.initializers.Constant(start), dtype='float32', name='depth_head')


class DepthHead(keras.layers.Conv2D):
    """A convolution that is called like a head."""

    def call(self, x, seed=None, training=False):
        return super().call(x)


@losses.register('absolute_error', target='depth')
def absolute_error(*, weight: float = 1.0):
    """Absolute error in metres: the mean over the pixels of known depth.

    Args:
      weight: coefficient of this loss in the sum of losses.
    """

    def loss(outputs, batch, step):
        error, pixels = summed_error(outputs, batch)
        return LossTerm(weight * error, pixels)

    return loss


def summed_error(outputs, batch):
    """Absolute error of the pixels of known depth, and their number, [B] each."""
    known = ops.cast(batch['depth'] > 0, 'float32')
    error = known * ops.abs(ops.cast(outputs['depth'], 'float32') - batch['depth'])
    return ops.sum(error, (1, 2)), ops.sum(known, (1, 2))


@metrics.register('depth_error', target='depth')
class DepthError(SumMetric):
    """`rmse`, the root of the mean squared error in metres, and `delta1`, the fraction of errors below 25 %."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self._sums = np.zeros(3)

    def names(self) -> list[str]:
        return ['rmse', 'delta1']

    def higher_is_better(self, name: str) -> bool:
        return name != 'rmse'

    def update(self, batch, predictions):
        true, found = batch['depth'], ops.cast(predictions['depth'], 'float32')
        known = ops.cast((true > 0) & (batch['weight'] > 0)[:, None, None], 'float32')
        near = ops.cast(ops.maximum(found / ops.maximum(true, 1e-3), true / ops.maximum(found, 1e-3)) < 1.25, 'float32')
        return {'sums': ops.stack([ops.sum(known * part) for part in (ops.square(found - true), near, 1.0)])}

    def add(self, sums) -> None:
        self._sums += sums['sums']

    def result(self) -> dict[str, float]:
        square, near, pixels = self._sums
        return {'rmse': float(np.sqrt(square / pixels)), 'delta1': float(near / pixels)}


@tasks.register('depth', target='depth', free=('metrics',))
class Depth(Task):
    """Depth of every pixel, with any model that returns one channel of logits.

    Args:
      dataset_info: supplied.
      seed: supplied.
      model, losses, metrics: references.
    """

    def __init__(self, *, dataset_info: DatasetInfo, seed: int = 0, model, losses, metrics):
        self._model = models.build(model, 'tasks.depth.model', num_classes=1)
        self._losses = build_losses(losses, 'tasks.depth.losses', 'depth', self._loss_trial)
        inputs = lambda: ImageInputs(  # noqa: E731
            MapRows('depth', 'depth', 0.0), augments=(), slot='tasks.depth.augments', ignore_label=0, seed=seed,
            stride=self._model.output_stride, train_stride=1,
        )  # fmt: skip
        scores = build_metrics(metrics, 'tasks.depth.metrics', 'depth', lambda: self._loss_trial()[1::-1])
        super().__init__(checkpoint_items=self._model.parts, inputs=inputs, metrics=scores)

    def _loss_trial(self):
        """Symbolic outputs, batch and step, for the checks of losses and metrics."""
        depth, weight = keras.KerasTensor((TRIAL_IMAGES, 8, 8)), keras.KerasTensor((TRIAL_IMAGES,))
        return {'depth': depth}, {'depth': depth, 'weight': weight}, keras.KerasTensor((), 'int32')

    def _outputs(self, batch, training):
        given = {key: batch[key] for key in ('image', 'size', 'seed') if key in batch}
        return {'depth': self._model(given, training=training)['logits'][..., 0]}

    def loss_terms(self, batch, step):
        outputs = self._outputs(batch, True)
        return {name: loss(outputs, batch, step) for name, loss in self._losses.items()}

    def predict(self, batch):
        return self._outputs(batch, False)

    def image_scores(self, batch, predictions):
        error, pixels = summed_error(predictions, batch)
        return -error / ops.maximum(pixels, 1)

    def figure(self, example, prediction, name, truth):
        height, width = example['size']
        parts = example['image'], example['depth'], prediction['depth']
        image, true, found = (part[:height, :width] for part in parts)
        near = {'depth': 255 - 60 * true, 'prediction': 255 - 60 * found}  # Bright; 4 m are nearly black.
        error = np.abs(found - true)
        return PlainFigure(name, f'mean error {error.mean():.2f} m', {'image': image, **near, 'error': 255 * error})

    def writer(self, folder, info, settings, probabilities):
        return DepthMaps(folder, info)


class DepthMaps(Outputs):
    """Writes the depth of each image as a PNG of 16 bits, in millimetres, at the image's own size."""

    def plan(self, image, canvas):
        return OneCanvas(image, canvas, ('depth',))

    def prediction_bytes(self, size, canvas):
        return 16 * size[0] * size[1]

    def write(self, source, pixels, prediction):
        bands = upscaled(np.float32(prediction['depth'])[..., None], pixels.shape[:2])
        depth = np.concatenate([band for _, band in bands])[..., 0]
        with self.file(f'{source.name}.png') as file:
            file.write(encoded(Image.fromarray(np.uint16(np.clip(1000 * depth, 0, 65535))), 'PNG'))
        return {'mean_depth': round(float(depth.mean()), 3)}
