"""What an engine is: the one object that knows devices. The executor's loop runs on any of them.

What a task and its metrics compute on the device is pure and in `keras.ops`; an engine traces it, and adds gradients,
the optimizer's step and what several devices have to agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from seg.engine.optimizer_step import OptimizerStep
from seg.structures import Input, LossTerm, Share

HostBatch = Mapping[str, np.ndarray]


class LoopResult(NamedTuple):
    """What the host learns of n steps, the same in every process: names, and numpy arrays with a leading [n].

    Attributes:
      terms: names of the T losses, the L2 penalty the last where there is one.
      counted: names of the C counts.
      losses: [n, T], over the global batch.
      counts: [n, C], summed over the global batch.
      totals: [n, B, T], each image's share of the losses; the L2 penalty has no share.
      index: [n, B], positions in the data set of the global batch.
      weight: [n, B], 0 for images that could not be read.
      gradient_norm: [n], over all variables, before clipping.
      learning_rate: [n].
      wait: [n] seconds spent waiting for the batch; NaN where the engine knows no clock.
    """

    terms: tuple[str, ...]
    counted: tuple[str, ...]
    losses: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    gradient_norm: np.ndarray
    learning_rate: np.ndarray
    wait: np.ndarray


class EvaluatedBatch(NamedTuple):
    """One batch of an evaluation, on the host but for what `example` fetches; the same in every process.

    Attributes:
      sums: of each `SumMetric`, what its `update` returned, summed over the global batch.
      rows: of each `RowMetric`, what its `rows` returned, [B, …] each.
      losses: by name, sums over the images of the global batch that count.
      index: [B] int32, positions in the data set; -1 for padding.
      weight: [B] float32, 0 for padding and images that could not be read.
      scores: [B] of the task's `image_scores`; None where nothing is drawn.
      example: copies one row of the batch and of its predictions to the host, by its place. All processes ask for the
        same rows in the same order.
    """

    sums: list[dict[str, np.ndarray]]
    rows: list[dict[str, np.ndarray]]
    losses: dict[str, LossTerm]
    index: np.ndarray
    weight: np.ndarray
    scores: np.ndarray | None
    example: Callable[[int], tuple[HostBatch, HostBatch]]


class Predictions(Protocol):
    """The predictions of a batch, on the devices."""

    def get(self, key: str, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Copies what was predicted for one image to the host.

        Args:
          key: of the prediction, such as `classes`.
          index: of the image in the global batch.
          size: (height, width) of the upper left part of a map; None for the whole of it, whatever its shape.
        """
        ...


class Predictor(Protocol):
    """A task's `predict` on global batches that the host makes, of one shape.

    Attributes:
      checkpoint: path of the file that the weights are from.
      replicas: among which a batch has to divide.
    """

    checkpoint: str
    replicas: int

    def __call__(self, batch: HostBatch) -> Predictions:
        """Predicts. The devices may still be at it on return."""
        ...


class Trainer(Protocol):
    """The state of a training (variables, optimizer with the step, averages), and its steps."""

    averages: bool  # Whether moving averages are kept.

    def loop(self, source: Input, start: int, traced: Callable[[], None]) -> Callable[[int], LoopResult]:
        """What runs n steps on the device and waits for them, with input from step `start` on.

        `traced` is called within the first call, once no step is far.
        """
        ...

    def to_host(self) -> dict[str, np.ndarray]:
        """Every variable by its name in the checkpoint, the same for all engines. All processes call it together.

        Names are `model/<part>/<variable path>`, `ema/…` likewise, and `optimizer/<position>`, or
        `optimizer/<slots>/<position>` for an optimizer that names the kind of its `slots`.
        """
        ...

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        """Sets every variable.

        Raises:
          UserError: which names `place`, if a name is missing or too many, or a shape differs.
        """
        ...

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the averaged weights (where averages are kept)."""
        ...


class Engine(Protocol):
    """Made by `seg.engine.set_up` before any layer exists.

    Several processes may share a run. All make the same calls in the same order, and learn the same numbers.

    Attributes:
      precision: `float32`, `bfloat16` (float32 variables), or `float64` in tests.
      deterministic: whether the same seed gives the same numbers, bit for bit.
      num_devices: among which a global batch has to divide.
      process: which rows of every global batch this process makes.
      chief: whether this is the process that writes files (the one with index 0): no other one writes to `model_dir`.
    """

    precision: str
    deterministic: bool

    @property
    def num_devices(self) -> int: ...

    @property
    def process(self) -> Share: ...

    @property
    def chief(self) -> bool: ...

    def agree(self, flag: bool) -> bool:
        """Whether any process says so; waits until all have spoken.

        All ask at the same places, so that they stop at one step, and what one does before it is done for the others
        after it.
        """
        ...

    def scope(self) -> AbstractContextManager[Any]:
        """Where layers and optimizers are made."""
        ...

    def trainer(self, task, optimizer, settings: OptimizerStep) -> Trainer:
        """Makes the optimizer's state and the averages, from the weights that the model has now."""
        ...

    def evaluator(
        self, task, summing: Sequence[Any], by_row: Sequence[Any]
    ) -> Callable[[Input, bool], Iterator[EvaluatedBatch]]:
        """What evaluates an input batch by batch, and rates its images if they are to be drawn. Traced once.

        Args:
          task: what is evaluated.
          summing: metrics of the kind `SumMetric`.
          by_row: metrics of the kind `RowMetric`.
        """
        ...

    def predictor(self, task, checkpoint: str) -> Predictor:
        """What predicts with the weights that the model has now, which are from `checkpoint`. Traced once."""
        ...

    def set_model(self, parts: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        """Sets the variables of Keras layers, given by name, to values by `<part>/<variable path>`."""
        ...

    def describe(self) -> dict[str, Any]:
        """For `run.json`: `precision`, `strategy`, `replicas`, `jit_compile` and `deterministic`."""
        ...
