"""The work of `--mode=plan` that needs a framework. Each function runs in a process of its own, which it may fill."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from seg import log_level
from seg.modes.base import Call
from seg.modes.train import Train
from seg.planner.estimate import Facts, Measured

if TYPE_CHECKING:
    from seg.engine.base import Engine
    from seg.experiment import Experiment, Needs

_UNOPTIMIZED = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
_IMAGES = 2  # Of the program that is compiled for the CPU: norm = 'sync' needs two values.
_DRAWN = 8  # Images of the input that are timed, at least.
_SECONDS, _STEPS = 15.0, 24  # Measured steps end after this time or number.


class Settings(NamedTuple):
    """What the user gave: gin files, single bindings, plugins, and `--precision`."""

    gin_files: Sequence[str]
    gin_params: Sequence[str]
    plugin_specs: Sequence[str]
    precision: str


class Known(NamedTuple):
    """What a process learns of the settings.

    Attributes:
      facts: of the training.
      config: the settings as a run stores them.
      processor: name and number of the cores of this machine.
    """

    facts: Facts
    config: str
    processor: tuple[str, int]


class Step(NamedTuple):
    """A compiled step of `images` images on each of `devices`; the rest as in `seg.engine.jax.step_cost`."""

    images: int
    flops: float
    bytes: float
    memory: float
    limit: float | None
    largest: int
    fixed: float
    loops: bool


class _Step(Train):
    """A training of which at most a few steps run. Descriptions of data sets will do.

    Attributes:
      batch: global batch size; None for that of the settings.
    """

    batch: int | None = None

    def needs(self) -> Needs:
        changes = {} if self.batch is None else {'batch_size': self.batch}
        return dataclasses.replace(super().needs(), run_changes=changes)

    @property
    def described(self) -> bool:
        return True

    def build(self) -> Experiment:
        experiment = super().build()
        if self.topology:  # All schedules cost the same, so recipes that differ in them share a compilation.
            experiment.optimizer._learning_rate = 0.01
        return experiment


def known(settings: Settings) -> Known:
    """Builds the training on one device of this machine and times its input."""
    with _training(settings, strategy='one') as mode:
        from seg import config, engine
        from seg.schedules.base import Schedule, rate_at

        experiment = mode.build()
        run = experiment.run_config
        optimizer = experiment.optimizer
        schedule = optimizer._learning_rate
        variables = [v for layer in experiment.task.checkpoint_items.values() for v in layer.trainable_variables]
        (training,) = mode.inputs()
        facts = Facts(
            batch=run.batch_size,
            steps=run.train_steps,
            rate=schedule.peak if isinstance(schedule, Schedule) else rate_at(optimizer, 0),
            exchanged=4.0 * sum(math.prod(v.shape) for v in variables),
            input_seconds=_input_seconds(training),
        )
        about = engine.describe()
        return Known(facts, config.snapshot(), (about['processor'], about['cpu_cores']))


def compiled(settings: Settings, topology: str, devices: int, images: int) -> Step:
    """Compiles the step for a slice of TPUs, with a number of images on each device, or reads it from the cache."""
    with _training(settings, topology, images * devices) as mode:
        (cost,) = mode.costs()
    return _step(cost, images)


def on_the_cpu(settings: Settings) -> Step:
    """Compiles the step in float32 for one CPU, which stands for devices that XLA cannot compile for here.

    The program does not run, so LLVM need not optimize it, which would take most of the time.
    """
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_UNOPTIMIZED}'
    chosen = settings._replace(precision='float32')
    with _training(chosen, 'cpu', _IMAGES) as mode:
        (cost,) = mode.costs()
    return _step(cost, _IMAGES)


def measured(settings: Settings) -> tuple[Measured, str]:
    """Runs a few steps with the engine of this machine. Returns also the precision."""
    with _training(settings) as mode:
        from seg import config
        from seg.datasets.described import Described
        from seg.engine import machine

        experiment = mode.build()
        (training,) = mode.inputs()
        step = config.injected('OptimizerStep')()
        loop = mode.engine.trainer(experiment.task, experiment.optimizer, step).loop(training, 0)
        seconds = _timed(loop)
        blank = isinstance(experiment.train_data, Described)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found = Measured(seconds, peak, machine.memory().limit / 2**30, 'on blank images' if blank else '')
        return found, mode.engine.precision


def _timed(loop: Callable[[int], Any]) -> float:
    """Seconds of a step: the median of loops, without the compilation and a first loop."""
    loop(1)
    begin = time.perf_counter()
    loop(2)
    rough = (time.perf_counter() - begin) / 2
    steps = max(1, min(4, round(1 / rough)))
    found: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(found) < 3 or (time.perf_counter() < end and len(found) * steps < _STEPS):
        begin = time.perf_counter()
        loop(steps)
        found.append((time.perf_counter() - begin) / steps)
    return statistics.median(found)


def _input_seconds(source: Any) -> float:
    """Seconds of one core for one image of the input."""
    batches = source.make().as_numpy_iterator()
    next(batches)
    begin, drawn = time.process_time(), 0
    while drawn < _DRAWN:
        next(batches)
        drawn += source.batch_size
    return (time.process_time() - begin) / drawn


def _step(cost: Any, images: int) -> Step:
    program = cost.program
    return Step(
        images=images,
        flops=program.flops,
        bytes=program.bytes_accessed,
        memory=program.memory,
        limit=program.limit,
        largest=(cost.largest or 0) // cost.devices,
        fixed=cost.fixed,
        loops=program.loops > 0,
    )


@contextlib.contextmanager
def _training(
    settings: Settings, topology: str = '', batch: int | None = None, strategy: str = 'auto'
) -> Iterator[_Step]:
    """Context with the training of the settings, whose parts `build` makes. A mistake in them names its place.

    Args:
      settings: what the user gave.
      topology: what to compile for; empty for the devices of this machine.
      batch: global batch size; None for that of the settings.
      strategy: as for `seg.engine.set_up`.
    """
    from seg import engine as engines
    from seg import modes

    def started() -> Engine:
        with log_level.quiet_start():
            return engines.set_up(strategy, settings.precision, topology=topology)

    with modes.with_origin():
        mode = _Step(
            Call(
                model_dir=None,
                flags={'topology': topology, 'fresh': False},
                engine=started,
                gin_files=settings.gin_files,
                gin_params=settings.gin_params,
                plugin_specs=settings.plugin_specs,
            )
        )
        mode.batch = batch
        yield mode
