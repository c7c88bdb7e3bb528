"""Charts of an evaluation of instances, from its details: precision against recall, and detections by score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seg.report.charts import INK, SERIES, Chart, Series, blank, finished, value_text
from seg.report.run_files import Evaluation, RunFiles
from seg.run.values import mapping, number

_CURVES = {
    'mask_50': 'Masks, IoU 0.5',
    'mask_75': 'Masks, IoU 0.75',
    'box_50': 'Boxes, IoU 0.5',
    'box_75': 'Boxes, IoU 0.75',
}
_LOGARITHMIC_FROM = 30  # Least ratio of the largest count to the smallest for a logarithmic axis.


def instance_charts(run: RunFiles, evaluation: Evaluation | None, notes: list[str]) -> dict[str, Chart]:
    """Draws the charts by the tags of the figures that they replace; those without valid values are missing.

    Args:
      run: the run.
      evaluation: the evaluation with the values.
      notes: gets a note if the file is damaged.
    """
    values = run.read_details(evaluation, 'instances', notes) if evaluation else {}
    best = mapping(values.get('best'))
    found = {
        'precision_recall': _precision_recall(mapping(values.get('precision_recall')), evaluation),
        'score_histogram': _score_histogram(mapping(values.get('score_histogram')), number(best.get('threshold'))),
    }
    return {tag: chart for tag, chart in found.items() if chart is not None}


def _precision_recall(values: Mapping[str, Any], evaluation: Evaluation | None) -> Chart | None:
    recall = _numbers(values.get('recall'))
    curves = {key: _numbers(values.get(key)) for key in _CURVES}
    series = [
        Series(_CURVES[key], recall, precision)
        for key, precision in curves.items()
        if len(precision) == len(recall) > 1
    ]
    if not series:
        return None
    point = [number(evaluation.metrics.get(name)) for name in ('recall', 'precision')]
    with blank('pr') as axes:
        for i, one in enumerate(series):
            axes.plot(one.steps, one.values, color=SERIES[i], linestyle='-' if one.label.startswith('Masks') else '--')
        if None not in point:
            axes.plot(*point, 'o', color=INK, markersize=6)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='Recall', ylabel='precision')
        described = '; '.join(f'{one.label}: {value_text(np.mean(one.values))} on average' for one in series)
        text = f'Precision against recall. {described}.'
        return finished(axes, 'Precision against recall', 'precision', series, 'pr', text, at=lambda x: f'{x:.2f}')


def _score_histogram(values: Mapping[str, Any], threshold: float | None) -> Chart | None:
    edges, right, wrong = (_numbers(values.get(key)) for key in ('edges', 'right', 'wrong'))
    if not (len(right) == len(wrong) == len(edges) - 1 > 0) or min(*right, *wrong) < 0 or np.any(np.diff(edges) <= 0):
        return None
    width = np.diff(edges)
    middles = np.asarray(edges[:-1]) + width / 2
    series = [Series('Right at mask IoU 0.5', middles, right), Series('Wrong', middles, wrong)]
    counts = np.array([*right, *wrong])
    with blank('scores') as axes:
        for i, (one, offset) in enumerate(zip(series, (-0.22, 0.22), strict=True)):
            axes.bar(middles + offset * width, one.values, width=0.4 * width, color=SERIES[i])
        if counts.max() > _LOGARITHMIC_FROM * counts[counts > 0].min(initial=counts.max()):
            axes.set_yscale('log')
            axes.set_ylim(bottom=0.7)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2)
        axes.yaxis.set_major_formatter(lambda count, _: f'{count:,.4g}')
        axes.minorticks_off()
        axes.set(xlim=(0, 1), xlabel='Score', ylabel='detections')
        ranges = dict(zip(middles, zip(edges[:-1], edges[1:], strict=True), strict=True))
        at = lambda x: '{:.2f} to {:.2f}'.format(*ranges[x])  # noqa: E731
        title = 'Detections by score'
        text = f'{title}. {sum(right):,.0f} right, {sum(wrong):,.0f} wrong.'
        return finished(axes, title, 'detections', series, 'scores', text, at=at)


def _numbers(values: Any) -> list[float]:
    """The numbers of a list; empty if it holds anything else."""
    found = [number(value) for value in values] if isinstance(values, list) else []
    return [] if None in found else found


def remarks(charts: Mapping[str, Chart], threshold: float | None) -> Iterator[str]:
    """What the lines and dots of the charts mean."""
    if 'precision_recall' in charts:
        yield 'Precision is the mean over the classes; the dot is at the best score threshold, all classes together.'
    if 'score_histogram' in charts and threshold is not None:
        yield f'The line at {threshold:.2f} is the score threshold with the highest F1.'
