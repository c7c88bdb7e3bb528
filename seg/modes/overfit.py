"""`--mode=overfit`: checks that the model can memorise a few images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import logging

from seg.errors import UserError
from seg.modes.training import Training

if TYPE_CHECKING:
    from seg.executor.evaluator import Evaluation
    from seg.experiment import Needs
    from seg.structures import Input


_LONG = 5.0  # Minutes after which smaller images are suggested.
_LEAST_SIDE = 64  # Pixels of the smallest crop to suggest.


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
        settings, experiment = self.settings, self.experiment
        logging.info(
            'The target is %s %s %g (overfit.target) on %d images, evaluated every %d steps, of at most %d.',
            experiment.run_config.best_metric,
            'of at least' if experiment.executor.higher_is_better else 'of at most',
            *(settings.target, settings.num_images, settings.eval_every, settings.train_steps),
        )
        return experiment.executor.train_and_evaluate(*self._inputs, stop=self._stop)

    def _stop(self, evaluation: Evaluation) -> bool:
        """Says where the run stands; whether it has reached the target."""
        settings, experiment = self.settings, self.experiment
        name, step = experiment.run_config.best_metric, experiment.executor.training.step
        reached, more = self._reached(evaluation.metrics), settings.train_steps - step
        rest = ', reached' if reached else f'; at most {more} more steps' if more else ''
        logging.info('overfit: %s is %.3f, the target %g%s.', name, evaluation.metrics[name], settings.target, rest)
        if not reached and step == settings.eval_every:
            self._suggest(settings.train_steps - step, experiment.executor.training.speed(step))
        return reached

    def _suggest(self, steps: int, speed: Mapping[str, float | None]) -> None:
        """Suggests smaller images if the rest of the run may take long."""
        from seg import config

        rate = speed['train_images_per_second']
        minutes = steps * self.settings.num_images / rate / 60 if rate else 0.0
        crop = config.macros().get('CROP')
        if minutes < _LONG or not (isinstance(crop, tuple) and min(crop) >= 2 * _LEAST_SIDE):
            return
        logging.info(
            'These may take %.0f minutes. A smaller crop suffices for this check: --gin_param="CROP=%s" takes about a '
            'quarter of the time.',
            minutes,
            tuple(side // 2 for side in crop),
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
