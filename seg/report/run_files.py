"""Reads what a run has left in its `model_dir`, complete or not: scores, curves, settings, hardware."""

from __future__ import annotations

import dataclasses
import glob
import json
import math
import os
from typing import Any

from seg.errors import UserError
from seg.run.folder import RunFolder
from seg.run.lock import is_held

Values = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of one step.

    Attributes:
      label: what kind of evaluation, for a table's head: 'Last', 'Best', or the name of a split, with the mark of its
        file where it was made with other settings.
      step: optimizer steps that the weights have taken.
      metrics: finite values by name, as the metrics give them.
      examples: images that counted; None if unknown.
      weights: 'ema' or 'raw'; None if unknown.
      images_per_second: None if unknown.
      settings: in what it differs from the evaluations of the training, `key = value` each.
    """

    label: str
    step: int
    metrics: Values
    examples: int | None = None
    weights: str | None = None
    images_per_second: float | None = None
    settings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """A run, as far as its files tell it. What is missing or damaged is empty.

    Attributes:
      model_dir: the run's directory.
      train: lines of metrics.jsonl of kind train, `step` included, by step.
      evals: those of kind eval.
      results: results.json.
      eval_files: eval/*.json by file name.
      run: run.json.
      dataset: dataset_info.json.
      config: the text of config.gin.
      operative_config: that of operative_config.gin.
      model_info: that of model_info.txt.
      notes: what was left out, and why, for the reader.
      running: whether a process on this machine is training in the directory now.
    """

    model_dir: str
    train: list[Values]
    evals: list[Values]
    results: dict[str, Any]
    eval_files: dict[str, dict[str, Any]]
    run: dict[str, Any]
    dataset: dict[str, Any]
    config: str
    operative_config: str
    model_info: str
    notes: list[str]
    running: bool

    @property
    def step(self) -> int:
        """The last step that any of the files tells of."""
        steps = [line['step'] for line in (*self.train[-1:], *self.evals[-1:])]
        steps += [whole(values.get('step')) or 0 for values in (self.results, *self.eval_files.values())]
        return int(max(steps, default=0))

    @property
    def train_steps(self) -> int | None:
        return whole(self.run.get('train_steps'))

    @property
    def batch_size(self) -> int | None:
        return whole(self.run.get('global_batch'))

    @property
    def complete(self) -> bool:
        """Whether the training has reached its end. A run that evaluates writes results.json there, and only there."""
        if self.results:
            return (whole(self.results.get('step')) or 0) >= (self.train[-1]['step'] if self.train else 0)
        return self.run.get('mode') == 'train' and self.train_steps is not None and self.step >= self.train_steps

    @property
    def train_seconds(self) -> float | None:
        """Seconds of training steps over all resumes; None if nothing tells."""
        known = number(self.results.get('train_seconds'))
        if known is not None and self.complete:
            return known
        seconds, before = 0.0, 0.0
        for line in self.train:
            if self.batch_size and line.get('images_per_second'):
                seconds += (line['step'] - before) * self.batch_size / line['images_per_second']
            before = line['step']
        if seconds:
            return seconds
        return max((number(v.get('train_seconds')) or 0.0 for v in self.eval_files.values()), default=0.0) or None

    @property
    def train_images_per_second(self) -> float | None:
        """Images per second of training, without each process' first loop, which holds the tracing."""
        known = number(self.results.get('train_images_per_second'))
        if known is not None and self.complete:
            return known
        rates = sorted(line['images_per_second'] for line in self.train[1:] if 'images_per_second' in line)
        if rates:
            return rates[len(rates) // 2]
        return next((r for v in self.eval_files.values() if (r := number(v.get('train_images_per_second')))), None)

    def evaluations(self) -> list[Evaluation]:
        """The evaluation of the last step first, then that of the best one, then those of `--mode=eval`."""
        decay = mapping(self.run.get('training')).get('OptimizerStep.ema_decay')
        weights = None if decay is None else 'raw' if decay == 'None' else 'ema'
        found = [_of_line('Last', line, weights) for line in self.evals[-1:]]
        if mapping(self.results.get('metrics')) and (not found or whole(self.results.get('step')) >= found[0].step):
            found = [_of_results('Last', self.results)]
        best = self._best(weights)
        if best and found and best.step == found[0].step:
            found[0] = dataclasses.replace(found[0], label='Last and best')
        elif best:
            found.append(best)
        return found + [_of_results(_label(name, v), v) for name, v in self.eval_files.items()]

    def _best(self, weights: str | None) -> Evaluation | None:
        named = mapping(self.results.get('best'))
        step = whole(named.get('step'))
        if step is not None and self.complete:
            lines = [line for line in self.evals if line['step'] == step]
            if lines:
                return _of_line('Best', lines[0], weights)
            return Evaluation('Best', step, finite(named) | {}, weights=weights)
        metric = str(self.run.get('best_metric', 'miou'))
        lines = [line for line in self.evals if metric in line]
        return _of_line('Best', max(lines, key=lambda line: line[metric]), weights) if lines else None


def read(model_dir: str) -> RunFiles:
    """Reads a run's files.

    Raises:
      UserError: if there is no such folder, or no run in it.
    """
    place = f'--model_dir={model_dir}'
    if not os.path.isdir(model_dir):
        raise UserError(f'{place}: there is no such folder. Give the directory of a run, such as runs/deeplab_shapes.')
    notes: list[str] = []
    folder = RunFolder(model_dir)
    train, evals = _metrics(folder.metrics, notes)
    results, run, dataset = (_json(folder, path, notes) for path in (folder.results, folder.run, folder.dataset_info))
    eval_files = {}
    for path in glob.glob(os.path.join(glob.escape(folder.eval), '*.json')):
        name = os.path.basename(path)
        if name.startswith(('confusion-', 'instances-')):  # Details of an evaluation; read where they are needed.
            continue
        values = _json(folder, path, notes)
        if whole(values.get('step')) is not None and mapping(values.get('metrics')):
            eval_files[name.removesuffix('.json')] = values
    eval_files = dict(sorted(eval_files.items(), key=lambda item: (-item[1]['step'], item[0])))
    if whole(results.get('step')) is None:
        results = {}
    if not (train or evals or results or eval_files or run):
        paths = (os.path.join(model_dir, name) for name in sorted(os.listdir(model_dir)))
        inside = [path for path in paths if RunFolder(path).holds_run()]
        hint = f' There is one in {inside[0]}.' if inside else ''
        raise UserError(
            f'{place}: no run was made there: it holds no readable run.json, metrics.jsonl, results.json or '
            f'eval/*.json.{hint} Give the directory that a training was run with.'
        )
    return RunFiles(
        model_dir=model_dir,
        train=train,
        evals=evals,
        results=results,
        eval_files=eval_files,
        run=run,
        dataset=dataset,
        config=_text(folder.config),
        operative_config=_text(folder.operative_config),
        model_info=_text(folder.model_info),
        notes=notes,
        running=is_held(folder),
    )


# Files are what somebody may have edited or cut: nothing is taken to be of the type that it should be.


def number(value: Any) -> float | None:
    """A finite number as a float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # An int beyond every float.
        return None


def whole(value: Any) -> int | None:
    """A number without fraction, of 0 or more, as an int; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def mapping(value: Any) -> dict[str, Any]:
    """A dict, empty for anything else."""
    return value if isinstance(value, dict) else {}


def finite(values: Any) -> Values:
    """The finite numbers of a dict."""
    return {name: found for name, value in mapping(values).items() if (found := number(value)) is not None}


def _of_line(label: str, line: Values, weights: str | None) -> Evaluation:
    metrics = {name: value for name, value in line.items() if name not in ('step', 'examples', 'seconds')}
    examples, seconds = line.get('examples'), line.get('seconds')
    return Evaluation(
        label,
        int(line['step']),
        metrics,
        examples=whole(examples),
        weights=weights,
        images_per_second=examples / seconds if examples and seconds else None,
    )


def _label(name: str, values: dict[str, Any]) -> str:
    """The split, and the mark that stands behind the step, out of `<split>-<step>` or `<split>-<step>-<mark>`."""
    split, found, mark = name.rpartition(f'-{values["step"]}')
    return f'{split} {mark[1:]}'.strip() if found and split else name


def _of_results(label: str, values: dict[str, Any]) -> Evaluation:
    return Evaluation(
        label,
        int(values['step']),
        finite(values.get('metrics')),
        examples=whole(values.get('examples')),
        weights=values['weights'] if values.get('weights') in ('ema', 'raw') else None,
        images_per_second=number(values.get('eval_images_per_second')),
        settings=tuple(map(str, given)) if isinstance(given := values.get('settings'), list) else (),
    )


def _metrics(path: str, notes: list[str]) -> tuple[list[Values], list[Values]]:
    """Reads metrics.jsonl: (train lines, eval lines), each by step. Damaged lines are counted and left out."""
    kinds: dict[str, dict[int, Values]] = {'train': {}, 'eval': {}}
    damaged = 0
    if os.path.isfile(path):
        with open(path, encoding='utf-8', errors='replace') as file:
            for text in file:
                try:
                    line = mapping(json.loads(text))
                except (ValueError, RecursionError):
                    line = {}
                step = whole(line.get('step'))
                if step is None or line.get('kind') not in ('train', 'eval'):
                    damaged += bool(text.strip())
                    continue
                kinds[line['kind']][step] = finite(line) | {'step': step}
    if damaged:
        notes.append(f'Damaged lines of metrics.jsonl, left out: {damaged}.')
    return tuple([kinds[kind][step] for step in sorted(kinds[kind])] for kind in ('train', 'eval'))


def _json(folder: RunFolder, path: str, notes: list[str]) -> dict[str, Any]:
    """Reads a JSON object; empty, with a note, if it is damaged; empty if it is not there."""
    if not os.path.isfile(path):
        return {}
    try:
        values = json.loads(_text(path))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        notes.append(f'{folder.relative(path)} is damaged, and left out.')
    return mapping(values)


def _text(path: str) -> str:
    if not os.path.isfile(path):
        return ''
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()
