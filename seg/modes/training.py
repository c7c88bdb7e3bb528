"""Common code of the modes that train: the lock on the run's directory, the checks, the record of the settings."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import logging

from seg.modes.base import FRESH, ExperimentMode

if TYPE_CHECKING:
    from seg.engine.jax.step_cost import StepCost
    from seg.experiment import Needs
    from seg.structures import Input


class Training(ExperimentMode):
    """A mode that trains in the run's directory."""

    flags = (FRESH,)
    trains = True
    needs_train_data = True

    @property
    def fresh(self) -> bool:
        """Whether an earlier run in the directory is removed."""
        return self.call.flags['fresh']

    @abstractmethod
    def inputs(self) -> tuple[Input, ...]:
        """The training input and, if the mode evaluates, the evaluation input."""

    def evaluated(self) -> Any:
        """The data set that the mode evaluates on, None if it evaluates nothing."""
        return None

    def needs(self) -> Needs:
        return dataclasses.replace(super().needs(), fresh=self.fresh, described=bool(self.topology))

    def read_settings(self) -> Any:
        """Reads the settings of all modes that train: `operative_config.gin` and `run.json` contain them."""
        from seg import config, modes

        types = {mode.name: mode.settings_type for mode in modes.table().values() if mode.trains}
        made = {name: config.injected(name)() for name, settings_type in types.items() if settings_type}
        return made.get(self.name)

    def prepare(self) -> None:
        from seg import checks
        from seg.run import settings

        experiment, evaluated = self.experiment, self.evaluated()
        executor, task = experiment.executor, experiment.task
        continues = not self.fresh and executor.has_checkpoint()
        if continues:
            executor.check_classes()
            settings.check(self.folder)
        if evaluated is not None:
            checks.best_metric(experiment.run_config.best_metric, task.metrics(), task.evaluation_losses())
        self._inputs = self.inputs()
        if evaluated is not None:
            task.self_test(evaluated)
        if not continues:  # A resumed run has the weights of its checkpoint.
            experiment.init.apply(task.checkpoint_items)
        executor.build_trainer()

    @contextlib.contextmanager
    def ready(self, keep: bool = True) -> Iterator[None]:
        from seg.run.lock import locked

        with locked(self.folder, keep) if self.engine.chief else contextlib.nullcontext():
            with super().ready(keep):
                yield

    def validate(self) -> str:
        if not self.topology:
            return super().validate()
        costs = self.costs()
        info = self.experiment.info
        data = f'{self.topology}, {self.engine.precision}: {info.name}, {info.num_classes} classes'
        return '\n'.join([*(cost.text() for cost in costs), f'Compiled for {data}; nothing was run.'])

    def costs(self) -> list[StepCost]:
        """For `--topology`: builds everything, reads no weights, and compiles the steps."""
        from seg import config
        from seg.metrics.base import RowMetric, SumMetric

        self.build()
        experiment, engine = self.experiment, self.engine
        task, metrics = experiment.task, experiment.task.metrics()
        training, *evaluations = self.inputs()
        found = [engine.training_cost(task, experiment.optimizer, config.injected('OptimizerStep')(), training)]
        for source in evaluations:
            kinds = ([metric for metric in metrics if isinstance(metric, kind)] for kind in (SumMetric, RowMetric))
            found.append(engine.evaluation_cost(task, *kinds, source, experiment.run_config.num_pictures > 0))
        return found

    def run(self) -> dict[str, Any] | None:
        from seg.executor.agreement import together
        from seg.run import train_log
        from seg.schedules.base import describe

        with train_log.recording() as log, self.ready():
            experiment = self.experiment
            # Only after the new settings are checked, and the initial weights are found.
            with together(self.engine):
                if self.engine.chief:
                    if self.fresh:
                        self.folder.clear()
                    log.open(self.folder.log, self.call.command)
                    self._write_settings()
            batch_size, devices = experiment.run_config.batch_size, self.engine.num_devices
            logging.info('Batches of %d images = %d x %d device(s).', batch_size, batch_size // devices, devices)
            logging.info('Learning rate %s', describe(experiment.optimizer))
            results = self.execute()
            logging.info('Curves and images: tensorboard --logdir %s', self.folder.path)
            logging.info('On one page: seg_main --mode=report --model_dir=%s', self.folder.path)
            if results is not None:
                logging.info('Scores: %s', self.folder.results)
        return results

    def _write_settings(self) -> None:
        """Writes the settings, and the facts about the training data for later modes."""
        from seg import engine
        from seg.run import dataset_info, settings

        experiment, run = self.experiment, self.experiment.run_config
        settings.write(
            self.folder,
            mode=self.name,
            evaluates=self.evaluated() is not None,
            hardware=self.engine.describe(),
            batch_size=run.batch_size,
            train_steps=run.train_steps,
            best_metric=run.best_metric,
            higher_is_better=experiment.executor.higher_is_better,
            command=self.call.command,
            versions=engine.describe(),
            parts=experiment.task.checkpoint_items,
        )
        dataset_info.write(self.folder, experiment.info, experiment.class_histogram)
