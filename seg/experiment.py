"""The root of the settings: builds the parts of a run in a fixed order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from absl import logging

from seg import checks, config, registry
from seg.datasets import contract, findings, overlap
from seg.datasets.base import Dataset
from seg.datasets.described import Described
from seg.drawing.palette import class_palette, instance_palette, with_colors
from seg.engine.base import Engine
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError
from seg.executor.executor import Executor
from seg.executor.run_config import RunConfig
from seg.run import dataset_info
from seg.run.folder import RunFolder
from seg.structures import ClassHistogram, DatasetInfo
from seg.tasks.base import Task
from seg.weights.warm_start import Init


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """The parts that a mode needs.

    Attributes:
      trains: whether the mode trains; then an optimizer is built.
      train_data: whether the training data are read. Otherwise the classes are those of the run in model_dir.
      eval_data: whether the evaluation data are read.
      fresh: whether an earlier run in model_dir is ignored.
      described: whether data sets without files will do (`seg.datasets.described`).
      inspected: whether the data sets are built to be checked: they are not verified, and one that cannot be read is
        None, with its error in `Experiment.unreadable`. If none can be read, nothing else is built.
      task: whether the task is built, with all that belongs to it; otherwise the data sets are read, and nothing else.
      select: function from the training data to the part in use, such as the first images; None for all.
      run_changes: values of `RunConfig` that the mode sets.
    """

    trains: bool = False
    train_data: bool = False
    eval_data: bool = False
    fresh: bool = False
    described: bool = False
    inspected: bool = False
    task: bool = True
    select: Callable[[Dataset], Dataset] | None = None
    run_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Experiment:
    """The root of the settings: task, data and optimizer; all other parts are settings of these.

    Attributes:
      folder: the run's directory.
      run_config: length, batch sizes and periods.
      train_data: the training data; None if the mode does not need them.
      eval_data: the evaluation data; None if the mode does not need them.
      unreadable: errors of data sets that cannot be read, by setting; only if they are inspected.
      info: facts about the training data, for the task.
      target: what the task learns from.
      task: the task.
      optimizer: the Keras optimizer; None if the mode does not train.
      init: the weights that a new run starts from.
      executor: trains, evaluates and predicts.
      class_histogram: pixels of each class in the training data; None if nothing needed them.
    """

    def __init__(
        self, *, model_dir: str, engine: Engine, needs: Needs, task, train_data, eval_data, optimizer, class_colors=None
    ):
        """Builds what a mode needs.

        Args:
          model_dir: supplied; the run's directory.
          engine: supplied; devices and precision.
          needs: supplied; what is built.
          task: reference to a task.
          train_data: reference to the data set for training.
          eval_data: reference to the data set for evaluation.
          optimizer: reference to an optimizer.
          class_colors: colours of classes in all figures, predictions and reports, a dict such as
            `{'sky': '#4682b4', 'road': (128, 64, 128)}`. Other classes keep the colours of the data set. None for
            those of the data set, or distinct ones.

        Raises:
          UserError: for mistakes in the settings or the data.
        """
        self.folder, self._needs = RunFolder(model_dir), needs
        self.run_config = self._read_run_config(engine)
        keras.utils.set_random_seed(self.run_config.seed)
        self._task_factory = registry.tasks.check(task, 'experiment.task')
        self._train_factory = registry.datasets.check(train_data, 'experiment.train_data')
        self._eval_factory = registry.datasets.check(eval_data, 'experiment.eval_data')
        for factory in (self._train_factory, self._eval_factory):
            factory.expect_target(self._task_factory.entry.target)
        self.target = self._task_factory.entry.target
        self._full_train_data: Dataset | None = None
        self.unreadable: dict[str, UserError] = {}
        self._read_data()
        self.class_histogram: ClassHistogram | None = None
        self.task = None
        if needs.inspected and self.train_data is None and self.eval_data is None:
            return
        self.info = self._read_info(class_colors)
        if not needs.task:
            return
        logging.info('Building the model.')
        with engine.scope():
            self.task = self._task_factory.make(
                Task,
                dataset_info=self.info,
                seed=self.run_config.seed,
                class_histogram=self._equal_classes if needs.inspected else self._count_classes,
            )
            self.optimizer = self._build_optimizer(optimizer) if needs.trains else None
        if needs.trains:  # Reports mistakes in the augmentations, and marks their settings as used.
            _ = self.task.inputs
        self.init: Init = config.injected('init')()
        self.executor = Executor(
            task=self.task,
            engine=engine,
            config=self.run_config,
            optimizer=self.optimizer,
            step=config.injected('OptimizerStep')(),
            config_text=lambda: config.markdown(config.operative()),
        )

    def _read_run_config(self, engine: Engine) -> RunConfig:
        run = config.injected('RunConfig')(model_dir=self.folder.path)
        run = dataclasses.replace(run, **self._needs.run_changes)
        if self._needs.trains:
            run.per_replica(run.batch_size, engine.num_devices, 'batch_size')
        if self._needs.eval_data or not self._needs.trains:
            run.per_replica(run.evaluation_batch_size, engine.num_devices, 'eval_batch_size')
        return run

    def _read_data(self) -> None:
        """Reads and verifies the data sets."""
        needs = self._needs
        self.train_data = self._read(self._train_factory, self._read_train_data) if needs.train_data else None
        read_eval_data = lambda: self._make(self._eval_factory)  # noqa: E731
        self.eval_data = self._read(self._eval_factory, read_eval_data) if needs.eval_data else None
        if needs.inspected:
            return
        for dataset, factory in ((self.train_data, self._train_factory), (self.eval_data, self._eval_factory)):
            if dataset is not None and not (needs.described and isinstance(dataset, Described)):
                slot = f'{factory.slot}: {factory.entry.reference} ({factory.entry.place})'
                contract.verify(dataset, self.target, slot)
        if self.train_data is not None and self.eval_data is not None:
            findings.settle(overlap.shared(self.train_data, self.eval_data))
        if self.train_data is not None and needs.select is not None:
            self.train_data = needs.select(self.train_data)

    def _read(self, factory: registry.Factory, read: Callable[[], Dataset]) -> Dataset | None:
        """Reads a data set. If it is inspected, also checks type and `info`, and keeps the error of a failure."""
        if not self._needs.inspected:
            return read()
        try:
            dataset = read()
            contract.check_type(dataset, factory.slot)
            dataset = dataset.readable()
            _ = dataset.info
        except UserError as error:
            self.unreadable[factory.slot] = error
            return None
        return dataset

    def _read_train_data(self) -> Dataset:
        """Returns all of the training data; the data set is made once."""
        if self._full_train_data is None:
            self._full_train_data = self._make(self._train_factory)
        return self._full_train_data

    def _make(self, factory: registry.Factory) -> Dataset:
        """Makes a data set. Published files are fetched only if a description will not do."""
        logging.info('Reading %s: %s.', factory.slot, factory.entry.reference)
        dataset = factory(seed=self.run_config.seed, target=self.target)
        if isinstance(dataset, Described) and dataset.fetch and not self._needs.described:
            return dataset.fetch()
        return dataset

    def _read_info(self, class_colors: Any) -> DatasetInfo:
        if self._needs.inspected:
            return self._colored((self.train_data or self.eval_data).info, class_colors)
        info = dataset_info.read(self.folder) if self.train_data is None else self.train_data.info
        if self.eval_data is not None:
            checks.same_classes(info, self.eval_data.info)
        return self._colored(info, class_colors)

    def _colored(self, info: DatasetInfo, chosen: Any) -> DatasetInfo:
        if chosen is None:
            return info
        palette = class_palette(info.class_names) if self.target == 'label_map' else instance_palette(info.num_classes)
        colors = with_colors('experiment.class_colors', chosen, info.class_names, info.colors or palette)
        return dataclasses.replace(info, colors=colors)

    def _count_classes(self) -> ClassHistogram:
        """Counts the pixels of each class once; a resumed run reads its stored counts."""
        if self.class_histogram is None and not self._needs.fresh and self.folder.has_checkpoint():
            self.class_histogram = dataset_info.read_class_histogram(self.folder, self.info)
        if self.class_histogram is None:
            self.class_histogram = self._read_train_data().class_histogram()
        return self.class_histogram

    def _equal_classes(self) -> ClassHistogram:
        """Equal numbers for a task that is built and not trained."""
        ones = np.ones(self.info.num_classes, np.int64)
        return ClassHistogram(ones, ones)

    def _build_optimizer(self, optimizer: Any) -> keras.optimizers.Optimizer:
        run = self.run_config
        factory = registry.optimizers.check(optimizer, 'experiment.optimizer')
        return factory.make(keras.optimizers.Optimizer, total_steps=run.train_steps, batch_size=run.batch_size)


config.configurable('experiment', supplied=('model_dir', 'engine', 'needs'))(Experiment)
config.configurable('RunConfig', supplied=('model_dir',))(RunConfig)
config.configurable('OptimizerStep')(OptimizerStep)
config.configurable('init')(Init)
