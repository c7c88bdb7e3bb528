"""Columns of the class table from the details of an instance evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg.report.classes import Cell
from seg.report.run_files import Evaluation, RunFiles
from seg.run.values import mapping, number

_COLUMNS = {
    'mask_ap50': 'Mask AP50',
    'box_ap50': 'Box AP50',
    'precision': 'Precision',
    'recall': 'Recall',
    'objects': 'Instances',
    'detections': 'Detections',
}
_COUNTS = ('objects', 'detections')


def are_of_instances(evaluations: Sequence[Evaluation]) -> bool:
    """Whether these evaluations have AP of boxes or masks."""
    return any('mask_ap' in e.metrics or 'box_ap' in e.metrics for e in evaluations)


def instance_columns(run: RunFiles, evaluation: Evaluation | None, notes: list[str]) -> dict[str, dict[str, Cell]]:
    """Reads the columns: the cell of each class by heading; empty if no valid file has them.

    Args:
      run: the run.
      evaluation: the evaluation with the classes.
      notes: gets a note if the file is damaged.
    """
    rows = run.read_details(evaluation, 'instances', notes).get('classes') if evaluation else None
    rows = [mapping(row) for row in rows] if isinstance(rows, list) else []
    if not rows or [row.get('name') for row in rows] != run.class_names:
        return {}
    return {title: {row['name']: _cell(key, row.get(key)) for row in rows} for key, title in _COLUMNS.items()}


def _cell(key: str, value: Any) -> Cell:
    found = number(value)
    if found is None:
        return Cell(None, '')
    return Cell(found, f'{found:,.0f}' if key in _COUNTS else f'{found:.4f}')
