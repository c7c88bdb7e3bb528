"""Records of evaluations: lines of metrics.jsonl, TensorBoard events, files in `eval/`, and the best checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from absl import logging

from seg import files
from seg.errors import UserError
from seg.executor.checkpoints import Checkpoints
from seg.executor.evaluator import Evaluation
from seg.executor.run_config import RunConfig
from seg.run import evaluated_images, evaluations, results
from seg.run.evaluations import is_better
from seg.run.events import Events
from seg.run.folder import RunFolder, split_of
from seg.run.metrics_log import MetricsLog
from seg.run.values import number


class EvaluationRecords:
    """Records of one run. The scores of the checkpoint in `best/` are in `best/metrics.json`, else in metrics.jsonl."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        checkpoints: Checkpoints,
        log: MetricsLog,
        higher_is_better: bool,
    ):
        self._config, self._folder, self._checkpoints, self._log = config, folder, checkpoints, log
        self._higher_is_better = higher_is_better
        self._events: Events | None = None

    def has(self, step: int) -> bool:
        """Whether the evaluation of a step is recorded."""
        return self._line(step) is not None

    def add(self, step: int, evaluation: Evaluation, split: str, weights: str) -> None:
        """Records the evaluation, and copies the checkpoint of `step` to `best/` if it is the best.

        Args:
          step: step of the weights.
          evaluation: the evaluation to record.
          split: name of the data.
          weights: 'ema' or 'raw'.

        Raises:
          UserError: if the evaluation has no metric `best_metric`, or a file cannot be written.
        """
        metric = self._config.best_metric
        if metric not in evaluation.metrics:
            raise UserError(
                f'RunConfig.best_metric = {metric!r}: the evaluation gives {", ".join(evaluation.metrics)}.'
            )
        if self._is_best(step, evaluation.metrics):
            self._checkpoints.keep_best(step)
            files.write_json(self._folder.best_metrics, {'step': step, 'metrics': evaluation.metrics})
        if self._events is None:
            self._events = Events(self._folder.eval, max(step - 1, 0))
        self._events.scalars(step, evaluation.metrics)
        self._events.figures(step, evaluation.figures)
        self._events.flush()
        self.write_details(split, step, evaluation.details)
        if evaluation.images:
            evaluated_images.write(self._folder.images(split), step, evaluation.images)
        # The line comes last: it shows the next start that everything else is written.
        if not self.has(step):  # It exists if a kill came between the last evaluation and results.json.
            numbers = {'examples': evaluation.examples, 'seconds': round(evaluation.seconds, 3)}
            details = self._folder.details(split, step, evaluation.details)
            origin = {'split': split_of(split), 'weights': weights, 'details': details}
            self._log.add('eval', step, {**evaluation.metrics, **numbers, **origin})

    def best(self) -> dict[str, Any] | None:
        """Returns `step`, value of `best_metric` (None if unknown) and path (`checkpoint`) of what is in `best/`."""
        step = self._checkpoints.best_step()
        if step is None:
            return None
        metric = self._config.best_metric
        value = (self._scores(step) or {}).get(metric)
        return {'step': step, metric: value, 'checkpoint': self._checkpoints.best_path()}

    def early_stop(self) -> dict[str, Any] | None:
        """Why the training ends early: `patience`, and `best_step` of the best evaluation. None if it continues."""
        metric, patience = self._config.best_metric, self._config.patience
        if patience is None:
            return None
        made = [evaluations.of_line(line) for line in self._log.read().by_step('eval')]
        best = evaluations.best(made, metric, self._higher_is_better)
        if best is None or sum(each.step > best.step for each in made) < patience:
            return None
        return {'patience': patience, 'best_step': best.step}

    def write_details(self, split: str, step: int | str, details: Mapping[str, Any]) -> None:
        """Writes the details of the metrics as `eval/<kind>-<split>-<step>.json`."""
        for kind, value in details.items():
            files.write_json(self.path(split, step, kind), value)

    def path(self, split: str, step: int | str, kind: str = '') -> str:
        """Returns the path of a file in `eval/`, and makes the folder."""
        with files.writing(self._folder.eval):
            os.makedirs(self._folder.eval, exist_ok=True)
        return self._folder.eval_file(split, step, kind)

    def clear_up(self) -> None:
        """Removes temporary files that a kill left."""
        files.sweep(self._folder.eval)

    def _is_best(self, step: int, metrics: Mapping[str, float]) -> bool:
        best = self._checkpoints.best_step()
        if best is None:
            return True
        scores = self._scores(best)
        if scores is None:
            if best == step:  # A kill came between the copy and its scores.
                return True
            logging.warning(
                '%s: its scores are not known, so it stays the best one. Remove it to let a later one take its place.',
                self._checkpoints.best_path(),
            )
            return False
        value = scores.get(self._config.best_metric)
        known = number(value) is not None
        return not known or is_better(metrics[self._config.best_metric], value, self._higher_is_better)

    def _scores(self, step: int) -> dict[str, Any] | None:
        """Returns the metrics of the checkpoint of `step` in `best/`; None if unknown."""
        try:
            kept = results.read(self._folder.best_metrics, 'It counts as missing.')
        except UserError as error:
            logging.warning('%s', error)
            kept = None
        return kept['metrics'] if kept and kept['step'] == step else self._line(step)

    def _line(self, step: int) -> dict[str, Any] | None:
        return next((line for line in self._log.read().by_step('eval') if line['step'] == step), None)
