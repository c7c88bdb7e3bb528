"""The report: one HTML page of a run that needs no network and no other file."""

from __future__ import annotations

import os

from absl import logging

from seg.drawing.comparison import DIMMED, WRONG
from seg.drawing.instances import MISSED
from seg.drawing.labels import IGNORED
from seg.errors import UserError
from seg.files import write_text
from seg.planner import table
from seg.report import about, layout, run_files
from seg.report.charts import NUM_COLORS
from seg.report.classes import class_colors, class_table, confusion_of, confusion_table, css_color
from seg.report.curves import curves
from seg.report.figures import DRAWINGS, embed, few_of_each_kind, figure_order, groups
from seg.report.images import ImageTable, image_table
from seg.report.instance_charts import instance_charts, remarks
from seg.report.instances import are_of_instances, instance_columns
from seg.report.run_files import Evaluation, RunFiles
from seg.report.scores import metric_rows, precision_table, tiles
from seg.run import event_files
from seg.run.folder import RunFolder

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_MOST_EVAL_FILES = 4  # Columns for evaluations of --mode=eval, newest first.


def write(model_dir: str, output: str | None = None) -> str:
    """Writes the report of a run, finished or not. It needs neither the data nor the model, nor TensorFlow.

    Args:
      model_dir: the run's directory.
      output: the file to write, replaced if it exists; None for `<model_dir>/report.html`.

    Returns:
      The file's path.

    Raises:
      UserError: if there is no run, or the file cannot be written.
    """
    run = run_files.read(model_dir)
    usual = RunFolder(model_dir).report
    path = os.path.expanduser(output) if output else usual
    if os.path.isdir(path):
        raise UserError(
            f'--output={path}: it is a folder; --mode=report writes one file, such as '
            f'{os.path.join(path, os.path.basename(usual))}.'
        )
    html = render(run)
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        write_text(path, html)
    except OSError as error:
        raise UserError(f'--output={path}: cannot write there: {error.strerror}. Choose another file.') from None
    logging.info('Wrote %s (%.1f MB).', path, len(html) / 1e6)
    return path


def render(run: RunFiles) -> str:
    """The page's HTML."""
    folder, notes = run.folder, list(run.notes)
    evaluations = run.evaluations()
    first = evaluations[0] if evaluations else None
    matrix = confusion_of(run, first, notes)
    further = instance_columns(run, first, notes)
    classes = class_table(run, first, matrix, further)
    confusion = confusion_table(run, matrix)
    in_tables = {'class_iou': classes, 'class_ap': classes, 'class_pixels': matrix is not None and classes}
    own_charts = instance_charts(run, first, notes)
    images = image_table(run, _ranked_by(evaluations) + (' of boxes' if are_of_instances(evaluations) else ''), notes)
    in_tables |= {'confusion_matrix': confusion, **own_charts, **dict.fromkeys(('fixed', 'worst', 'best'), images)}
    stored = [p for p in event_files.figures(folder.eval) if not in_tables.get(p.tag.partition('/')[0])]
    stored += event_files.figures(folder.train)
    figures = embed(few_of_each_kind(sorted(stored, key=figure_order)), notes)
    shown = [e for e in evaluations if e.label.startswith(('Last', 'Best'))]
    shown += evaluations[len(shown) : len(shown) + _MOST_EVAL_FILES]
    if len(shown) < len(evaluations):
        notes.append(f'Older evaluations in eval/ that are not shown: {len(evaluations) - len(shown)}.')
    notes += [f'{e.label}: evaluated with {", ".join(e.settings)}.' for e in shown if e.settings]
    threshold = first.metrics.get('best_threshold') if first else None
    settings = ((folder.operative_config, run.operative_config), (folder.config, run.config))
    return layout.render(
        _FOLDER,
        title=about.title(run),
        script=layout.read(_FOLDER, 'page.js'),
        status=about.status(run),
        facts=about.facts(run),
        tiles=tiles(run, evaluations),
        notes=notes,
        evaluations=shown,
        metrics=metric_rows(shown),
        precision=precision_table(shown),
        classes=classes,
        threshold=threshold if further else None,
        confusion=confusion,
        drawings=[(p, DRAWINGS[p.tag]) for p in figures if p.tag in DRAWINGS],
        of_instances=list(own_charts.values()),
        remarks=list(remarks(own_charts, threshold)),
        charts=curves(run),
        images=images,
        legend=_legend(run, evaluations, images),
        num_colors=NUM_COLORS,
        groups=groups([p for p in figures if p.tag not in DRAWINGS], _ranked_by(evaluations)),
        times=about.times(run),
        hardware=about.hardware(run),
        plan=table.cells(run.plan) if run.plan else [],
        plan_remark=table.footer(run.plan) if run.plan else '',
        commands=about.commands(run),
        settings=[(os.path.basename(path), content) for path, content in settings if content],
        model_dir=os.path.abspath(folder.path),
    )


def _legend(run: RunFiles, evaluations: list[Evaluation], images: ImageTable | None) -> list[tuple[str, str]]:
    """The colours of the images' panels: (meaning, CSS colour)."""
    instances = are_of_instances(evaluations)
    if images is None or not (instances or any('miou' in evaluation.metrics for evaluation in evaluations)):
        return []
    dark = (round(128 * DIMMED),) * 3
    errors = (
        (('errors: missed', MISSED), ('errors: false', WRONG))
        if instances
        else (('ignored', IGNORED), ('errors: right', dark), ('errors: wrong', WRONG))
    )
    colors = class_colors(run, run.class_names, instances)
    return [*zip(run.class_names, colors, strict=True), *((name, css_color(color)) for name, color in errors)]


def _ranked_by(evaluations: list[Evaluation]) -> str:
    """The score by which the worst and the best images are selected."""
    if are_of_instances(evaluations):
        return 'F1'
    return 'mIoU' if any('miou' in evaluation.metrics for evaluation in evaluations) else 'score'
