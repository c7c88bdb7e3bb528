"""The scores of a report: headline numbers, the table of metrics, COCO's average precision and recall."""

from __future__ import annotations

import re
from typing import NamedTuple

from seg.report import text
from seg.report.curves import COUNTS, INSTANCE_SCORES, SCORES, name_of
from seg.report.run_files import Evaluation, RunFiles

_HEADLINES = ('miou', 'pixel_accuracy', 'mask_ap', 'mask_ap50', 'box_ap')
_AP = re.compile(r'(box|mask)_(ap|ar)(50|75|\d+|_small|_medium|_large)?')
_AREAS = {
    'small': 'instances of up to 32 \N{MULTIPLICATION SIGN} 32 pixels',
    'medium': 'larger ones of up to 96 \N{MULTIPLICATION SIGN} 96 pixels',
    'large': 'larger ones',
}


class PrecisionTable(NamedTuple):
    """COCO's numbers of boxes and masks.

    Attributes:
      columns: (heading, evaluation) of each column.
      rows: (name, explanation, (exact, text) by column, None without a value).
      remarks: sentences below the table.
    """

    columns: list[tuple[str, Evaluation]]
    rows: list[tuple[str, str, list[tuple[float, str] | None]]]
    remarks: list[str]


def tiles(run: RunFiles, evaluations: list[Evaluation]) -> list[tuple[str, str, float | None, str]]:
    """The headline numbers: (name, text, exact value or None, remark)."""
    tiles = []
    if evaluations:
        first = evaluations[0]
        best = next((e for e in evaluations[1:] if e.label == 'Best'), None)
        main = run.about.best_metric
        for name in dict.fromkeys(n for n in (main, *_HEADLINES) if n in first.metrics):
            detail = f'step {first.step:,}'
            if best and name in best.metrics:
                detail += f'; {"best " if name == main else ""}{text.share(best.metrics[name])} at step {best.step:,}'
            elif first.label == 'Last and best':
                detail += ', the best one'
            if first.label not in ('Last', 'Best', 'Last and best'):
                detail += f', {first.label}'
            tiles.append((name_of(name), text.share(first.metrics[name]), first.metrics[name], detail))
    elif run.train and 'loss' in run.train[-1]:
        loss = run.train[-1]['loss']
        tiles.append(('Training loss', f'{loss:.4g}', loss, f'step {run.step:,}; not evaluated yet'))
    if run.train_seconds:
        images = f', {run.step * run.about.batch_size:,} images' if run.about.batch_size else ''
        tiles.append(
            ('Training time', text.duration(run.train_seconds), run.train_seconds, f'{run.step:,} steps{images}')
        )
    if run.train_images_per_second:
        speed = next((e.images_per_second for e in evaluations if e.images_per_second), None)
        detail = f'evaluation: {text.rate(speed)} images/s' if speed else ''
        rate = run.train_images_per_second
        tiles.append(('Images per second', text.rate(rate), rate, f'training; {detail}' if detail else 'training'))
    return tiles


def metric_rows(evaluations: list[Evaluation]) -> list[tuple[str, list[tuple[float, str] | None]]]:
    """All metrics except those of classes, important ones first: (name, (exact, text) or None by evaluation)."""
    names = {name for e in evaluations for name in e.metrics if '/' not in name or name.startswith('loss/')}
    names = {name for name in names if not _AP.fullmatch(name)}  # They have their own table.
    losses = sorted((name for name in names if name.startswith('loss')), key=lambda name: (name.count('/'), name))
    if len(losses) == 2:  # A single term is the loss.
        losses = losses[:1]
    others = sorted(
        name for name in names if name not in (*SCORES, *INSTANCE_SCORES, *COUNTS) and not name.startswith('loss')
    )
    order = [
        *(n for n in (*SCORES, *INSTANCE_SCORES) if n in names),
        *others,
        *losses,
        *(n for n in COUNTS if n in names),
    ]
    rows = []
    for name in order:
        show = text.grouped if name in COUNTS else text.share
        values = [e.metrics.get(name) for e in evaluations]
        label = f'Loss: {name.removeprefix("loss/")}' if '/' in name else name_of(name)
        rows.append((label, [None if value is None else (value, show(value)) for value in values]))
    return rows


def precision_table(evaluations: list[Evaluation]) -> PrecisionTable | None:
    """COCO's 12 numbers of boxes and of masks; None if no evaluation has any.

    Means over no instance are missing in the evaluations; a note explains them.
    """
    kinds = [(kind, e) for e in evaluations for kind in ('mask', 'box') if f'{kind}_ap' in e.metrics]
    if not kinds:
        return None
    found = [match for e in evaluations for name in e.metrics if (match := _AP.fullmatch(name))]
    limits = sorted({int(m[3]) for m in found if m[2] == 'ar' and m[3] and m[3].isdecimal()})
    names = {
        'ap': ('AP', 'mean over the IoU thresholds 0.5 to 0.95'),
        'ap50': ('AP50', 'at IoU 0.5'),
        'ap75': ('AP75', 'at IoU 0.75'),
        **{f'ap_{area}': (f'AP {area}', explanation) for area, explanation in _AREAS.items()},
        **{f'ar{n}': (f'AR {n}', f'recall with {text.count(n, "detection")} per class and image') for n in limits},
        **{f'ar_{area}': (f'AR {area}', explanation) for area, explanation in _AREAS.items()},
    }
    rows = []
    for name, (label, explanation) in names.items():
        values = [e.metrics.get(f'{kind}_{name}') for kind, e in kinds]
        rows.append((label, explanation, [None if value is None else (value, text.share(value)) for value in values]))
    missing = [area for area in _AREAS if any(f'{kind}_ap_{area}' not in e.metrics for kind, e in kinds)]
    remarks = []
    if missing:
        remarks.append(f'No score (\N{EN DASH}) for area ranges without an instance: {", ".join(missing)}.')
    limit = {int(e.metrics['max_detections']) for _, e in kinds if 'max_detections' in e.metrics}
    if limit:
        most = ' or '.join(f'{n:,}' for n in sorted(limit))
        remarks.append(f'Per class and image, the {most} detections with the highest scores count.')
    if any('best_threshold' in e.metrics for _, e in kinds):
        remarks.append(
            'F1, threat score, precision and recall: of masks, at IoU 0.5 and the score threshold with the best F1.'
        )
    headings = {'mask': 'Masks', 'box': 'Boxes'}
    return PrecisionTable([(headings[kind], e) for kind, e in kinds], rows, remarks)
