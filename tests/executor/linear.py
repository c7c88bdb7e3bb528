"""A task as small as a task can be: a normalisation and a linear layer, fitted to a table of numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from PIL import Image

from seg.datasets.base import Dataset
from seg.engine.optimizer_step import OptimizerStep
from seg.executor.executor import Executor
from seg.executor.run_config import RunConfig
from seg.inputs import pipeline
from seg.layers.norm import BatchNorm
from seg.metrics.base import SumMetric
from seg.structures import DatasetInfo, ImageSummary, Input, LossTerm
from seg.tasks.base import Task
from tests.executor import runs

MOMENTUM, EPSILON = 0.5, 1e-3


class Table(Dataset):
    """A data set of rows `x` [3] and targets `y`. `broken` rows are cut-off JPEG files; `nan` rows have the target NaN;
    at `steep` rows the loss is finite and its gradient is not."""

    def __init__(
        self,
        count: int = 12,
        *,
        split: str = 'train',
        broken: Sequence[int] = (),
        nan: Sequence[int] = (),
        steep: Sequence[int] = (),
    ):
        self.info = DatasetInfo(f'table/{split}', ('a', 'b'), count, (1, 1))
        random = np.random.default_rng(1)
        self.x = random.normal(size=(count, 3))
        self.y = self.x @ [1.0, -2.0, 3.0] + 0.5
        self.y[list(nan)] = np.nan
        self.steep = np.isin(np.arange(count), steep).astype(np.float64)
        content = io.BytesIO()
        Image.new('RGB', (64, 64)).save(content, 'JPEG')
        whole = content.getvalue()
        self._files = [whole[:100] if i in broken else whole for i in range(count)]

    def load(self, index):
        pixels = tf.io.decode_jpeg(tf.gather(self._files, index))
        x = tf.gather(self.x, index) + 0.0 * tf.cast(pixels[0, 0, 0], tf.float64)
        return {'x': x, 'y': tf.gather(self.y, index), 'steep': tf.gather(self.steep, index)}

    def image_name(self, index: int) -> str:
        return f'row-{index}'


class Score(SumMetric):
    """`miou`: 1 / (1 + mean squared error), or what `scores` says, one evaluation after the other."""

    def __init__(self, scores: Sequence[float] = ()):
        self._scores = list(scores)
        self.reset()

    def reset(self) -> None:
        self._error = self._count = 0.0

    def update(self, batch, predictions):
        counts = batch['weight'] > 0
        error = ops.where(counts, ops.square(predictions['value'] - batch['y']), 0)
        return {'error': ops.sum(error), 'count': ops.sum(ops.cast(counts, 'int32'))}

    def add(self, values) -> None:
        self._error += float(values['error'])
        self._count += int(values['count'])

    def result(self) -> dict[str, float]:
        score = self._scores.pop(0) if self._scores else 1 / (1 + self._error / self._count)
        return {'miou': score, 'iou/a': score, 'pixels': self._count}

    def names(self) -> list[str]:
        return ['miou', 'iou/a', 'pixels']

    def charts(self):
        return [ImageSummary('chart', np.full((5, 4, 3), 9, np.uint8))]

    def details(self):
        return {'counts': {'rows': self._count}}


class Drawing:
    """An image as high as the number of its row, plus one."""

    def __init__(self, row: int):
        self._row = row

    def draw(self):
        return np.full((1 + self._row, 3, 3), 7, np.uint8)

    def panels(self):
        return None


class Linear(Task):
    """The task; float64 throughout."""

    def __init__(self, scores: Sequence[float] = ()):
        keras.utils.set_random_seed(0)
        layers = [
            keras.Input((1, 1, 3), dtype='float64'),
            BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name='norm'),
            keras.layers.Dense(1, name='dense'),
        ]
        self.net = keras.Sequential(layers, name='net')
        super().__init__(
            checkpoint_items={'net': self.net}, inputs=lambda: None, metrics=[Score(scores)], class_names=('a', 'b')
        )

    def value(self, batch, training: bool):
        return self.net(batch['x'][:, None, None], training=training)[:, 0, 0, 0]

    def loss_terms(self, batch, step) -> dict[str, LossTerm]:
        value = self.value(batch, True)
        square = ops.square(value - batch['y'])
        steep = batch['steep'] > 0
        root = ops.where(steep, ops.sqrt(ops.where(steep, 0 * value, 1.0)), 0)
        return {
            'square': LossTerm(square + root, ops.ones_like(square)),
            'absolute': LossTerm(0.1 * ops.abs(value - batch['y']), 2 * ops.ones_like(square)),
        }

    def evaluate_batch(self, batch):
        value = self.value(batch, False)
        return {'value': value}, {'square': LossTerm(ops.square(value - batch['y']), ops.ones_like(value))}

    def predict(self, batch):
        return {'value': self.value(batch, False)}

    def image_scores(self, batch, predictions):
        return -ops.abs(predictions['value'] - batch['y'])

    def figure(self, example, prediction, name, truth):
        return Drawing(int(name.removeprefix('row-')))

    def summary(self, metrics) -> str:
        return f'miou {metrics["miou"]:.4f}'


def training_input(table: Table, batch_size: int = 4, seed: int = 0) -> Input:
    return pipeline.training_input(table, lambda example, seed: example, {}, batch_size, seed)


def evaluation_input(table: Table, batch_size: int = 4) -> Input:
    return pipeline.evaluation_input(table, lambda example, seed: example, {}, batch_size)


def executor(model_dir, *, scores=(), step: OptimizerStep | None = None, rate: float = 0.05, **settings) -> Executor:
    """An executor of this task, as a new process would make it."""
    defaults = dict(
        train_steps=10,
        batch_size=4,
        iterations_per_loop=2,
        eval_every=4,
        save_checkpoints_steps=2,
        keep_checkpoint_max=20,
    )
    engine = runs.one_device('float64')
    with engine.scope():
        task, optimizer = Linear(scores), keras.optimizers.SGD(rate, momentum=0.9, name='sgd')
    return Executor(
        task=task,
        engine=engine,
        config=RunConfig(model_dir=str(model_dir), **defaults | settings),
        optimizer=optimizer,
        step=step,
        config_text=lambda: '    rate = 0.05',
    )
