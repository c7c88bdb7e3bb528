"""The executor: train, evaluate and predict with a task, in the shape of TPUEstimator.

The engine runs `iterations_per_loop` steps at a time. Between two loops the host looks in, in this order:

1. Finite check: nothing that comes from a broken step may be written.
2. Metrics and summaries: they belong to the steps that were taken, whatever happens next.
3. Checkpoint: before the evaluation, so that a failed one can be run again from it.
4. Evaluation, and `best/`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil
from absl import logging

from seg import files
from seg.engine.base import Engine, LoopResult, Predictor, Trainer
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UnsavedError, UserError, shown
from seg.executor import stopping, unread
from seg.executor.checkpoints import Checkpoint, Checkpoints
from seg.executor.evaluation_records import EvaluationRecords
from seg.executor.evaluator import Evaluation, Evaluator
from seg.executor.progress import Progress
from seg.executor.records import Events, MetricsLog
from seg.executor.run_config import RunConfig
from seg.structures import Input


class Executor:
    """Trains, evaluates and predicts; knows nothing of what a task computes.

    `model_dir` is the only state: a second call of `train` with the same directory goes on where the first one ended.
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
          task: what is learnt: `loss_terms`, `predict`, `evaluate_batch`, `metrics`, `image_scores`,
            `picture`, `checkpoint_items`; `advice`, if it has some on what its losses count.
          engine: where.
          config: how long, and the periods.
          optimizer: a Keras optimizer, made in the engine's scope; needed for training only.
          step: what happens to gradients and weights beside the optimizer.
          config_text: makes the Markdown of the settings, for TensorBoard.
        """
        self._task = task
        self.engine = engine
        self._config = config
        self._optimizer = optimizer
        self._settings = step or OptimizerStep()
        self._config_text = config_text
        self._checkpoints = Checkpoints(config.model_dir, config.keep_checkpoint_max)
        self._log = MetricsLog(os.path.join(config.model_dir, 'metrics.jsonl'))
        self._records = EvaluationRecords(config, self._checkpoints, self._log)
        self._evaluator: Evaluator | None = None
        self.trainer: Trainer | None = None
        self._train_seconds = 0.0
        self._timed = [0, 0.0]  # Images and seconds of all loops but each process' first, which holds the tracing.
        self._first_loop = True
        self._last: tuple[int, Evaluation] | None = None  # Step and evaluation.

    def has_checkpoint(self) -> bool:
        """Whether there was a run: training goes on from its last checkpoint, or refuses if all are damaged."""
        return self._checkpoints.exist()

    # ---- The three verbs ---------------------------------------------------------------------------------------------

    def train(self, source: Input, max_steps: int | None = None) -> int:
        """Trains to `max_steps` (default: `train_steps`), from the last checkpoint on. Returns the step reached."""
        return self._train(source, None, max_steps or self._config.train_steps)

    def train_and_evaluate(
        self, source: Input, eval_source: Input, stop: Callable[[Evaluation], bool] | None = None
    ) -> dict[str, Any]:
        """Trains, evaluating every `eval_every` steps and at the end; writes and returns `results.json`.

        Args:
          source: training data.
          eval_source: evaluation data.
          stop: looks at each evaluation and may end the training early.
        """
        step = self._train(source, eval_source, self._config.train_steps, stop)
        path = os.path.join(self._config.model_dir, 'results.json')
        if self._last is None and (results := _kept_results(path)):
            logging.info('These are the results of %s; --mode=eval evaluates under other settings.', path)
            return results
        if self._last is None or self._last[0] != step:
            self._evaluate_now(eval_source, step)
        results = self._results(*self._last, self._checkpoints.path(step), self.trainer.averages)
        results['best'] = self._records.best()
        _write_results(path, results)
        return results

    def evaluate(self, source: Input, checkpoint: str = 'latest', settings: Sequence[str] = ()) -> dict[str, Any]:
        """Evaluates a checkpoint; writes `eval/<split>-<step>.json` and returns what it holds.

        The details of metrics go to `eval/<name>-<split>-<step>.json`; pictures are drawn during training only.

        Args:
          source: evaluation data.
          checkpoint: `latest`, `best` or a path.
          settings: in what this evaluation differs from those of the training, one `key = value` each. The files say
            so, and are called `…<split>-<step>-<mark>.json`, so that they do not take the place of the others.

        Raises:
          UnsavedError: with what was computed, if it cannot be written.
        """
        found, ema = self._load_model(checkpoint)
        self._read_times(found)
        evaluation = self._the_evaluator.evaluate(source)
        results = self._results(found.step, evaluation, found.path, ema) | {'settings': list(settings)}
        mark = '-' + hashlib.sha256('\n'.join(settings).encode()).hexdigest()[:6] if settings else ''
        try:
            self._records.write_details(source.name, f'{found.step}{mark}', evaluation.details)
            path = self._records.path(source.name, f'{found.step}{mark}')
        except UserError as error:
            raise UnsavedError(str(error), results) from error
        _write_results(path, results)
        logging.info('Scores: %s', path)
        return results

    def predictor(self, checkpoint: str = 'latest') -> Predictor:
        """Sets the model's weights from a checkpoint; returns what predicts batches that the host makes."""
        found, _ = self._load_model(checkpoint)
        logging.info('Predicting with the weights of step %d (%s).', found.step, found.path)
        return self.engine.predictor(self._task, found.path)

    # ---- Training ----------------------------------------------------------------------------------------------------

    def _train(
        self, source: Input, eval_source: Input | None, last: int, stop: Callable[[Evaluation], bool] | None = None
    ) -> int:
        done = self.prepare()
        with stopping.listening() as signals:
            signals.saved = done
            if eval_source and done and self._evaluation_is_due(done, last) and not self._records.has(done):
                self._evaluate_now(eval_source, done)  # A kill came between the checkpoint and its evaluation.
            if done >= last:
                logging.info('Training is complete: step %d of %d.', done, last)
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
        """Takes the steps from `done` to `last`. Returns the step reached."""
        config = self._config
        loop = self.trainer.loop(source, done, signals.save_first)
        events = Events(os.path.join(config.model_dir, 'train'), done)
        if text := self._config_text():
            events.text(done, 'config', text)
        progress = Progress('training', last, 'steps', done)
        while done < last and not signals.asked:
            steps = min(config.iterations_per_loop - done % config.iterations_per_loop, last - done)
            done = self.advance(loop, done, steps, events, progress, source)
            due = eval_source is not None and self._evaluation_is_due(done, last)
            if due or done % config.save_checkpoints_steps == 0 or done == last:
                self._save(done)
                signals.saved = done
            if due and not signals.asked:
                events.flush()
                with signals.at_once():
                    evaluation = self._evaluate_now(eval_source, done)
                if stop and stop(evaluation):
                    break
        if signals.asked and signals.saved < done:
            self._save(done)
            signals.saved = done
        progress.close()
        events.close()
        if signals.asked:
            signals.leave()
        return done

    def advance(
        self,
        loop: Callable[[int], LoopResult],
        done: int,
        steps: int,
        events: Events,
        progress: Progress,
        source: Input,
    ) -> int:
        """Runs one loop, checks it and records it. Returns the step reached."""
        start = time.perf_counter()
        result = loop(steps)
        seconds = time.perf_counter() - start
        self._check_finite(result, done, source)
        self._record(result, done + steps, seconds, events, progress, source)
        return done + steps

    def prepare(self) -> int:
        """Builds the training state and restores the newest checkpoint. Returns the step to go on from."""
        with files.writing(self._config.model_dir):
            os.makedirs(self._config.model_dir, exist_ok=True)
        self.build_trainer()
        files.sweep(self._config.model_dir)
        self._records.clear_up()
        found = self._checkpoints.latest()
        self._checkpoints.clear_up()
        if found is None:
            self._log.cut(0)
            return 0
        self.trainer.from_host(found.tensors, found.path)
        self._read_times(found)
        self._log.cut(found.step)
        logging.info('Going on from step %d (%s).', found.step, found.path)
        return found.step

    def build_trainer(self) -> None:
        """Makes the optimizer's state and the averages, from the weights that the model has now."""
        if self.trainer is None:
            if self._optimizer is None:
                raise ValueError('This executor was made without an optimizer: it evaluates and predicts only.')
            self.trainer = self.engine.trainer(self._task, self._optimizer, self._settings)

    def check_classes(self) -> None:
        """Refuses to go on from a checkpoint that has learnt other classes. Nothing on disk changes.

        Raises:
          UserError: with both lists.
        """
        if found := self._checkpoints.latest(set_aside=False):
            self._refuse_other_classes(found)

    def _refuse_other_classes(self, found: Checkpoint) -> None:
        learnt, names = found.metadata.get('class_names'), list(self._task.class_names)
        if learnt is not None and learnt != names:
            before, now = (', '.join(map(shown, each)) for each in (learnt, names))
            raise UserError(
                f'{found.path} has learnt other classes than these data have.\n  learnt: {before}\n  now: {now}\n'
                'Class id = place in the list. Give the data the names and the order that were learnt, or train anew: '
                'in another --model_dir, or with --fresh.'
            )

    def _read_times(self, found: Checkpoint) -> None:
        try:
            images, seconds = found.metadata.get('timed', [0, 0.0])
            self._timed = [int(images), float(seconds)]
            self._train_seconds = float(found.metadata.get('train_seconds', 0.0))
        except (TypeError, ValueError, OverflowError):
            logging.warning('%s does not tell the times of its training: they count from here on.', found.path)

    def _save(self, step: int) -> None:
        metadata = {
            'train_seconds': self._train_seconds,
            'timed': self._timed,
            'class_names': list(self._task.class_names),
        }
        self._checkpoints.save(step, self.trainer.to_host(), metadata)

    def _record(
        self,
        result: LoopResult,
        step: int,
        seconds: float,
        events: Events,
        progress: Progress,
        source: Input,
    ) -> None:
        """Writes one loop's means to metrics.jsonl and TensorBoard, and tells of images that did not arrive.

        Raises:
          UserError: if none did, or an augmentation failed.
        """
        images = len(result.losses) * source.batch_size
        if not self._first_loop:
            self._timed = [self._timed[0] + images, self._timed[1] + seconds]
        self._first_loop = False
        self._train_seconds += seconds
        losses = result.losses.mean(0)
        counts = result.counts.sum(0) / max(np.count_nonzero(result.weight), 1)
        values = {
            'loss': float(losses.sum()),
            **{f'loss/{name}': float(value) for name, value in zip(result.terms, losses, strict=True)},
            **{f'counts/{name}': float(value) for name, value in zip(result.counted, counts, strict=True)},
            'learning_rate': float(result.learning_rate[-1]),
            'gradient_norm': float(result.gradient_norm.mean()),
            'images_per_second': images / seconds,
            **({} if self.engine.deterministic else {'data_wait': float(min(result.wait.sum() / seconds, 1.0))}),
            'host_memory_mb': psutil.Process().memory_info().rss / 2**20,
        }
        self._log.add('train', step, values)
        events.scalars(step, values)
        events.flush()
        places = np.flatnonzero(result.weight == 0)
        unread.report(source, (step - len(result.losses)) * source.batch_size, places, result.index.ravel())
        if hasattr(self._task, 'advice') and (
            advice := self._task.advice(dict(zip(result.counted, counts, strict=True)))
        ):
            logging.warning('Steps up to %d: %s', step, advice)
        progress.update(step, f'loss {values["loss"]:.4f}, {values["images_per_second"]:.1f} images/s')

    def _check_finite(self, result: LoopResult, before: int, source: Input) -> None:
        finite = np.isfinite(result.losses).all(1) & np.isfinite(result.gradient_norm)
        if finite.all():
            return
        i = int(np.argmin(finite))
        broken = [
            f'{name} = {value:g}'
            for name, value in zip(result.terms, result.losses[i], strict=True)
            if not np.isfinite(value)
        ]
        shares = ~np.isfinite(result.totals[i]).all(-1)
        images = source.names(result.index[i][shares] if shares.any() else result.index[i])
        saved = self._checkpoints.steps()
        raise UserError(
            f'step {before + i + 1}: '
            + (f'loss {", ".join(broken)}' if broken else 'the losses are finite, but not their gradient')
            + f' (learning rate {result.learning_rate[i]:g}, gradient norm {result.gradient_norm[i]:g}).\n'
            f'Images {"with a non-finite share" if shares.any() else "of that step"}: {images}.\n'
            f'Last good checkpoint: {f"step {saved[-1]}" if saved else "none"}. Usual causes: a learning rate too high '
            'for this batch size, no warm-up, no pretrained weights; OptimizerStep.clip_norm helps against rare large '
            'gradients.'
        )

    # ---- Evaluation --------------------------------------------------------------------------------------------------

    @property
    def _the_evaluator(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = Evaluator(self._task, self.engine)
        return self._evaluator

    def _evaluation_is_due(self, step: int, last: int) -> bool:
        return step % self._config.eval_every == 0 or step == last

    def _evaluate_now(self, source: Input, step: int) -> Evaluation:
        """Evaluates the weights in memory, makes the checkpoint of `step` the best if it is, and records the result."""
        with self.trainer.averaged():
            evaluation = self._the_evaluator.evaluate(source, self._config.num_pictures)
        logging.info('step %d: %s', step, self._task.summary(evaluation.metrics))
        self._records.add(step, evaluation, source.name)
        self._last = step, evaluation._replace(pictures=[], details={})  # Many megabytes, which are written by now.
        return self._last[1]

    def _load_model(self, which: str) -> tuple[Checkpoint, bool]:
        """Sets the model's variables from a checkpoint, to averages if it has some. Returns it, and whether it has."""
        found = self._checkpoints.find(which)
        self._refuse_other_classes(found)
        averages = any(name.startswith('ema/') for name in found.tensors)
        values: dict[str, np.ndarray] = {}
        for part, layer in self._task.checkpoint_items.items():
            for variable in layer.variables:
                name = f'{part}/{variable.path}'
                value = found.tensors.get(f'ema/{name}', found.tensors.get(f'model/{name}'))
                if value is None or value.shape != tuple(variable.shape):
                    has = 'none' if value is None else f'shape {value.shape}'
                    raise UserError(
                        f'{found.path}: {name} has shape {tuple(variable.shape)} in this model and {has} in the '
                        'checkpoint. Use the gin file that it was trained with; without --gin_file, '
                        'model_dir/config.gin is read.'
                    )
                values[name] = value
        self.engine.set_model(self._task.checkpoint_items, values)
        return found, averages

    def _results(self, step: int, evaluation: Evaluation, checkpoint: str, ema: bool) -> dict[str, Any]:
        images, seconds = self._timed
        if not seconds:  # There was a single loop, tracing included.
            images, seconds = step * self._config.batch_size, self._train_seconds
        return {
            'step': step,
            'metrics': evaluation.metrics,
            'examples': evaluation.examples,
            'train_seconds': round(self._train_seconds, 3),
            'train_images_per_second': round(images / seconds, 3) if seconds else None,
            'eval_images_per_second': round(evaluation.images_per_second, 3),
            'weights': 'ema' if ema else 'raw',
            'checkpoint': checkpoint,
            'config': os.path.join(self._config.model_dir, 'config.gin'),
        }


def _kept_results(path: str) -> dict[str, Any] | None:
    """What results.json holds; None if it is not there, or damaged: the evaluation is then made again."""
    if not os.path.exists(path):
        return None
    try:
        results = files.read_json(path, 'It is written again.')
    except UserError as error:
        logging.warning('%s', error)
        return None
    if isinstance(results, dict) and type(results.get('step')) is int and isinstance(results.get('metrics'), dict):
        return results
    logging.warning('%s holds no results. It is written again.', path)
    return None


def _write_results(path: str, results: dict[str, Any]) -> None:
    try:
        files.write_json(path, results)
    except UserError as error:
        raise UnsavedError(str(error), results) from error
