"""`--mode=train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import logging

from seg.modes.base import FRESH, TOPOLOGY
from seg.modes.training import Training

if TYPE_CHECKING:
    from seg.structures import Input


class Train(Training):
    """Trains without evaluating; needs no evaluation data."""

    name = 'train'
    aliases = ('training', 'fit')
    flags = (FRESH, TOPOLOGY)

    def check_experiment(self) -> None:
        if self.experiment.run_config.patience is not None:
            logging.warning('RunConfig.patience has no effect: --mode=train evaluates nothing.')

    def inputs(self) -> tuple[Input, ...]:
        experiment = self.experiment
        return (experiment.task.training_input(experiment.train_data, experiment.run_config.batch_size),)

    def execute(self) -> None:
        self.experiment.executor.train(*self._inputs)


MODE = Train
