"""Which curves a report shows, from the lines of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence

from seg.report.charts import NUM_COLORS, Chart, Series, line_chart
from seg.report.run_files import RunFiles, Values

# Metrics that are shares, hence can share an axis, in the order of their importance.
SCORES = ('miou', 'miou_without_background', 'pixel_accuracy', 'mean_accuracy')
COUNTS = ('miou_classes', 'pixels', 'examples')
NAMES = {
    'miou': 'mIoU',
    'miou_without_background': 'mIoU without background',
    'pixel_accuracy': 'Pixel accuracy',
    'mean_accuracy': 'Mean accuracy',
    'miou_classes': 'Classes in the mean',
    'pixels': 'Labelled pixels',
    'loss': 'Loss',
    'iou': 'IoU',
}


def name_of(metric: str) -> str:
    """A metric's name for people."""
    return NAMES.get(metric) or metric.replace('_', ' ').capitalize()


def curves(run: RunFiles) -> list[Chart]:
    """Draws every curve that the run has points for."""
    terms = sorted({name for line in run.train for name in line if name.startswith('loss/')})
    scores = [name for name in SCORES if any(name in line for line in run.evals)]
    scores += sorted(_other_scores(run.evals))[: max(0, NUM_COLORS - len(scores))]
    loss = [_trained(run, 'Training', 'loss', smooth=True), _evaluated(run, 'Evaluation', 'loss')]
    several = [_trained(run, name.removeprefix('loss/'), name, smooth=True) for name in terms] if terms[1:] else []
    norm = _trained(run, 'Gradient norm', 'gradient_norm', smooth=True)
    speed = _trained(run, 'Training', 'images_per_second', smooth=True)
    waiting = _trained(run, 'Waiting', 'data_wait', factor=100, smooth=True)
    charts = [
        ('Loss', 'loss', loss),
        ('Terms of the training loss', 'loss', several),
        ('Scores of the evaluation', 'share', [_evaluated(run, name_of(name), name) for name in scores]),
        ('Learning rate', 'learning rate', [_trained(run, 'Learning rate', 'learning_rate')]),
        ('Gradient norm', 'norm before clipping', [norm]),
        ('Speed of training', 'images/s', [speed]),
        ('Time spent waiting for data', '% of time', [waiting]),
        ('Memory of the process', 'GiB', [_trained(run, 'Memory', 'host_memory_mb', factor=1 / 1024)]),
    ]
    drawn = []
    for title, unit, series in charts:
        if series := [one for one in series if one.steps]:
            logarithmic = unit in ('loss', 'norm before clipping')
            key = f'c{len(drawn)}'
            drawn.append(line_chart(title, unit, series, key=key, last_step=run.step, logarithmic=logarithmic))
    return drawn


def _other_scores(lines: Sequence[Values]) -> set[str]:
    """Further metrics of the whole data set that look like shares, such as those of a plugin."""
    names = {name for line in lines for name in line if '/' not in name} - {*SCORES, *COUNTS, 'loss', 'step', 'seconds'}
    return {name for name in names if all(0 <= line.get(name, 0) <= 1 for line in lines)}


def _trained(run: RunFiles, label: str, name: str, *, factor: float = 1, smooth: bool = False) -> Series:
    points = _points(run.train, name)
    return Series(label, list(points), [value * factor for value in points.values()], smooth=smooth)


def _evaluated(run: RunFiles, label: str, name: str) -> Series:
    points = _points(run.evals, name)
    return Series(label, list(points), list(points.values()), points=True)


def _points(lines: Sequence[Values], name: str) -> dict[float, float]:
    return {line['step']: line[name] for line in lines if name in line}
