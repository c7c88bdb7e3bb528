"""A task and an engine in plain numpy, for one process or for several that share a run.

    python -m tests.engine.toy model_dir

trains in a process that cannot import TensorFlow or Keras, and prints the results.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

if __name__ == '__main__':
    sys.modules['tensorflow'] = sys.modules['keras'] = None

from seg.engine.base import Engine, EvaluatedBatch, LoopResult, Memory, Predictions, Predictor, Trainer
from seg.engine.optimizer_step import OptimizerStep
from seg.executor.executor import Executor
from seg.executor.run_config import RunConfig
from seg.metrics.base import RowMetric, SumMetric
from seg.structures import WHOLE, Annotations, Input, LossTerm, Share
from seg.tasks.base import Task

RATE = 0.1
_NOBODY = Annotations(1, 1, np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0), ())


class Variable:
    def __init__(self, path: str, value: np.ndarray):
        self.path, self.value = path, value

    @property
    def shape(self):
        return self.value.shape


class Layer:
    def __init__(self, *variables: Variable):
        self.variables = self.trainable_variables = list(variables)


class SquaredError(SumMetric):
    def reset(self) -> None:
        self._sum = self._count = 0.0

    def update(self, batch, predictions) -> dict[str, np.ndarray]:
        counts = batch['weight'] > 0
        return {'sum': np.sum((predictions['value'] - batch['y'])[counts] ** 2), 'count': np.sum(counts)}

    def add(self, sums) -> None:
        self._sum += float(sums['sum'])
        self._count += int(sums['count'])

    def names(self) -> list[str]:
        return ['miou', 'rows']

    def result(self) -> dict[str, float]:
        return {'miou': 1 / (1 + self._sum / self._count), 'rows': self._count}


class LargestError(RowMetric):
    def reset(self) -> None:
        self._errors = []

    def rows(self, batch, predictions) -> dict[str, np.ndarray]:
        return {'error': np.abs(predictions['value'] - batch['y'])}

    def add(self, rows, truth) -> None:
        assert len(rows['error']) == len(truth)
        self._errors += list(rows['error'])

    def names(self) -> list[str]:
        return ['largest_error', 'gathered']

    def result(self) -> dict[str, float]:
        return {'largest_error': float(max(self._errors)), 'gathered': len(self._errors)}


class Drawing:
    def draw(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def panels(self) -> None:
        return None


class Line(Task):
    """A plane through points."""

    def __init__(self):
        self.weight = Variable('weight', np.zeros(3))
        super().__init__(
            checkpoint_items={'plane': Layer(self.weight)},
            inputs=lambda: None,
            metrics=[SquaredError(), LargestError()],
            class_names=('a', 'b'),
        )

    def predict(self, batch) -> dict[str, np.ndarray]:
        return {'value': batch['x'] @ self.weight.value}

    def loss_terms(self, batch, step) -> dict[str, LossTerm]:
        square = (self.predict(batch)['value'] - batch['y']) ** 2
        return {'square': LossTerm(square, np.ones_like(square), {'large': square > 1})}

    def evaluate_batch(self, batch):
        return self.predict(batch), self.loss_terms(batch, None)

    def image_scores(self, batch, predictions) -> np.ndarray:
        return -np.abs(predictions['value'] - batch['y'])

    def figure(self, example, prediction, name, truth) -> Drawing:
        assert prediction['value'].shape == ()
        return Drawing()

    def summary(self, metrics: Mapping[str, float]) -> str:
        return f'miou {metrics["miou"]:.4f}'


def rows(count: int, batch_size: int, *, endless: bool) -> Input:
    """An input of `count` rows; the batches of an evaluation are filled up with rows of index -1."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 3))
    y = x @ [1.0, -2.0, 3.0]

    def make(start: int = 0, share: Share = WHOLE, pieces: int = 1) -> Iterator[dict[str, np.ndarray]]:
        part = slice(share.index * batch_size // share.count, (share.index + 1) * batch_size // share.count)
        step = start
        while endless or step * batch_size < count:
            index = np.arange(step * batch_size, (step + 1) * batch_size)[part]
            index = index % count if endless else np.where(index < count, index, -1)
            weight = np.float32(index >= 0)
            yield {'x': x[index], 'y': y[index], 'index': np.int32(index), 'weight': weight}
            step += 1

    return Input(make, batch_size, None if endless else count, 'rows', str, lambda index: _NOBODY)


class Team:
    """Communication between processes, which are threads here."""

    def __init__(self, count: int = 1):
        self.count = count
        self._told: list[Any] = [None] * count
        self._barrier = threading.Barrier(count, timeout=30)

    def told(self, index: int, value: Any) -> list[Any]:
        """What each process has told, once all have."""
        self._told[index] = value
        self._barrier.wait()
        values = list(self._told)
        self._barrier.wait()
        return values


class ToyEngine(Engine):
    """One process of a team. Gradients are differences; the optimizer is plain descent.

    `loops` is called with the steps of every loop before it runs.
    """

    precision, deterministic, num_devices = 'float64', True, 1

    def __init__(self, team: Team | None = None, index: int = 0, loops: Callable[[int], None] = lambda steps: None):
        self.team, self.index, self.loops = team or Team(), index, loops

    @property
    def process(self) -> Share:
        return Share(self.index, self.team.count)

    @property
    def chief(self) -> bool:
        return self.index == 0

    def agree(self, flag: bool) -> bool:
        return any(self.team.told(self.index, flag))

    def total(self, value: Any) -> Any:
        return sum(self.team.told(self.index, value))

    def joined(self, value: np.ndarray) -> np.ndarray:
        return np.concatenate(self.team.told(self.index, value))

    def scope(self):
        return contextlib.nullcontext()

    def memory(self) -> Memory:
        return Memory(used=0, limit=None)

    def trainer(self, task, optimizer, settings: OptimizerStep) -> ToyTrainer:
        return ToyTrainer(self, task)

    def evaluator(self, task, summing: Sequence[Any], by_row: Sequence[Any]):
        def evaluate(source: Input, draws: bool) -> Iterator[EvaluatedBatch]:
            for batch in source.make(share=self.process):
                predictions, terms = task.evaluate_batch(batch)
                counts = batch['weight'] > 0
                whole = [{key: self.joined(value) for key, value in each.items()} for each in (batch, predictions)]
                yield EvaluatedBatch(
                    [{k: self.total(v) for k, v in metric.update(batch, predictions).items()} for metric in summing],
                    [{k: self.joined(v) for k, v in metric.rows(batch, predictions).items()} for metric in by_row],
                    {
                        name: LossTerm(self.total(term.total[counts].sum()), self.total(term.weight[counts].sum()))
                        for name, term in terms.items()
                    },
                    whole[0]['index'],
                    whole[0]['weight'],
                    self.joined(task.image_scores(batch, predictions)) if draws else None,
                    lambda place, whole=whole: tuple({k: v[place] for k, v in each.items()} for each in whole),
                )

        return evaluate

    def predictor(self, task, checkpoint: str) -> ToyPredictor:
        return ToyPredictor(task, checkpoint)

    def set_model(self, parts: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        for part, layer in parts.items():
            for variable in layer.variables:
                variable.value = values[f'{part}/{variable.path}']

    def describe(self) -> dict[str, Any]:
        return {'precision': 'float64', 'strategy': 'toy', 'replicas': 1, 'jit_compile': False, 'deterministic': True}


class ToyTrainer(Trainer):
    averages = False

    def __init__(self, engine: ToyEngine, task: Line):
        self._engine, self._task, self._steps = engine, task, 0

    def loop(self, source: Input, start: int, traced: Callable[[int], None]) -> Callable[[int], LoopResult]:
        batches = source.make(start, share=self._engine.process)
        traced(8 * 3)

        def run(count: int) -> LoopResult:
            self._engine.loops(count)
            steps = [self._step(next(batches)) for _ in range(count)]
            stacked = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
            return LoopResult(('square',), ('large',), **stacked)

        return run

    def _step(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        weight, example = self._task.weight, batch['weight'] > 0
        term = self._task.loss_terms(batch, self._steps)['square']
        normaliser = self._engine.total(term.weight[example].sum())
        totals = np.where(example, term.total, 0) / normaliser

        def loss(point: np.ndarray) -> float:
            weight.value = point
            return (self._task.loss_terms(batch, self._steps)['square'].total[example] / normaliser).sum()

        point = weight.value
        gradient = self._engine.total(np.array([loss(point + e) - loss(point - e) for e in np.eye(3)]) / 2)
        weight.value = point - RATE * gradient
        self._steps += 1
        return {
            'losses': self._engine.total(totals.sum())[None],
            'counts': self._engine.total(term.counts['large'][example].sum())[None],
            'totals': self._engine.joined(totals)[:, None],
            'index': self._engine.joined(batch['index']),
            'weight': self._engine.joined(batch['weight']),
            'gradient_norm': np.sqrt(np.sum(gradient**2)),
            'learning_rate': np.float64(RATE),
            'wait': np.float64(np.nan),
        }

    def to_host(self) -> dict[str, np.ndarray]:
        return {'model/plane/weight': self._task.weight.value, 'optimizer/iteration': np.int64(self._steps)}

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        self._task.weight.value, self._steps = tensors['model/plane/weight'], int(tensors['optimizer/iteration'])

    def averaged(self):
        return contextlib.nullcontext()


class ToyPredictor(Predictor):
    replicas = 1

    def __init__(self, task: Line, checkpoint: str):
        self._task, self.checkpoint = task, checkpoint

    def __call__(self, batch: Mapping[str, np.ndarray]) -> ToyPredictions:
        return ToyPredictions(self._task.predict(batch))


class ToyPredictions(Predictions):
    def __init__(self, values: Mapping[str, np.ndarray]):
        self._values = values

    def get(self, key: str, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        return self._values[key][index]


def executor(model_dir: str, engine: Engine, **settings: Any) -> Executor:
    periods = {'train_steps': 8, 'iterations_per_loop': 2, 'eval_every': 4, 'save_checkpoints_steps': 4}
    config = RunConfig(model_dir=model_dir, batch_size=4, **{**periods, 'num_pictures': 1, **settings})
    return Executor(task=Line(), engine=engine, config=config, optimizer='descent')


def run(model_dir: str, engine: Engine, **settings: Any) -> dict[str, Any]:
    """Trains and evaluates. Returns the results."""
    made = executor(model_dir, engine, **settings)
    return made.train_and_evaluate(rows(12, 4, endless=True), rows(7, 4, endless=False))


if __name__ == '__main__':
    made = run(sys.argv[1], ToyEngine())
    assert sys.modules['tensorflow'] is sys.modules['keras'] is None
    print(json.dumps(made))
