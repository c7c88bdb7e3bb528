"""What an evaluation of objects keeps of each class beside its AP."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from typing import Any

from seg.report.classes import Cell, class_names
from seg.report.run_files import Evaluation, RunFiles, mapping, number
from seg.run.folder import RunFolder

_COLUMNS = {
    'mask_ap50': 'Mask AP50',
    'box_ap50': 'Box AP50',
    'precision': 'Precision',
    'recall': 'Recall',
    'objects': 'Objects',
    'detections': 'Detections',
}
_COUNTS = ('objects', 'detections')


def finds_objects(evaluations: Sequence[Evaluation]) -> bool:
    """Whether these are evaluations of boxes and masks."""
    return any('mask_ap' in e.metrics or 'box_ap' in e.metrics for e in evaluations)


def object_columns(run: RunFiles, evaluation: Evaluation | None) -> dict[str, dict[str, Cell]]:
    """Columns of the table of classes: by their names, what each class has; empty if no file tells.

    A file of the same step may be of another split, or of an evaluation under other settings: only one whose F1 and
    whose limit on detections are the evaluation's own counts.
    """
    if evaluation is None or 'f1' not in evaluation.metrics:
        return {}
    folder = glob.escape(RunFolder(run.model_dir).eval)
    for path in sorted(glob.glob(os.path.join(folder, f'instances-*-{evaluation.step}.json'))):
        try:
            with open(path, encoding='utf-8') as file:
                values = mapping(json.load(file))
        except (OSError, ValueError, RecursionError):
            continue
        rows = values.get('classes')
        rows = [mapping(row) for row in rows] if isinstance(rows, list) else []
        if [row.get('name') for row in rows] == class_names(run) and _is_of(values, evaluation):
            return {title: {row['name']: _cell(key, row.get(key)) for row in rows} for key, title in _COLUMNS.items()}
    return {}


def _is_of(values: dict[str, Any], evaluation: Evaluation) -> bool:
    f1, limit = number(mapping(values.get('best')).get('f1')), number(values.get('max_detections'))
    same_limit = limit == evaluation.metrics.get('max_detections')
    return f1 is not None and abs(f1 - evaluation.metrics['f1']) < 1e-5 and same_limit


def _cell(key: str, value: Any) -> Cell:
    found = number(value)
    if found is None:
        return Cell(None, '')
    return Cell(found, f'{found:,.0f}' if key in _COUNTS else f'{found:.4f}')
