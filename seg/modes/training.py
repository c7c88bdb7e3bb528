"""Common code of the modes that train: the lock on the run's directory, the checks, the record of the settings."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import logging

from seg.errors import UserError
from seg.modes.base import FRESH, ExperimentMode

if TYPE_CHECKING:
    from seg.engine.jax.step_cost import StepCost
    from seg.experiment import Needs
    from seg.run.length import Change
    from seg.structures import Input


class Training(ExperimentMode):
    """A mode that trains in the run's directory."""

    flags = (FRESH,)
    trains = True
    needs_train_data = True
    _change: Change | None = None  # Of the run's length, since its last start.

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
        return dataclasses.replace(super().needs(), fresh=self.fresh, described=self.described)

    def read_settings(self) -> Any:
        """Reads the settings of all modes that train: `operative_config.gin` and `run.json` contain them."""
        from seg import config, modes

        types = {mode.name: mode.settings_type for mode in modes.table().values() if mode.trains}
        made = {name: config.injected(name)() for name, settings_type in types.items() if settings_type}
        return made.get(self.name)

    def prepare(self) -> None:
        from seg import checks
        from seg.run import length, run_json, settings
        from seg.schedules.base import rate_at

        experiment, evaluated = self.experiment, self.evaluated()
        executor, task = experiment.executor, experiment.task
        continues = not self.fresh and executor.has_checkpoint()
        if continues:
            settings.check_task(self.folder)
            done = executor.check_classes()
            settings.check(self.folder)
            self._change = length.change(
                self.folder, done, experiment.run_config.train_steps, partial(rate_at, experiment.optimizer)
            )
            if self._change:
                logging.info('%s', self._change.text())
        if evaluated is not None:
            checks.best_metric(experiment.run_config.best_metric, task.metrics(), task.evaluation_losses())
        self._inputs = self.inputs()
        checks.image_size(task.checkpoint_items.get('backbone'), self._inputs)
        if evaluated is not None:
            task.self_test(evaluated)
        if continues:  # It has the weights of its checkpoint.
            self._init_files = run_json.read(self.folder).get('init_files', {})
        else:
            self._init_files = experiment.init.apply(task.checkpoint_items, task.class_names).files
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
        from seg.run import settings, train_log
        from seg.schedules.base import describe

        if (results := self._finished()) is not None:
            logging.info('Complete: step %d. Nothing to do; scores: %s', results['step'], self.folder.results)
            return results
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
            logging.info('Training %s.', settings.trainable(experiment.task.checkpoint_items.values()))
            results = self.execute()
            logging.info('Curves and images: tensorboard --logdir %s', self.folder.path)
            logging.info('On one page: seg_main --mode=report --model_dir=%s', self.folder.path)
            if results is not None:
                logging.info('Scores: %s', self.folder.results)
        return results

    def _finished(self) -> dict[str, Any] | None:
        """The results of the run in the directory, if it is complete and had these settings and classes.

        Reads the data sets and builds nothing. None if there is anything else to find out or to do.
        """
        from seg import config
        from seg.run import dataset_info, results, run_json

        folder = self.folder
        if self.fresh or self.engine.process.count > 1:
            return None
        try:
            with open(folder.config, encoding='utf-8') as file:
                same = file.read() == config.snapshot()
            about, found = run_json.read(folder), results.read(folder.results, '')
            before = dataset_info.read(folder)
        except (OSError, UnicodeDecodeError, UserError):
            return None
        steps = about.get('train_steps')
        if not same or found is None or about.get('mode') != self.name:
            return None
        if found['step'] != steps or folder.checkpoint_steps()[-1:] != [steps]:
            return None
        needs = dataclasses.replace(self.needs(), task=False)
        data = config.injected('experiment')(model_dir=folder.path, engine=self.engine, needs=needs)
        return found if data.info.class_names == before.class_names else None

    def _write_settings(self) -> None:
        """Writes the settings, and the facts about the training data for later modes."""
        from seg import engine
        from seg.run import dataset_info, length, settings

        experiment, run = self.experiment, self.experiment.run_config
        settings.write(
            self.folder,
            mode=self.name,
            evaluates=self.evaluated() is not None,
            hardware=self.engine.describe(),
            batch_size=run.batch_size,
            train_steps=run.train_steps,
            train_steps_changes=length.changes(self.folder, self._change),
            init_files=self._init_files,
            best_metric=run.best_metric,
            higher_is_better=experiment.executor.higher_is_better,
            command=self.call.command,
            versions=engine.describe(),
            parts=experiment.task.checkpoint_items,
        )
        dataset_info.write(self.folder, experiment.info, experiment.class_histogram)
