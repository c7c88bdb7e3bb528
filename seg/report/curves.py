"""The curves of a report, from the lines of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seg.report.charts import NUM_COLORS, Chart, Series, line_chart
from seg.report.run_files import RunFiles
from seg.run.evaluations import Evaluation

# Metrics from 0 to 1, which fit on one axis, the most important first.
SCORES = ('miou', 'miou_without_background', 'pixel_accuracy', 'mean_accuracy')
INSTANCE_SCORES = ('mask_ap', 'mask_ap50', 'box_ap', 'box_ap50', 'f1', 'threat_score', 'precision', 'recall')
INSTANCE_SCORES += ('best_threshold',)
COUNTS = ('miou_classes', 'pixels', 'examples', 'objects', 'detections', 'max_detections')
NAMES = {
    'miou': 'mIoU',
    'miou_without_background': 'mIoU without background',
    'pixel_accuracy': 'Pixel accuracy',
    'mean_accuracy': 'Mean accuracy',
    'miou_classes': 'Classes in the mean',
    'pixels': 'Labelled pixels',
    'loss': 'Loss',
    'iou': 'IoU',
    'mask_ap': 'Mask AP',
    'mask_ap50': 'Mask AP50',
    'box_ap': 'Box AP',
    'box_ap50': 'Box AP50',
    'f1': 'F1',
    'best_threshold': 'Score threshold with the best F1',
    'threat_score': 'Threat score',
    'objects': 'Instances',
    'detections': 'Detections',
    'max_detections': 'Limit of detections per class and image',
}
_THINGS = {'rois': 'ROIs', '': 'Counts'}


def name_of(metric: str) -> str:
    """The display name of a metric."""
    return NAMES.get(metric) or metric.replace('_', ' ').capitalize()


def curves(run: RunFiles) -> list[Chart]:
    """Draws every curve that has points."""
    terms = sorted({name for line in run.train for name in line if name.startswith('loss/')})
    evaluated = {name for evaluation in run.evals for name in evaluation.metrics}
    scores = [name for name in (*SCORES, *INSTANCE_SCORES) if name in evaluated][:NUM_COLORS]
    scores += sorted(_other_scores(run.evals))[: max(0, NUM_COLORS - len(scores))]
    main = run.about.best_metric
    loss = [_trained(run, 'Training', 'loss', smooth=True), _evaluated(run, 'Evaluation', 'loss')]
    several = [_trained(run, name.removeprefix('loss/'), name, smooth=True) for name in terms] if terms[1:] else []
    norm = _trained(run, 'Gradient norm', 'gradient_norm', smooth=True)
    speed = _trained(run, 'Training', 'images_per_second', smooth=True)
    waiting = _trained(run, 'Waiting', 'data_wait', factor=100, smooth=True)
    charts = [
        ('Loss', 'loss', loss),
        ('Terms of the training loss', 'loss', several),
        ('Scores of the evaluation', 'share', [_evaluated(run, name_of(name), name) for name in scores]),
        *([(name_of(main), '', [_evaluated(run, name_of(main), main)])] if main not in (*scores, 'loss') else []),
        *_counts(run),
        ('Learning rate', 'learning rate', [_trained(run, 'Learning rate', 'learning_rate')]),
        ('Gradient norm', 'norm before clipping', [norm]),
        ('Training speed', 'images/s', [speed]),
        ('Time spent waiting for data', '% of time', [waiting]),
        ('Memory of the process', 'GiB', [_trained(run, 'Memory', 'host_memory_mb', factor=1 / 1024)]),
    ]
    drawn = []
    for title, unit, series in charts:
        if series := [one for one in series if one.steps]:
            logarithmic = unit in ('loss', 'norm before clipping', 'per image')
            key = f'c{len(drawn)}'
            drawn.append(line_chart(title, unit, series, key=key, last_step=run.step, logarithmic=logarithmic))
    return drawn


def _counts(run: RunFiles) -> Iterator[tuple[str, str, list[Series]]]:
    """Charts of what the losses count, such as `counts/anchors_positive`: one for anchors, one for ROIs, ..."""
    kinds: dict[str, list[str]] = {}
    for name in sorted({name for line in run.train for name in line if name.startswith('counts/')}):
        thing, _, which = name.removeprefix('counts/').partition('_')
        kinds.setdefault(thing if which else '', []).append(name)
    alone = kinds.pop('', []) + [name for names in kinds.values() for name in names if len(names) == 1]
    kinds = {thing: names for thing, names in kinds.items() if len(names) > 1} | ({'': alone} if alone else {})
    for thing, names in kinds.items():
        labels = [name.removeprefix(f'counts/{thing}_').removeprefix('counts/') for name in names]
        title = f'{_THINGS.get(thing, thing.capitalize())} per training image'
        series = [
            _trained(run, label.replace('_', ' ').capitalize(), name, smooth=True)
            for label, name in zip(labels, names, strict=True)
        ]
        yield title, 'per image', series[:NUM_COLORS]


def _other_scores(evaluations: Sequence[Evaluation]) -> set[str]:
    """Further metrics whose values are all from 0 to 1, for instance of a plugin; without metrics of classes."""
    names = {name for evaluation in evaluations for name in evaluation.metrics if '/' not in name}
    names -= {*SCORES, *INSTANCE_SCORES, *COUNTS, 'loss'}
    return {name for name in names if all(0 <= each.metrics.get(name, 0) <= 1 for each in evaluations)}


def _trained(run: RunFiles, label: str, name: str, *, factor: float = 1, smooth: bool = False) -> Series:
    points = {line['step']: line[name] for line in run.train if name in line}
    return Series(label, list(points), [value * factor for value in points.values()], smooth=smooth)


def _evaluated(run: RunFiles, label: str, name: str) -> Series:
    points = {each.step: each.metrics[name] for each in run.evals if name in each.metrics}
    return Series(label, list(points), list(points.values()), points=True)
