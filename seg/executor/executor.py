"""The executor: train, evaluate and predict with a task, in the shape of TPUEstimator.

The device runs `iterations_per_loop` steps at a time. Between two loops the host looks in, in this order:

1. Finite check: nothing that comes from a broken step may be written.
2. Metrics and summaries: they belong to the steps that were taken, whatever happens next.
3. Checkpoint: before the evaluation, so that a failed one can be run again from it.
4. Evaluation, and `best/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
from absl import logging

from seg.errors import UserError
from seg.executor import unread
from seg.executor.checkpoints import Checkpoint, Checkpoints
from seg.executor.evaluator import Evaluation, Evaluator
from seg.executor.predictor import Predictor
from seg.executor.progress import Progress
from seg.executor.records import Events, MetricsLog
from seg.executor.run_config import OptimizerStep, RunConfig
from seg.executor.train_loop import LoopResult, TrainLoop
from seg.executor.train_step import TrainStep
from seg.files import write_json
from seg.structures import Hardware, Input


class Executor:
    """Trains, evaluates and predicts; knows nothing of what a task computes.

    `model_dir` is the only state: a second call of `train` with the same directory goes on where the first one ended.
    """

    def __init__(
        self,
        *,
        task,
        hardware: Hardware,
        config: RunConfig,
        optimizer: Any = None,
        step: OptimizerStep | None = None,
        config_text: Callable[[], str] = str,
    ):
        """Makes an executor.

        Args:
          task: what is learnt: `loss_terms`, `predict`, `evaluate_batch`, `metrics`, `image_scores`,
            `picture`, `checkpoint_items`; `advice`, if it has some on what its losses count.
          hardware: where.
          config: how long, and the periods.
          optimizer: a Keras optimizer, made in the strategy's scope; needed for training only.
          step: what happens to gradients and weights beside the optimizer.
          config_text: makes the Markdown of the settings, for TensorBoard.
        """
        self._task = task
        self.hardware = hardware
        self._config = config
        self._optimizer = optimizer
        self._settings = step or OptimizerStep()
        self._config_text = config_text
        self._checkpoints = Checkpoints(config.model_dir, config.keep_checkpoint_max)
        self._log = MetricsLog(os.path.join(config.model_dir, 'metrics.jsonl'))
        self._evaluator: Evaluator | None = None
        self.step: TrainStep | None = None
        self._train_seconds = 0.0
        self._timed = [0, 0.0]  # Images and seconds of all loops but each process' first, which holds the tracing.
        self._first_loop = True
        self._evaluations: dict[int, Evaluation] = {}
        self._eval_events: Events | None = None
        self._terminated = self._stopped = False

    def has_checkpoint(self) -> bool:
        """Whether training would go on from a checkpoint."""
        return bool(self._checkpoints.steps())

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
        if self._stopped:
            raise SystemExit(0)
        path = os.path.join(self._config.model_dir, 'results.json')
        if step not in self._evaluations and os.path.exists(path):
            logging.info('These are the results of %s; --mode=eval evaluates under other settings.', path)
            with open(path, encoding='utf-8') as file:
                return json.load(file)
        evaluation = self._evaluations[step] if step in self._evaluations else self._evaluate_now(eval_source, step)
        results = self._results(step, evaluation, self._checkpoints.path(step), bool(self.step.state.ema))
        best = self._best()
        results['best'] = (
            {
                'step': best['step'],
                self._config.best_metric: best[self._config.best_metric],
                'checkpoint': self._checkpoints.best_path(),
            }
            if best
            else None
        )
        write_json(path, results)
        return results

    def evaluate(self, source: Input, checkpoint: str = 'latest', settings: Sequence[str] = ()) -> dict[str, Any]:
        """Evaluates a checkpoint; writes `eval/<split>-<step>.json` and returns what it holds.

        The details of metrics go to `eval/<name>-<split>-<step>.json`; pictures are drawn during training only.

        Args:
          source: evaluation data.
          checkpoint: `latest`, `best` or a path.
          settings: in what this evaluation differs from those of the training, one `key = value` each. The files say
            so, and are called `…<split>-<step>-<mark>.json`, so that they do not take the place of the others.
        """
        found, ema = self._load_model(checkpoint)
        self._read_times(found)
        evaluation = self._the_evaluator.evaluate(source)
        results = self._results(found.step, evaluation, found.path, ema) | {'settings': list(settings)}
        mark = '-' + hashlib.sha256('\n'.join(settings).encode()).hexdigest()[:6] if settings else ''
        self._write_for_programs(source, f'{found.step}{mark}', evaluation.details)
        path = self._eval_path(source, f'{found.step}{mark}')
        write_json(path, results)
        logging.info('Scores: %s', path)
        return results

    def predict(self, source: Input, checkpoint: str = 'latest') -> Iterator[tuple[dict, dict]]:
        """Yields host arrays (batch, predictions) for every batch; padded examples have `index` -1."""
        self._load_model(checkpoint)
        yield from self._the_evaluator.predict(source)

    def predictor(self, checkpoint: str = 'latest') -> Predictor:
        """Sets the model's weights from a checkpoint; returns what predicts batches that the host makes."""
        found, _ = self._load_model(checkpoint)
        logging.info('Predicting with the weights of step %d (%s).', found.step, found.path)
        return Predictor(self._task, self.hardware, found.path)

    # ---- Training ----------------------------------------------------------------------------------------------------

    def _train(
        self, source: Input, eval_source: Input | None, last: int, stop: Callable[[Evaluation], bool] | None = None
    ) -> int:
        config = self._config
        done = self.prepare()
        if eval_source and done and self._evaluation_is_due(done, last) and not self._was_evaluated(done):
            self._evaluate_now(eval_source, done)  # A kill came between the checkpoint and its evaluation.
        if done >= last:
            logging.info('Training is complete: step %d of %d.', done, last)
            return done
        loop = TrainLoop(self.step, self.hardware, source, done)
        events = Events(os.path.join(config.model_dir, 'train'), done)
        if text := self._config_text():
            events.text(done, 'config', text)
        progress = Progress('training', last, 'steps', done)
        with _terminations(self._terminate):
            while done < last and not self._stopped:
                steps = min(config.iterations_per_loop - done % config.iterations_per_loop, last - done)
                done = self.advance(loop, done, steps, events, progress, source)
                self._stopped = self._terminated  # Asked once per loop: what stops is saved.
                due = eval_source is not None and self._evaluation_is_due(done, last)
                if due or done % config.save_checkpoints_steps == 0 or done == last or self._stopped:
                    self._save(done)
                if due:
                    events.flush()
                    evaluation = self._evaluate_now(eval_source, done)
                    if stop and stop(evaluation):
                        break
        progress.close()
        events.close()
        if self._stopped:
            logging.warning('Asked to terminate: saved step %d. The same command goes on from there.', done)
        return done

    def advance(self, loop: TrainLoop, done: int, steps: int, events: Events, progress: Progress, source: Input) -> int:
        """Runs one loop, checks it and records it. Returns the step reached."""
        start = time.perf_counter()
        result = loop(steps)
        seconds = time.perf_counter() - start
        self._check_finite(result, loop.term_names, done, source)
        self._record(result, loop, done + steps, seconds, events, progress, source)
        return done + steps

    def prepare(self) -> int:
        """Builds the training state and restores the newest checkpoint. Returns the step to go on from."""
        os.makedirs(self._config.model_dir, exist_ok=True)
        if self.step is None:
            if self._optimizer is None:
                raise ValueError('This executor was made without an optimizer: it evaluates and predicts only.')
            self.step = TrainStep(self._task, self._optimizer, self._settings, self.hardware.strategy)
        found = self._checkpoints.latest()
        if found is None:
            self._log.cut(0)
            return 0
        self.step.state.from_host(found.tensors, found.path)
        self._read_times(found)
        self._log.cut(found.step)
        logging.info('Going on from step %d (%s).', found.step, found.path)
        return found.step

    def _read_times(self, found: Checkpoint) -> None:
        self._train_seconds = found.metadata.get('train_seconds', 0.0)
        self._timed = found.metadata.get('timed', [0, 0.0])

    def _save(self, step: int) -> None:
        metadata = {
            'train_seconds': self._train_seconds,
            'timed': self._timed,
            'class_names': list(self._task.class_names),
        }
        self._checkpoints.save(step, self.step.state.to_host(), metadata)

    def _record(
        self,
        result: LoopResult,
        loop: TrainLoop,
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
            **{f'loss/{name}': float(value) for name, value in zip(loop.term_names, losses, strict=True)},
            **{f'counts/{name}': float(value) for name, value in zip(loop.count_names, counts, strict=True)},
            'learning_rate': float(result.learning_rate[-1]),
            'gradient_norm': float(result.gradient_norm.mean()),
            'images_per_second': images / seconds,
            **({} if self.hardware.deterministic else {'data_wait': float(min(result.wait.sum() / seconds, 1.0))}),
            'host_memory_mb': psutil.Process().memory_info().rss / 2**20,
        }
        self._log.add('train', step, values)
        events.scalars(step, values)
        events.flush()
        places = np.flatnonzero(result.weight == 0)
        unread.report(source, (step - len(result.losses)) * source.batch_size, places, result.index.ravel())
        if hasattr(self._task, 'advice') and (
            advice := self._task.advice(dict(zip(loop.count_names, counts, strict=True)))
        ):
            logging.warning('Steps up to %d: %s', step, advice)
        progress.update(step, f'loss {values["loss"]:.4f}, {values["images_per_second"]:.1f} images/s')

    def _check_finite(self, result: LoopResult, terms: list[str], before: int, source: Input) -> None:
        finite = np.isfinite(result.losses).all(1) & np.isfinite(result.gradient_norm)
        if finite.all():
            return
        i = int(np.argmin(finite))
        broken = [
            f'{name} = {value:g}' for name, value in zip(terms, result.losses[i], strict=True) if not np.isfinite(value)
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

    def _terminate(self, *_) -> None:
        self._terminated = True

    # ---- Evaluation --------------------------------------------------------------------------------------------------

    @property
    def _the_evaluator(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = Evaluator(self._task, self.hardware)
        return self._evaluator

    def _evaluation_is_due(self, step: int, last: int) -> bool:
        return step % self._config.eval_every == 0 or step == last

    def _was_evaluated(self, step: int) -> bool:
        return any(line['kind'] == 'eval' and line['step'] == step for line in self._log.read())

    def _evaluate_now(self, source: Input, step: int) -> Evaluation:
        """Evaluates the weights in memory, makes the checkpoint of `step` the best if it is, and records the result."""
        with self.step.state.averaged():
            evaluation = self._the_evaluator.evaluate(source, self._config.num_pictures)
        metric = self._config.best_metric
        if metric not in evaluation.metrics:
            raise UserError(
                f'RunConfig.best_metric = {metric!r}: the evaluation gives {", ".join(evaluation.metrics)}.'
            )
        best = self._best()
        if best is None or evaluation.metrics[metric] > best[metric]:
            self._checkpoints.keep_best(step)
        self._evaluations[step] = evaluation
        if not self._was_evaluated(step):  # It was if a kill came between the last evaluation and results.json.
            self._log.add(
                'eval',
                step,
                {**evaluation.metrics, 'examples': evaluation.examples, 'seconds': round(evaluation.seconds, 3)},
            )
        if self._eval_events is None:
            self._eval_events = Events(os.path.join(self._config.model_dir, 'eval'), max(step - 1, 0))
        self._eval_events.scalars(step, evaluation.metrics)
        self._eval_events.pictures(step, evaluation.pictures)
        self._eval_events.flush()
        self._write_for_programs(source, step, evaluation.details)
        logging.info('step %d: %s', step, self._task.summary(evaluation.metrics))
        return evaluation

    def _write_for_programs(self, source: Input, step: int | str, details: dict[str, Any]) -> None:
        for name, value in details.items():
            write_json(self._eval_path(source, step, f'{name}-'), value)

    def _eval_path(self, source: Input, step: int | str, prefix: str = '') -> str:
        folder = os.path.join(self._config.model_dir, 'eval')
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, f'{prefix}{source.name.rpartition("/")[2]}-{step}.json')

    def _best(self) -> dict[str, Any] | None:
        metric = self._config.best_metric
        lines = [line for line in self._log.read() if line['kind'] == 'eval' and line.get(metric) is not None]
        return max(lines, key=lambda line: line[metric]) if lines else None

    def _load_model(self, which: str) -> tuple[Checkpoint, bool]:
        """Sets the model's variables from a checkpoint, to averages if it has some. Returns it, and whether it has."""
        found = self._checkpoints.find(which)
        averages = any(name.startswith('ema/') for name in found.tensors)
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
                variable.value.assign(tf.cast(value, variable.dtype))
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


@contextlib.contextmanager
def _terminations(handler: Callable[..., None]) -> Iterator[None]:
    """Calls `handler` on SIGTERM, which is how clusters announce that they take a machine back."""
    try:
        before = signal.signal(signal.SIGTERM, handler)
    except ValueError:  # Not the main thread, as in some notebooks: then nothing can be caught.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
