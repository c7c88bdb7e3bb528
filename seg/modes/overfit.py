"""`--mode=overfit`: checks that the model can memorise a few images."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from seg.errors import UserError
from seg.modes.training import Training

if TYPE_CHECKING:
    from seg.experiment import Needs
    from seg.structures import Input


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverfitSettings:
    """Settings of `--mode=overfit`: a model that cannot overfit a few images cannot learn from more of them.

    Attributes:
      num_images: the first images of the training split; also the batch size.
      train_steps: at most this many steps.
      eval_every: steps between two evaluations, each of which may end the run.
      target: value of `RunConfig.best_metric` at which the run ends: at least this, or at most this if lower is better.
    """

    num_images: int = 8
    train_steps: int = 1000
    eval_every: int = 50
    target: float = 0.9


class Overfit(Training):
    """Trains on a few images until the model has memorised them: a quick test of data, labels and model."""

    name = 'overfit'
    aliases = ('overfitting', 'memorize')
    settings_type = OverfitSettings
    scope = 'overfit'
    subfolder = 'overfit'
    idle = ('RunConfig.*',)

    @property
    def fresh(self) -> bool:
        return True

    def needs(self) -> Needs:
        from seg.datasets.base import FirstExamples

        settings = self.settings
        return dataclasses.replace(
            super().needs(),
            select=lambda dataset: FirstExamples(dataset, settings.num_images, 'overfit.num_images'),
            run_changes={
                'train_steps': settings.train_steps,
                'batch_size': settings.num_images,
                'eval_batch_size': None,
                'iterations_per_loop': math.gcd(10, settings.eval_every),
                'eval_every': settings.eval_every,
                'save_checkpoints_steps': settings.train_steps,
                'patience': None,
            },
        )

    def evaluated(self) -> Any:
        return self.experiment.train_data

    def inputs(self) -> tuple[Input, ...]:
        experiment = self.experiment
        return experiment.task.overfit_inputs(experiment.train_data, experiment.run_config.batch_size)

    def execute(self) -> dict[str, Any]:
        return self.experiment.executor.train_and_evaluate(
            *self._inputs, stop=lambda evaluation: self._reached(evaluation.metrics)
        )

    def run(self) -> dict[str, Any]:
        results = super().run()
        if not self._reached(results['metrics']):
            settings, metric = self.settings, self.experiment.run_config.best_metric
            raise UserError(
                f'overfit: {metric} is {results["metrics"][metric]:.3f} after {results["step"]} steps, expected '
                f'{settings.target} (overfit.target). The model cannot memorise {settings.num_images} images. '
                f'Look at their labels (TensorBoard: {self.folder.eval}), raise overfit.train_steps, or change the '
                'learning rate.'
            )
        return results

    def _reached(self, metrics: dict[str, float]) -> bool:
        value, target = metrics[self.experiment.run_config.best_metric], self.settings.target
        return value >= target if self.experiment.executor.higher_is_better else value <= target


MODE = Overfit
