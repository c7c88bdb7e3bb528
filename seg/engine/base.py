"""The contract of engines, the only objects that handle devices. The executor's loop runs on any of them.

The device code of a task and its metrics is pure and in `keras.ops`; an engine traces it, and adds gradients, the
optimizer's step and the communication between devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError, shown
from seg.structures import Input, LossTerm, Share

HostBatch = Mapping[str, np.ndarray]


class LoopResult(NamedTuple):
    """The results of n steps for the host, equal in every process: names, and numpy arrays with a leading [n].

    Attributes:
      terms: names of the T losses; the last is the L2 penalty if there is one.
      counted: names of the C counts.
      losses: [n, T], over the global batch.
      counts: [n, C], summed over the global batch.
      totals: [n, B, T], each image's contribution to the losses, without the L2 penalty.
      index: [n, B], positions in the data set of the global batch.
      weight: [n, B], 0 for images that could not be read.
      gradient_norm: [n], over all variables, before clipping.
      learning_rate: [n].
      wait: [n] seconds spent waiting for the batch; NaN if the engine measures no time.
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


def joined(results: Sequence[LoopResult]) -> LoopResult:
    """The results of loops that follow each other as those of one loop."""
    names = [name for name in LoopResult._fields if name not in ('terms', 'counted')]
    return results[0]._replace(**{name: np.concatenate([getattr(each, name) for each in results]) for name in names})


class EvaluatedBatch(NamedTuple):
    """One batch of an evaluation, on the host except what `example` fetches; equal in every process.

    Attributes:
      sums: for each `SumMetric`, the result of `update`, summed over the global batch.
      rows: for each `RowMetric`, the result of `rows`, [B, …] each.
      losses: by name, summed over the images of the global batch that count.
      index: [B] int32, positions in the data set; -1 for padding.
      weight: [B] float32, 0 for padding and images that could not be read.
      scores: [B] of the task's `image_scores`; None if nothing is drawn.
      example: function from the index of a row to that row of the batch and of its predictions, copied to the host. All
        processes request the same rows in the same order.
    """

    sums: list[dict[str, np.ndarray]]
    rows: list[dict[str, np.ndarray]]
    losses: dict[str, LossTerm]
    index: np.ndarray
    weight: np.ndarray
    scores: np.ndarray | None
    example: Callable[[int], tuple[HostBatch, HostBatch]]


class Memory(NamedTuple):
    """Bytes of memory.

    Attributes:
      used: by this process.
      limit: at most for this process; None if unknown.
    """

    used: int
    limit: int | None


class Predictions(Protocol):
    """The predictions of a batch, on the devices."""

    def get(self, key: str, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Copies the prediction for one image to the host.

        Args:
          key: name of the prediction, such as `classes`.
          index: index of the image in the global batch.
          size: (height, width) of the upper left part of a map; None for all of it.
        """
        ...


class Predictor(Protocol):
    """A task's `predict` on global batches of one shape, made by the host.

    Attributes:
      checkpoint: path of the file with the weights.
      replicas: number of replicas; a batch must divide among them.
    """

    checkpoint: str
    replicas: int

    def __call__(self, batch: HostBatch) -> Predictions:
        """Predicts. The devices may still be computing on return."""
        ...


class Trainer(Protocol):
    """The state of a training (variables, optimizer with the step, averages), and its steps."""

    averages: bool  # Whether moving averages are kept.

    def loop(self, source: Input, start: int, traced: Callable[[int], None]) -> Callable[[int], LoopResult]:
        """Returns a function that runs n steps on the device and waits for them, with input from step `start` on.

        `traced` is called within the first call, when tracing is done and steps are about to run, with the bytes that
        the training will take on the devices of this process, about, besides those in use.
        """
        ...

    def to_host(self) -> dict[str, np.ndarray]:
        """Returns all variables by their names in checkpoints, which all engines share. All processes call it together.

        Names are `model/<part>/<variable path>`, `ema/…` likewise, and `optimizer/…` as in `seg.engine.variables`.
        """
        ...

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        """Sets all variables.

        Raises:
          UserError: naming `place`, if a name is missing or unknown, or a shape differs.
        """
        ...

    def averaged(self) -> AbstractContextManager[None]:
        """Context in which the model has the averaged weights, if averages are kept."""
        ...


class Engine(Protocol):
    """Made by `seg.engine.set_up` before any layer exists.

    Several processes may share a run. All make the same calls in the same order, and get the same numbers.

    Attributes:
      precision: `float32`, `bfloat16` (float32 variables), or `float64` in tests.
      deterministic: whether the same seed gives bit-equal results.
      num_devices: number of devices; a global batch must divide among them.
      process: the rows of every global batch that this process makes.
      chief: whether this is the process with index 0, the only one that writes to `model_dir`.
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
        """Returns whether any process passes True; waits until all have called it.

        All call it at the same places, so that they stop at the same step. It is a barrier: work of one process before
        the call is complete for the others after it.
        """
        ...

    def memory(self) -> Memory:
        """The memory of the devices of this process."""
        ...

    def scope(self) -> AbstractContextManager[Any]:
        """Context in which layers and optimizers are made."""
        ...

    def trainer(self, task, optimizer, settings: OptimizerStep) -> Trainer:
        """Makes the optimizer's state and the averages from the current weights of the model."""
        ...

    def evaluator(
        self, task, summing: Sequence[Any], by_row: Sequence[Any]
    ) -> Callable[[Input, bool], Iterator[EvaluatedBatch]]:
        """Returns a function that evaluates an input batch by batch, and rates its images for drawing. Traced once.

        Args:
          task: the task to evaluate.
          summing: metrics of the kind `SumMetric`.
          by_row: metrics of the kind `RowMetric`.
        """
        ...

    def predictor(self, task, checkpoint: str) -> Predictor:
        """Returns a predictor with the current weights of the model, which are from `checkpoint`. Traced once."""
        ...

    def set_model(self, parts: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        """Sets the variables of Keras layers, given by name, to values by `<part>/<variable path>`."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns `precision`, `strategy`, `replicas`, `jit_compile` and `deterministic`, for `run.json`."""
        ...


def checked_terms(task, terms: Any) -> dict[str, LossTerm]:
    """Returns the result of a task's `loss_terms`, after a check.

    Raises:
      UserError: if it is not a dict of `LossTerm`s by name.
    """
    if isinstance(terms, Mapping) and terms and all(isinstance(term, LossTerm) for term in terms.values()):
        return dict(terms)
    own = f'{type(task).__module__}.{type(task).__name__}'
    raise UserError(
        f'{own}.loss_terms returned {shown(terms)}; expected a dict of LossTerm by name, with at least one entry.'
    )
