"""The table of classes and the confusion matrix of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seg.drawing.instance_colors import vivid
from seg.drawing.palette import class_palette, instance_palette
from seg.report.curves import name_of
from seg.report.run_files import Evaluation, RunFiles

_MOST_CLASSES = 160  # Larger confusion matrices are shown as the stored chart, not as a table.
_METRICS = ('iou', 'mask_ap', 'box_ap', 'recall', 'accuracy', 'precision')


class Cell(NamedTuple):
    """A fraction from 0 to 1, None if undefined, and its text."""

    value: float | None
    shown: str


class ClassRow(NamedTuple):
    """A class: name, CSS colour, the cell with the bar, and one cell per further column."""

    name: str
    color: str
    main: Cell
    others: list[Cell]


class ClassTable(NamedTuple):
    """The classes, best first: heading of the column with the bars, the other headings, the evaluation, the rows."""

    main: str
    others: list[str]
    evaluation: Evaluation
    rows: list[ClassRow]


class MatrixCell(NamedTuple):
    """A fraction of the pixels of a true class, its text in percent ('' below half a percent), and these pixels."""

    value: float
    shown: str
    pixels: float


class ConfusionTable(NamedTuple):
    """A confusion matrix: class names, and per true class the cells by predicted class; None without pixels."""

    names: list[str]
    rows: list[list[MatrixCell] | None]


def class_table(
    run: RunFiles,
    evaluation: Evaluation | None,
    confusion: np.ndarray | None,
    further: Mapping[str, Mapping[str, Cell]],
) -> ClassTable | None:
    """Makes the table; classes without a score come last. None if there are no scores of classes.

    Args:
      run: the run.
      evaluation: the evaluation with the scores.
      confusion: [K, K] pixels by (true class, predicted class) of the same evaluation, if they are known.
      further: the last columns: the cell of each class by class name, by heading.
    """
    columns: dict[str, dict[str, float]] = {}
    for key, value in (evaluation.metrics if evaluation else {}).items():
        metric, slash, name = key.partition('/')
        if slash and metric != 'loss':
            columns.setdefault(metric, {})[name] = value
    if not columns:
        return None
    names = list(dict.fromkeys([*run.class_names, *(name for column in columns.values() for name in column)]))
    shares: dict[str, dict[str, float]] = {}
    if confusion is not None and len(confusion) == len(names):
        right, truth, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
        columns.setdefault('recall', _ratios(names, right, truth))
        columns.setdefault('precision', _ratios(names, right, predicted))
        shares['True pixels'] = _ratios(names, truth, truth.sum())
        shares['Predicted pixels'] = _ratios(names, predicted, truth.sum())
    trained, _ = run.dataset.get('class_histogram', ((), ()))  # Counted if a loss needs it.
    if len(trained) == len(names) and sum(trained):
        shares['Training pixels'] = _ratios(names, np.asarray(trained), sum(trained))
    kinds = sorted(columns, key=lambda kind: (_METRICS.index(kind) if kind in _METRICS else len(_METRICS), kind))
    instances = 'mask_ap' in columns or 'box_ap' in columns
    colors = class_colors(run, names, instances)

    def row(i: int, name: str) -> ClassRow:
        scores = [_cell(columns[kind].get(name), '{:.4f}') for kind in kinds]
        return ClassRow(
            name,
            colors[i],
            scores[0],
            scores[1:]
            + [_cell(column.get(name), '{:.2%}') for column in shares.values()]
            + [column.get(name) or Cell(None, '') for column in further.values()],
        )

    rows = [row(i, name) for i, name in enumerate(names)]
    rows.sort(key=lambda row: (row.main.value is None, -(row.main.value or 0)))
    return ClassTable(name_of(kinds[0]), [*map(name_of, kinds[1:]), *shares, *further], evaluation, rows)


def confusion_table(run: RunFiles, confusion: np.ndarray | None) -> ConfusionTable | None:
    """Makes the table, in percent of each true class; None if unknown or too large."""
    if confusion is None or len(confusion) > _MOST_CLASSES:
        return None
    truth = confusion.sum(1)
    return ConfusionTable(
        run.class_names,
        [
            [_matrix_cell(float(n), float(truth[i])) for n in row] if truth[i] else None
            for i, row in enumerate(confusion)
        ],
    )


def confusion_of(run: RunFiles, evaluation: Evaluation | None, notes: list[str]) -> np.ndarray | None:
    """Reads the pixel counts [K, K] by (true class, predicted class) of an evaluation; None if no valid file has them.

    Args:
      run: the run.
      evaluation: the evaluation.
      notes: gets a note if the file is damaged.
    """
    values = run.read_details(evaluation, 'confusion', notes) if evaluation else {}
    names = run.class_names
    try:
        matrix = np.array(values.get('pixels'), np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if matrix.shape != (len(names), len(names)) or values.get('class_names') != names or not matrix.size:
        return None
    return matrix if np.isfinite(matrix).all() and matrix.min() >= 0 and matrix.sum() > 0 else None


def _ratios(names: list[str], parts: np.ndarray, wholes) -> dict[str, float]:
    """parts / wholes by class name; classes whose whole is 0 are omitted."""
    wholes = np.broadcast_to(wholes, len(names))
    return {name: float(parts[i] / wholes[i]) for i, name in enumerate(names) if wholes[i]}


def _cell(value: float | None, form: str) -> Cell:
    return Cell(value, '–' if value is None else form.format(value).replace('%', ' %'))


def _matrix_cell(pixels: float, truth: float) -> MatrixCell:
    fraction = pixels / truth
    return MatrixCell(fraction, f'{100 * fraction:.0f}' if fraction >= 0.005 else '', pixels)


def class_colors(run: RunFiles, names: Sequence[str], instances: bool) -> list[str]:
    """CSS colours of the classes as figures show them: from the data set if it has enough, else the default ones."""
    colors = run.dataset.get('colors') or ()
    if len(colors) < len(names):
        colors = instance_palette(len(names)) if instances else class_palette(names)
    return [css_color(vivid(tuple(color)) if instances else color) for color in colors[: len(names)]]


def css_color(color: Sequence[int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*map(int, color))
