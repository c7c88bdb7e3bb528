"""The executor: train, evaluate and predict with a task, in the style of TPUEstimator.

The engine runs `iterations_per_loop` steps at a time. Between two loops the host works in this order:

1. Finite check: no result of a step with a non-finite value may be written.
2. Metrics and summaries: they belong to the completed steps.
3. Checkpoint: before the evaluation, so that a failed evaluation can be repeated from it.
4. Evaluation, and `best/`.

If a run has several processes, all of them do this after the same steps, and only the chief writes: see `agreement`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from seg import files
from seg.engine.base import Engine, Predictor, Trainer
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UnsavedError, UserError
from seg.executor import finite, first_examples, memory, model_weights, stopping
from seg.executor.agreement import asked_to_stop, together
from seg.executor.checkpoints import Checkpoint, Checkpoints
from seg.executor.evaluation_records import EvaluationRecords
from seg.executor.evaluator import Evaluation, Evaluator
from seg.executor.run_config import RunConfig
from seg.executor.timed_loop import TimedLoop
from seg.executor.training_records import TrainingRecords
from seg.metrics.base import higher_is_better
from seg.run import results
from seg.run.folder import RunFolder, split_of
from seg.run.metrics_log import MetricsLog
from seg.structures import Input


class Executor:
    """Trains, evaluates and predicts, independent of what a task computes.

    `model_dir` is the only state: a second call of `train` with the same directory resumes the training.

    Attributes:
      higher_is_better: whether a higher value of `best_metric` is better, or a lower one.
    """

    def __init__(
        self,
        *,
        task,
        engine: Engine,
        config: RunConfig,
        optimizer: Any = None,
        step: OptimizerStep | None = None,
        config_text: Callable[[], str] = str,
    ):
        """Makes an executor.

        Args:
          task: a `seg.tasks.base.Task`.
          engine: devices and precision.
          config: length and periods.
          optimizer: a Keras optimizer, made in the engine's scope; needed for training only.
          step: treatment of gradients and weights besides the optimizer.
          config_text: returns the settings as Markdown, for TensorBoard.
        """
        self._task = task
        self.engine = engine
        self._config = config
        self._optimizer = optimizer
        self._settings = step or OptimizerStep()
        self._config_text = config_text
        self._folder = RunFolder(config.model_dir)
        self._checkpoints = Checkpoints(self._folder, config.keep_checkpoint_max)
        self._log = MetricsLog(self._folder.metrics)
        self.training = TrainingRecords(config, task, engine, self._folder, self._log)
        self.higher_is_better = higher_is_better(task.metrics(), config.best_metric)
        self._records = EvaluationRecords(config, self._folder, self._checkpoints, self._log, self.higher_is_better)
        self.trainer: Trainer | None = None
        self._last: tuple[int, Evaluation] | None = None  # Step and evaluation.

    @property
    def _alone(self) -> bool:
        return self.engine.process.count == 1

    def has_checkpoint(self) -> bool:
        """Whether a run exists: training resumes from its last checkpoint, or refuses if all are damaged."""
        return self._folder.has_checkpoint()

    # ---- Training, evaluation, prediction ----------------------------------------------------------------------------

    def train(self, source: Input, max_steps: int | None = None) -> int:
        """Trains from the last checkpoint to `max_steps` (default: `train_steps`). Returns the step reached."""
        return self._train(source, None, max_steps or self._config.train_steps)

    def train_and_evaluate(
        self, source: Input, eval_source: Input, stop: Callable[[Evaluation], bool] | None = None
    ) -> dict[str, Any]:
        """Trains, evaluates every `eval_every` steps and at the end, and writes and returns `results.json`.

        Args:
          source: training data.
          eval_source: evaluation data.
          stop: is called with each evaluation and may end the training early.
        """
        step = self._train(source, eval_source, self._config.train_steps, stop)
        path = self._folder.results
        if self._last is None and (kept := _kept_results(path, step)):
            logging.info('These are the results of %s; --mode=eval evaluates under other settings.', path)
            return kept
        if self._last is None or self._last[0] != step:
            self._evaluate_now(eval_source, step)
        written = self._results(*self._last, eval_source.name, self._checkpoints.path(step), self.trainer.averages)
        written['best'] = self._records.best()
        written['early_stop'] = self._records.early_stop() if step < self._config.train_steps else None
        if self.engine.chief:
            results.write(path, written)
        return written

    def evaluate(
        self, source: Input, checkpoint: str = 'latest', settings: Sequence[str] = (), weights: str = ''
    ) -> dict[str, Any]:
        """Evaluates a checkpoint; writes `eval/<split>-<step>.json` and returns its content.

        The details of metrics go to `eval/<name>-<split>-<step>.json`; figures are drawn during training only.

        Args:
          source: evaluation data.
          checkpoint: `latest`, `best` or a path.
          settings: settings that differ from the training's, one `key = value` each. The files contain them and have
            the names `…<split>-<step>-<mark>.json`, so that they do not replace the others.
          weights: as for `load_model`.

        Raises:
          UnsavedError: with the results, if they cannot be written.
        """
        found, ema = self.load_model(checkpoint, weights)
        self.training.read_times(found.metadata, found.path)
        return self._scored(source, self._evaluator.evaluate(source), found.step, found.path, ema, settings)

    def evaluate_file(
        self, source: Input, evaluating: Any, *, path: str, step: int, averages: bool, settings: Sequence[str]
    ) -> dict[str, Any]:
        """Evaluates an exported file of the run, like a checkpoint.

        Args:
          source: evaluation data.
          evaluating: makes the evaluator of the file, as an engine does of a task.
          path: the file.
          step: step of its weights.
          averages: whether these are moving averages.
          settings: as for `evaluate`; they name the file's format, so that the scores of the run stay.

        Raises:
          UnsavedError: with the results, if they cannot be written.
        """
        evaluation = Evaluator(self._task, evaluating).evaluate(source)
        return self._scored(source, evaluation, step, path, averages, settings)

    def _scored(
        self, source: Input, evaluation: Evaluation, step: int, path: str, averages: bool, settings: Sequence[str]
    ) -> dict[str, Any]:
        """Writes the scores of an evaluation and returns them."""
        mark = '-' + hashlib.sha256('\n'.join(settings).encode()).hexdigest()[:6] if settings else ''
        written = self._results(step, evaluation, source.name, path, averages, mark)
        written['settings'] = list(settings)
        if not self.engine.chief:
            return written
        try:
            self._records.write_details(source.name, f'{step}{mark}', evaluation.details)
            scores = self._records.path(source.name, f'{step}{mark}')
        except UserError as error:
            raise UnsavedError(str(error), written) from error
        results.write(scores, written)
        logging.info('Scores: %s', scores)
        return written

    def predictor(self, checkpoint: str = 'latest') -> Predictor:
        """Sets the model's weights from a checkpoint; returns a predictor for batches made by the host."""
        found, _ = self.load_model(checkpoint)
        logging.info('Predicting with the weights of step %d (%s).', found.step, found.path)
        return self.engine.predictor(self._task, found.path)

    # ---- Steps of a training -----------------------------------------------------------------------------------------

    def _train(
        self, source: Input, eval_source: Input | None, last: int, stop: Callable[[Evaluation], bool] | None = None
    ) -> int:
        done = self.prepare()
        with stopping.listening() as signals:
            signals.saved = done
            if not self._alone:  # If a process left at once, the others would wait.
                signals.save_first()
            if eval_source and done and self._evaluation_is_due(done, last) and not self._records.has(done):
                self._evaluate_now(eval_source, done)  # A kill came between the checkpoint and its evaluation.
            if done >= last:
                logging.info('Training is complete: step %d of %d.', done, last)
                return done
            if eval_source and self._ends_early(done, last):
                return done
            return self._loops(signals, source, eval_source, done, last, stop)

    def _loops(
        self,
        signals: stopping.Stopping,
        source: Input,
        eval_source: Input | None,
        done: int,
        last: int,
        stop: Callable[[Evaluation], bool] | None,
    ) -> int:
        """Trains from step `done` to step `last`. Returns the step reached."""
        config = self._config

        def traced(needed: int) -> None:
            memory.tell(needed, self.engine.memory(), config.batch_size)
            signals.begin_first_step()

        def started(seconds: float) -> None:
            signals.save_first()
            self.training.start(first, seconds)

        first, loop = done + 1, TimedLoop(self.trainer.loop(source, done, traced), started)
        with together(self.engine):
            self.training.open(done, last, self._config_text())
            if not done and self.engine.chief:
                self.training.show(first_examples.drawn(self._task, source, self._config.num_pictures))
        while done < last and not asked_to_stop(self.engine, signals):
            steps = min(config.iterations_per_loop - done % config.iterations_per_loop, last - done)
            done = self.advance(loop, done, steps, source)
            due = eval_source is not None and self._evaluation_is_due(done, last)
            if due or done % config.save_checkpoints_steps == 0 or done == last:
                self._save(done)
                signals.saved = done
            if due and not asked_to_stop(self.engine, signals):
                with signals.at_once() if self._alone else contextlib.nullcontext():
                    evaluation = self._evaluate_now(eval_source, done)
                if self._ends_early(done, last) or (stop and self.engine.agree(stop(evaluation))):
                    break
        if signals.asked and signals.saved < done:
            self._save(done)
            signals.saved = done
        self.training.close()
        if signals.asked:
            signals.leave()
        return done

    def _ends_early(self, done: int, last: int) -> bool:
        """Whether the evaluations up to step `done` have used up `patience` before the last step; the log says so.

        This follows from metrics.jsonl, so a resumed run decides alike.
        """
        if done == last or self._config.patience is None:
            return False
        with together(self.engine):
            found = self._records.early_stop() if self.engine.chief else None
        if found:
            logging.info(
                'Training ends early at step %d of %d: %s has had no better value since step %d (RunConfig.patience = '
                '%d). The same command continues it with a larger patience, or with None.',
                *(done, last, self._config.best_metric, found['best_step'], found['patience']),
            )
        return self.engine.agree(found is not None)

    def advance(self, loop: TimedLoop, done: int, steps: int, source: Input) -> int:
        """Runs one loop, checks it and records it. Returns the step reached."""
        result, timed, seconds = loop(steps)
        with together(self.engine):
            finite.check(result, done, source, self._checkpoints)
            self.training.add(result, done + steps, timed, seconds, source)
        return done + steps

    def prepare(self) -> int:
        """Builds the training state and restores the newest checkpoint. Returns its step."""
        self.build_trainer()
        with together(self.engine):
            found = self._newest_after_clearing_up() if self.engine.chief else None
        with together(self.engine):  # The others must see the folder after the chief has cleared it up.
            if not self.engine.chief:
                found = self._checkpoints.latest(set_aside=False)
            if found:
                self.trainer.from_host(found.tensors, found.path)
                self.training.read_times(found.metadata, found.path)
            if self.engine.chief:
                self._log.cut(found.step if found else 0)
        if found is None:
            return 0
        logging.info('Continuing from step %d (%s).', found.step, found.path)
        return found.step

    def _newest_after_clearing_up(self) -> Checkpoint | None:
        """Removes the remains of a kill, then returns the newest undamaged checkpoint."""
        with files.writing(self._folder.path):
            os.makedirs(self._folder.path, exist_ok=True)
        files.sweep(self._folder.path)
        self._records.clear_up()
        found = self._checkpoints.latest()
        self._checkpoints.clear_up()
        return found

    def build_trainer(self) -> None:
        """Makes the optimizer's state and the averages from the current weights of the model."""
        if self.trainer is None:
            if self._optimizer is None:
                raise ValueError('This executor was made without an optimizer: it evaluates and predicts only.')
            self.trainer = self.engine.trainer(self._task, self._optimizer, self._settings)

    def check_classes(self) -> int:
        """Refuses to resume from a checkpoint with other classes. Returns its step. Nothing on disk changes.

        Raises:
          UserError: the message has both lists.
        """
        found = self._checkpoints.latest(set_aside=False)
        if found is None:
            return 0
        model_weights.check_classes(found, self._task.class_names)
        return found.step

    def _save(self, step: int) -> None:
        metadata = {**self.training.times(), 'class_names': list(self._task.class_names)}
        tensors = self.trainer.to_host()
        with together(self.engine):
            if self.engine.chief:
                self._checkpoints.save(step, tensors, metadata)

    # ---- Steps of an evaluation --------------------------------------------------------------------------------------

    @functools.cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self._task, self.engine)

    def _evaluation_is_due(self, step: int, last: int) -> bool:
        return step % self._config.eval_every == 0 or step == last

    def _evaluate_now(self, source: Input, step: int) -> Evaluation:
        """Evaluates the weights in memory and records the result; `step` is their step."""
        with self.trainer.averaged():
            last = step >= self._config.train_steps
            evaluation = self._evaluator.evaluate(source, self._config.num_pictures, last)
        logging.info('step %d: %s', step, self._summary(evaluation.metrics))
        with together(self.engine):
            if self.engine.chief:
                self._records.add(step, evaluation, source.name, _weights(self.trainer.averages))
        # Many megabytes, which are on disk now.
        self._last = step, evaluation._replace(figures=[], images=(), details=dict.fromkeys(evaluation.details))
        return self._last[1]

    def _summary(self, metrics: Mapping[str, float]) -> str:
        """The task's line for the log, which may omit a plugin's metric, and the metric that chooses `best/`."""
        line, best = self._task.summary(metrics), self._config.best_metric
        if best not in metrics or f', {best} ' in f', {line}':
            return line
        return ', '.join(filter(None, [f'{best} {metrics[best]:.4f}', line]))

    def load_model(self, which: str, weights: str = '') -> tuple[Checkpoint, bool]:
        """Sets the model's variables from a checkpoint.

        Args:
          which: `latest`, `best` or a path.
          weights: `ema` for the moving averages, `raw` for the weights themselves; empty for the averages if there
            are any.

        Returns:
          The checkpoint, and whether the variables are averages.

        Raises:
          UserError: if there is no such checkpoint, it is of another model, or it has no averages.
        """
        found = self._checkpoints.find(which)
        model_weights.check_classes(found, self._task.class_names)
        values, averages = model_weights.select(found, self._task.checkpoint_items, weights)
        self.engine.set_model(self._task.checkpoint_items, values)
        return found, averages

    def _results(
        self, step: int, evaluation: Evaluation, split: str, checkpoint: str, averages: bool, mark: str = ''
    ) -> dict[str, Any]:
        return {
            'step': step,
            'metrics': evaluation.metrics,
            'examples': evaluation.examples,
            **self.training.speed(step),
            'eval_images_per_second': round(evaluation.images_per_second, 3),
            'weights': _weights(averages),
            'checkpoint': checkpoint,
            'config': self._folder.config,
            'split': split_of(split),
            'details': self._folder.details(split, f'{step}{mark}', evaluation.details),
        }


def _weights(averages: bool) -> str:
    """The name of the evaluated weights in records."""
    return 'ema' if averages else 'raw'


def _kept_results(path: str, step: int) -> dict[str, Any] | None:
    """Returns the content of results.json; None if it is missing, damaged or of another step, and so to be written."""
    try:
        kept = results.read(path, 'It is written again.')
    except UserError as error:
        logging.warning('%s', error)
        return None
    return kept if kept and kept['step'] == step else None
