"""The data of a report: scores, curves, settings and hardware, read from a run's files."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Callable
from typing import Any

from seg import files
from seg.errors import UserError, did_you_mean
from seg.planner import table
from seg.run import dataset_info, evaluations, results
from seg.run.folder import RunFolder
from seg.run.lock import is_held
from seg.run.metrics_log import Log, MetricsLog
from seg.run.run_json import About
from seg.run.values import Values, finite, mapping, number, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(evaluations.Evaluation):
    """An evaluation as a table shows it.

    Attributes:
      label: heading of its column: 'Last', 'Best', or the name of a split, with the mark of its file if it was made
        with other settings.
    """

    label: str


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The content of a run's files; empty for missing or damaged files.

    Attributes:
      folder: folder of the run.
      train: numbers of the lines of metrics.jsonl of kind train, `step` included, by step.
      evals: the evaluations of the training, by step.
      results: results.json.
      eval_files: results of `--mode=eval` by their files' names without an ending, newest first.
      about: run.json.
      dataset: dataset_info.json.
      config: the text of config.gin.
      operative_config: the text of operative_config.gin.
      model_info: the text of model_info.txt.
      plan: plan.json; empty without one.
      notes: what was omitted, and why, for the reader.
      running: whether a process on this machine is training in the directory now.
    """

    folder: RunFolder
    train: list[Values]
    evals: list[evaluations.Evaluation]
    results: dict[str, Any]
    eval_files: dict[str, dict[str, Any]]
    about: About
    dataset: dict[str, Any]
    config: str
    operative_config: str
    model_info: str
    plan: dict[str, Any]
    notes: list[str]
    running: bool

    @property
    def class_names(self) -> list[str]:
        """The class names of the data set, in their order; empty if unknown."""
        return self.dataset.get('class_names', [])

    @property
    def step(self) -> int:
        """The last step in any of the files."""
        steps = [line['step'] for line in self.train[-1:]] + [evaluation.step for evaluation in self.evals[-1:]]
        steps += [values['step'] for values in (self.results, *self.eval_files.values()) if values]
        return int(max(steps, default=0))

    @property
    def complete(self) -> bool:
        """Whether the training has reached its end. A run that evaluates writes results.json there, and only there."""
        if self.results:
            return self.results['step'] >= (self.train[-1]['step'] if self.train else 0)
        total, evaluates = self.about.train_steps, self.about.evaluates
        if evaluates is None:
            evaluates = bool(self.evals)
        return not evaluates and total is not None and self.step >= total

    @property
    def train_seconds(self) -> float | None:
        """Seconds of training steps over all resumes; None if unknown."""
        known = number(self.results.get('train_seconds'))
        if known is not None and self.complete:
            return known
        seconds, before = 0.0, 0.0
        for line in self.train:
            if self.about.batch_size and line.get('images_per_second'):
                seconds += (line['step'] - before) * self.about.batch_size / line['images_per_second']
            before = line['step']
        if seconds:
            return seconds
        return max((number(v.get('train_seconds')) or 0.0 for v in self.eval_files.values()), default=0.0) or None

    @property
    def train_images_per_second(self) -> float | None:
        """Images per second of training, without the first step of each process, which includes compilation."""
        known = number(self.results.get('train_images_per_second'))
        if known is not None and self.complete:
            return known
        rates = sorted(line['images_per_second'] for line in self.train[1:] if 'images_per_second' in line)
        if rates:
            return rates[len(rates) // 2]
        return next((r for v in self.eval_files.values() if (r := number(v.get('train_images_per_second')))), None)

    def evaluations(self) -> list[Evaluation]:
        """The evaluations: of the last step, of the best step, then by `--mode=eval`."""
        found = [self._shown('Last', evaluation) for evaluation in self.evals[-1:]]
        if self.results and (not found or self.results['step'] >= found[0].step):
            found = [self._shown('Last', evaluations.of_results(self.results))]
        best = self._best()
        if best and found and best.step == found[0].step:
            found[0] = dataclasses.replace(found[0], label='Last and best')
        elif best:
            found.append(self._shown('Best', best))
        for name, values in self.eval_files.items():
            found.append(self._shown(_label(name, values['step']), evaluations.of_results(values), name))
        return found

    def read_details(self, evaluation: Evaluation, kind: str, notes: list[str]) -> dict[str, Any]:
        """Reads one kind of an evaluation's details; empty if there are none, with a note if they are damaged."""
        name = evaluation.details.get(kind)
        path = self.folder.named(name) if name else None
        if path is None or not os.path.exists(path):
            return {}
        return _tried(self.folder, path, lambda: files.read_object(path, ''), {}, notes)

    def _shown(self, label: str, evaluation: evaluations.Evaluation, name: str = '') -> Evaluation:
        """Adds the label, and details and weights if the record is of an older run, which lacks them."""
        details, weights = evaluation.details, evaluation.weights
        if details is None:
            details = evaluations.details_by_name(self.folder, evaluation.step, name)
        if not weights:
            others = [evaluations.of_results(values) for values in (self.results, *self.eval_files.values()) if values]
            weights = next((each.weights for each in others if each.weights), '')
        return Evaluation(**vars(evaluation) | {'label': label, 'details': details, 'weights': weights})

    def _best(self) -> evaluations.Evaluation | None:
        named = mapping(self.results.get('best'))
        step = whole(named.get('step'))
        if step is not None and self.complete:
            lines = [evaluation for evaluation in self.evals if evaluation.step == step]
            metrics = {name: value for name, value in finite(named).items() if name != 'step'}
            return lines[0] if lines else evaluations.Evaluation(step=step, metrics=metrics)
        return evaluations.best(self.evals, self.about.best_metric, self.about.higher_is_better)


def read(model_dir: str) -> RunFiles:
    """Reads a run's files.

    Raises:
      UserError: if there is no such folder, or no run in it.
    """
    if not os.path.isdir(model_dir):
        raise UserError(
            f'--model_dir={model_dir}: there is no such folder.{did_you_mean(model_dir)} Give the directory of a '
            'run, such as runs/deeplab_shapes.'
        )
    folder, notes = RunFolder(model_dir), []
    log = _tried(folder, folder.metrics, MetricsLog(folder.metrics).read, Log([], 0), notes)
    if log.damaged:
        notes.append(f'Damaged lines of {folder.relative(folder.metrics)}, omitted: {log.damaged}.')
    run = RunFiles(
        folder=folder,
        train=[finite(line) | {'step': line['step']} for line in log.by_step('train')],
        evals=[evaluations.of_line(line) for line in log.by_step('eval')],
        results=_tried(folder, folder.results, lambda: results.read(folder.results, ''), None, notes) or {},
        eval_files=_eval_files(folder, notes),
        about=_tried(folder, folder.run, lambda: About.read(folder), About(), notes),
        dataset=_tried(folder, folder.dataset_info, lambda: dataset_info.read_known(folder), {}, notes),
        config=_text(folder.config),
        operative_config=_text(folder.operative_config),
        model_info=_text(folder.model_info),
        plan=_tried(folder, folder.plan, lambda: table.read(folder.plan), {}, notes),
        notes=notes,
        running=is_held(folder),
    )
    if not (run.train or run.evals or run.results or run.eval_files or run.about.known):
        paths = (os.path.join(model_dir, name) for name in sorted(os.listdir(model_dir)))
        inside = [path for path in paths if RunFolder(path).holds_run()]
        hint = f' There is one in {inside[0]}.' if inside else ''
        raise UserError(
            f'--model_dir={model_dir}: no run was made there: it holds no readable run.json, metrics.jsonl, '
            f'results.json or eval/*.json.{hint} Give the directory that a training was run with.'
        )
    return run


def _eval_files(folder: RunFolder, notes: list[str]) -> dict[str, dict[str, Any]]:
    """The results of `--mode=eval`, newest first; the other files are details, which are read when needed."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(folder.eval), '*.json')):
        name = os.path.basename(path).removesuffix('.json')
        if not name.startswith(tuple(f'{kind}-' for kind in evaluations.KNOWN_DETAILS)):
            values = _tried(folder, path, lambda path=path: files.read_object(path, ''), {}, notes)
            if results.are_scores(values) and values['metrics']:
                found[name] = values
    return dict(sorted(found.items(), key=lambda item: (-item[1]['step'], item[0])))


def _label(name: str, step: int) -> str:
    """The split, and the mark if there is one, of `<split>-<step>` or `<split>-<step>-<mark>`."""
    split, found, mark = name.rpartition(f'-{step}')
    return f'{split} {mark[1:]}'.strip() if found and split else name


def _tried(folder: RunFolder, path: str, read: Callable[[], Any], otherwise: Any, notes: list[str]) -> Any:
    """Calls a reader; if the file is damaged, adds a note and returns `otherwise`."""
    try:
        return read()
    except UserError:
        notes.append(f'{folder.relative(path)} is damaged, and omitted.')
        return otherwise


def _text(path: str) -> str:
    if not os.path.isfile(path):
        return ''
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()
