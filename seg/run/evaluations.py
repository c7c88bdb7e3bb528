"""Evaluations read from the records of a run, and the choice of the best one."""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from seg.run.folder import RunFolder
from seg.run.values import Values, finite, number, string, strings, whole
from seg.structures import RECORD_KEYS

# Kinds of details of this package's metrics. Records of older runs do not name their files.
KNOWN_DETAILS = ('confusion', 'instances')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one step. A value of the wrong type counts as missing.

    Attributes:
      step: optimizer steps that the weights have taken.
      metrics: finite values by name, as the metrics give them.
      examples: images that counted; None if unknown.
      seconds: duration of the whole pass; None if unknown.
      images_per_second: None if unknown.
      split: split of the data; empty if unknown.
      weights: 'ema' or 'raw'; empty if unknown.
      details: paths in the run's folder by kind; None if the record does not say.
      settings: those that differ from the training's, `key = value` each.
    """

    step: int
    metrics: Values
    examples: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    split: str = ''
    weights: str = ''
    details: Mapping[str, str] | None = None
    settings: tuple[str, ...] = ()


def of_line(line: Mapping[str, Any]) -> Evaluation:
    """Reads a line of metrics.jsonl."""
    examples, seconds = whole(line.get('examples')), number(line.get('seconds'))
    return Evaluation(
        step=line['step'],
        metrics={name: value for name, value in finite(line).items() if name not in RECORD_KEYS},
        examples=examples,
        seconds=seconds,
        images_per_second=examples / seconds if examples and seconds else None,
        **_origin(line),
    )


def of_results(results: Mapping[str, Any]) -> Evaluation:
    """Reads the content of results.json or of a file of --mode=eval."""
    settings = results.get('settings')
    return Evaluation(
        step=results['step'],
        metrics=finite(results['metrics']),
        examples=whole(results.get('examples')),
        images_per_second=number(results.get('eval_images_per_second')),
        settings=tuple(map(str, settings)) if isinstance(settings, list) else (),
        **_origin(results),
    )


def _origin(values: Mapping[str, Any]) -> dict[str, Any]:
    weights = values.get('weights')
    return {
        'split': string(values.get('split')),
        'weights': weights if weights in ('ema', 'raw') else '',
        'details': strings(values['details']) if 'details' in values else None,
    }


def is_better(value: float, than: float, higher_is_better: bool) -> bool:
    return value > than if higher_is_better else value < than


def best(evaluations: Iterable[Evaluation], metric: str, higher_is_better: bool) -> Evaluation | None:
    """The evaluation with the best value of a metric, the first of equals; None if none has the metric."""
    found = None
    for evaluation in evaluations:
        value = evaluation.metrics.get(metric)
        if value is not None and (found is None or is_better(value, found.metrics[metric], higher_is_better)):
            found = evaluation
    return found


def details_by_name(folder: RunFolder, step: int, name: str = '') -> dict[str, str]:
    """Finds the details of an evaluation whose record does not name them, by their file names.

    Args:
      folder: folder of the run.
      step: step of the weights.
      name: name of the file with its scores, without the ending; empty for an evaluation during training. Then its
        split is unknown as well: of several splits, the one with files of the most steps is used.

    Returns:
      Paths in the folder by kind.
    """
    found = {}
    for kind in KNOWN_DETAILS:
        paths = glob.glob(os.path.join(glob.escape(folder.eval), f'{kind}-*.json'))
        matches = [re.fullmatch(rf'{kind}-(.+)-\d+\.json', os.path.basename(path)) for path in paths]
        splits = collections.Counter(match[1] for match in matches if match).most_common()
        names = [name] if name else [f'{split}-{step}' for split, _ in splits]
        candidates = [os.path.join(folder.eval, f'{kind}-{each}.json') for each in names]
        if path := next(filter(os.path.isfile, candidates), None):
            found[kind] = folder.relative(path)
    return found
