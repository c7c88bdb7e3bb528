"""Writes the tables of docs/results.md and README.md from `experiments/*/results.json`.

    python tools/results.py

Each of these files has the facts of one experiment: `title`, `data`, `command`, `scores` ({name in the tables: name of
the metric}), `runs` (one for each seed) and `evaluations` (others of a run: `what`, `seed`, `command`, `results`).
`results` is what the run's own `results.json` held. A fact that was not recorded is null. What is written lies between
two comments of each page; the text around them is written by hand.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seg import files  # noqa: E402
from seg.errors import UserError  # noqa: E402
from seg.planner import tables  # noqa: E402

BEGIN, END = '<!-- Made by python tools/results.py -->', '<!-- The end of what is made -->'
UNKNOWN = 'not recorded'
_README_SCORES = 2  # Of each experiment, in README.


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      seed: `RunConfig.seed`.
      precision: that of the activations.
      hardware: processors or accelerators.
      machine: kind and number of what was used, as in seg/planner/prices.json, such as ['cpu', 2] for two cores.
      load: their other work at that time, such as 'much'.
      minutes: of the whole command; None: not recorded.
      cpu_seconds: of the whole command; None: not recorded.
      commit: of this repository; None: not recorded.
      results: what `results.json` held: `step`, `metrics`, `train_seconds`, …
    """

    seed: int
    precision: str
    hardware: str
    machine: tuple[str, int]
    load: str
    minutes: float | None
    cpu_seconds: float | None
    commit: str | None
    results: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Another evaluation of the run with a seed: `what` differs, and its command."""

    what: str
    seed: int
    command: str
    results: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The facts of a folder under `experiments/`, see the top of this file."""

    name: str
    title: str
    data: str
    command: str
    scores: dict[str, str]
    runs: Sequence[Run]
    evaluations: Sequence[Evaluation]

    @classmethod
    def read(cls, path: pathlib.Path) -> Experiment:
        """Reads a file.

        Raises:
          UserError: with the file, if a key is missing or unknown, or there is no run.
        """
        values = files.read_object(str(path), 'Restore it.')
        try:
            runs = [Run(**run) for run in values.pop('runs')]
            evaluations = [Evaluation(**evaluation) for evaluation in values.pop('evaluations')]
            experiment = cls(path.parent.name, **values, runs=runs, evaluations=evaluations)
            for results in (found.results for found in (*runs, *evaluations)):
                experiment.values(results)
        except (TypeError, KeyError) as error:
            raise UserError(f'{path}: {error}. The head of tools/results.py has the keys.') from error
        if not runs:
            raise UserError(f"{path}: 'runs' is empty; expected a run for each seed.")
        return experiment

    def values(self, results: dict[str, Any]) -> list[float]:
        """The scores of one result, in the order of `scores`."""
        return [results['metrics'][metric] for metric in self.scores.values()]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (head, ['---'] * len(head), *rows))


def score(values: Sequence[float]) -> str:
    """A mean; of several values also the least and the greatest."""
    mean = f'{statistics.mean(values):.3f}'
    return mean if len(values) == 1 else f'{mean} ({min(values):.3f} to {max(values):.3f})'


def duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'


def cost(run: Run) -> str:
    """What the whole command costs on a rented machine of this kind; of the training, if only that was recorded."""
    usd, _ = tables.prices().of(*run.machine)
    hours = run.results['train_seconds'] / 3600 if run.minutes is None else run.minutes / 60
    return UNKNOWN if usd is None else f'{usd * hours:.3f}'


def rate(results: dict[str, Any], name: str) -> str:
    return f'{results[name]:.1f}' if name in results else UNKNOWN


def summary(experiments: Iterable[Experiment]) -> str:
    """The table of README: a row for each experiment, and for each other evaluation."""
    rows = []
    for experiment in experiments:
        runs, names = experiment.runs, list(experiment.scores)[:_README_SCORES]
        scores = zip(*(experiment.values(run.results) for run in runs), strict=True)
        rows.append(
            (
                f'[{experiment.title}](experiments/{experiment.name})',
                experiment.data,
                ', '.join(f'{name} {score(values)}' for name, values in zip(names, scores, strict=False)),
                ' and '.join(duration(run.results['train_seconds']) for run in runs),
                '; '.join(dict.fromkeys(run.hardware for run in runs)),
                ' and '.join(map(cost, runs)),
                ', '.join(str(run.seed) for run in runs),
            )
        )
        for evaluation in experiment.evaluations:
            values = experiment.values(evaluation.results)
            scores = ', '.join(f'{name} {score([value])}' for name, value in zip(names, values, strict=False))
            rows.append((f'the same, {evaluation.what}', 'the same', scores, '', '', '', str(evaluation.seed)))
    return table(
        ('experiment', 'data', 'result', 'training', 'hardware', f'USD ({tables.prices().date})', 'seed'), rows
    )


def section(experiment: Experiment) -> str:
    """What docs/results.md says of an experiment: commands, and a table with a column for each run and evaluation."""
    runs, evaluations = experiment.runs, experiment.evaluations
    scored = [found.results for found in (*runs, *evaluations)]
    rows = [
        (name, *(score([values[i]]) for values in map(experiment.values, scored)))
        for i, name in enumerate(experiment.scores)
    ]
    facts = {
        'steps': [f'{results["step"]:,}' for results in scored],
        'images/s in evaluation': [rate(results, 'eval_images_per_second') for results in scored],
        'training': [duration(run.results['train_seconds']) for run in runs],
        'images/s in training': [rate(run.results, 'train_images_per_second') for run in runs],
        'whole command': [duration(None if run.minutes is None else 60 * run.minutes) for run in runs],
        'CPU time of the whole command': [duration(run.cpu_seconds) for run in runs],
        'hardware': [run.hardware for run in runs],
        f'USD, prices of {tables.prices().date}': [cost(run) for run in runs],
        'its other work': [run.load for run in runs],
        'precision': [run.precision for run in runs],
        'commit': [run.commit or UNKNOWN for run in runs],
    }
    rows += [(name, *cells, *[''] * (len(scored) - len(cells))) for name, cells in facts.items()]
    head = ('', *(f'seed {run.seed}' for run in runs), *(f'seed {found.seed}, {found.what}' for found in evaluations))
    parts = [
        f'## {experiment.title}',
        f'Data: {experiment.data}. More: [experiments/{experiment.name}](../experiments/{experiment.name}/README.md).',
        '```sh\n' + '\n'.join([experiment.command, *(found.command for found in evaluations)]) + '\n```',
        table(head, rows),
    ]
    if len(runs) > 1:
        columns = zip(*(experiment.values(run.results) for run in runs), strict=True)
        means = [f'{name} {score(values)}' for name, values in zip(experiment.scores, columns, strict=True)]
        parts.append(f'Mean, and least and greatest, of {len(runs)} seeds: {", ".join(means)}.')
    return '\n\n'.join(parts)


def pages() -> dict[pathlib.Path, str]:
    """{page: its text with the present tables}.

    Raises:
      UserError: if a file of an experiment or the comments of a page are not as expected.
    """
    experiments = [Experiment.read(path) for path in sorted((ROOT / 'experiments').glob('*/results.json'))]
    made = {
        ROOT / 'README.md': summary(experiments),
        ROOT / 'docs' / 'results.md': '\n\n'.join(map(section, experiments)),
    }
    return {page: replaced(page, text) for page, text in made.items()}


def replaced(page: pathlib.Path, made: str) -> str:
    text = page.read_text(encoding='utf-8')
    changed, count = re.subn(f'{BEGIN}.*?{END}', lambda _: f'{BEGIN}\n\n{made}\n\n{END}', text, flags=re.DOTALL)
    if count != 1:
        raise UserError(f'{page}: expected one {BEGIN} with one {END} after it; found {count}.')
    return changed


def main() -> int:
    try:
        for page, text in pages().items():
            files.write_text(str(page), text)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
