"""Charts of an evaluation: of pixels (confusion matrix, IoU and frequency of each class) and of instances (precision
and recall, AP of each class, scores).

They use matplotlib's objects without pyplot, so there are no global state and no windows. matplotlib is imported with
the first chart, to keep the start fast. The colours can be distinguished by colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seg.drawing import text

_DPI = 100
_INK, _PALE, _GRID = '#202020', '#606060', '#dddddd'
_BLUE, _ORANGE = '#0072b2', '#e69f00'
_NAME_LENGTH = 24  # Characters.
_NUMBERED = 25  # Classes up to which the cells of a matrix hold numbers.
_MOST = 100  # Largest number of classes in a bar chart.


def confusion_matrix(confusion: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Predicted classes of the pixels of each true class, in percent.

    Args:
      confusion: [K, K] pixels by (true class, predicted class).
      class_names: K names.

    Returns:
      uint8 [h, w, 3]. Rows without a pixel are grey.
    """
    count = len(class_names)
    pixels = confusion.sum(axis=1, keepdims=True)
    fractions = np.divide(confusion, pixels, out=np.full(confusion.shape, np.nan), where=pixels > 0)
    side = max(min(0.5 * count, 10.0), 1.5)  # Inches.
    cell = side / count
    size = float(np.clip(58 * cell, 6, 11))  # Points.
    names = _labels(class_names)
    room = _name_room(names, size)
    upright = room > cell - 0.1
    left, bottom, right, top = room + 0.5, (room if upright else 0.2) + 0.5, 1.0, 0.65
    width = max(left + side + right, 5.0)  # Room for the title.
    figure, axes = _figure(width, bottom + side + top, (left, bottom, side, side))

    image = axes.imshow(fractions, cmap=_blues(), vmin=0, vmax=1, aspect='auto', interpolation='nearest')
    step = int(np.ceil(size / 72 * 1.15 / cell))  # The name of every class, or of as many as fit.
    ticks = range(0, count, step)
    shown = [names[i] for i in ticks]
    axes.set_yticks(ticks, shown, fontsize=size, color=_INK)
    axes.set_xticks(ticks, shown, fontsize=size, color=_INK, rotation=90 if upright else 0)
    axes.set_xlabel('predicted', color=_PALE)
    axes.set_ylabel('true', color=_PALE)
    _title(
        figure,
        'Predicted classes of the pixels of each true class'
        + (', in percent' if count <= _NUMBERED else '')
        + ('\nGrey: a class without true pixels' if not pixels.all() else ''),
    )
    axes.tick_params(length=0)
    if count <= _NUMBERED:
        for row, column in zip(*np.nonzero(fractions >= 0.005), strict=True):
            fraction = fractions[row, column]
            axes.text(
                column, row, f'{100 * fraction:.0f}',
                ha='center', va='center', fontsize=size, color='white' if fraction > 0.55 else _INK,
            )  # fmt: skip
    bar_box = _in_figure(figure, left + side + 0.15, bottom, 0.16, side)
    bar = figure.colorbar(image, cax=figure.add_axes(bar_box), ticks=(0, 0.25, 0.5, 0.75, 1))
    bar.ax.set_yticklabels([f'{p} %' for p in (0, 25, 50, 75, 100)], fontsize=9, color=_PALE)
    bar.outline.set_visible(False)
    for spine in axes.spines.values():
        spine.set_edgecolor(_GRID)
    return _pixels(figure)


def class_iou(ious: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """IoU of each class as a bar, highest first, and their mean as a line.

    Args:
      ious: [K] fractions; NaN for a class that does not occur, which gets no bar.
      class_names: K names.

    Returns:
      uint8 [h, w, 3].
    """
    found = np.flatnonzero(~np.isnan(ious))
    order = found[np.argsort(-ious[found], kind='stable')]
    if cut := len(order) > _MOST:
        order = np.concatenate([order[: _MOST // 2], order[-(_MOST // 2) :]])
    names = _labels(class_names)
    figure, axes, size = _bars([names[c] for c in order])
    rows, values = np.arange(len(order)), ious[order]
    axes.barh(rows, values, height=0.72, color=_BLUE)
    mean = float(ious[found].mean())
    axes.axvline(mean, color=_ORANGE, linewidth=2)
    for row, value in zip(rows, values, strict=True):
        axes.text(value + 0.01, row, f'{value:.2f}', va='center', fontsize=size, color=_INK,
                  bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5, 'alpha': 0.8})  # fmt: skip
    axes.set_xlim(0, 1.08)
    axes.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1.0), ['0', '0.2', '0.4', '0.6', '0.8', '1'], fontsize=9, color=_PALE)
    title = f'IoU of each class; orange: their mean, {mean:.3f}'
    if absent := len(class_names) - len(found):
        title += f'; {absent} of {len(class_names)} classes do not occur'
    _title(figure, title + (f'\nThe {_MOST // 2} highest and the {_MOST // 2} lowest of {len(found)}' if cut else ''))
    return _pixels(figure)


def class_pixels(truth: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Fraction of the labelled pixels of each class in the truth and in the predictions, most frequent first.

    The axis is logarithmic if the fractions differ by more than a factor of 30.

    Args:
      truth: [K] pixels.
      predicted: [K] pixels.
      class_names: K names.

    Returns:
      uint8 [h, w, 3].
    """
    fractions = np.stack([truth, predicted]) / max(int(truth.sum()), 1)
    found = np.flatnonzero(fractions.sum(axis=0))
    order = found[np.argsort(-fractions[0, found], kind='stable')][:_MOST]
    names = _labels(class_names)
    figure, axes, size = _bars([names[c] for c in order], lines=2)
    fractions = fractions[:, order]
    lowest = fractions[fractions > 0].min()
    logarithmic = fractions.max() > 30 * lowest
    # A logarithmic axis starts at a power of ten below all bars, but not below 0.001 %.
    start = max(10.0 ** np.floor(np.log10(lowest) - 0.3), 1e-5) if logarithmic else 0.0
    rows = np.arange(len(order))
    for series, (offset, color) in enumerate(((-0.2, _BLUE), (0.2, _ORANGE))):
        values = fractions[series]
        axes.barh(rows + offset, np.maximum(values - start, 0), left=start, height=0.38, color=color)
        for row, value in zip(rows, values, strict=True):
            axes.text(
                max(value, start), row + offset, f' {_percent(value)}', va='center', fontsize=size * 0.85, color=_INK
            )
    if logarithmic:
        axes.set_xscale('log')
        axes.set_xlim(start, fractions.max() * (fractions.max() / start) ** 0.12)
        ticks = [10.0**e for e in range(round(np.log10(start)), 1) if 10.0**e <= fractions.max() * 1.5]
        axes.set_xticks([], minor=True)
    else:
        top = fractions.max()
        axes.set_xlim(0, top * 1.12)
        step = next(s for s in 10.0 ** np.floor(np.log10(top)) * np.array((0.2, 0.5, 1, 2)) if top <= 5.001 * s)
        ticks = list(np.arange(0, top * 1.001, step))
    axes.set_xticks(ticks, [f'{100 * t:.3g} %' for t in ticks], fontsize=9, color=_PALE)
    title = f'Fraction of the labelled pixels; blue: truth, orange: predicted{" (log scale)" if logarithmic else ""}'
    _title(figure, title + (f'\nThe {_MOST} most frequent of {len(found)} classes' if len(found) > _MOST else ''))
    return _pixels(figure)


def precision_recall(
    curves: Mapping[tuple[str, float], np.ndarray], recall: float, precision: float | None
) -> np.ndarray:
    """Precision against recall, and the point of the best score threshold.

    Args:
      curves: by ('box' or 'mask', IoU threshold) the precision at evenly spaced recalls from 0 to 1.
      recall: recall at the best threshold.
      precision: precision at the best threshold; None without detections.

    Returns:
      uint8 [h, w, 3].
    """
    figure, axes = _figure(5.6, 6.1, (0.65, 1.3, 4.6, 4.1))
    colors = dict(zip(sorted({iou for _, iou in curves}), (_BLUE, _ORANGE, _INK), strict=False))
    for (kind, iou), precisions in curves.items():
        style, order = ('-', 2) if kind == 'mask' else (':', 3)  # Dots over lines, which are mostly close together.
        axes.plot(
            np.linspace(0, 1, len(precisions)), precisions, style, color=colors[iou], linewidth=2,
            label=f'{kind}, IoU {iou:g}', zorder=order,
        )  # fmt: skip
    if precision is not None:
        axes.plot([recall], [precision], 'o', color=_INK, markersize=6, zorder=4, label='best F1: mask, IoU 0.5')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks((0, 0.2, 0.4, 0.6, 0.8, 1.0), ['0', '0.2', '0.4', '0.6', '0.8', '1'], fontsize=9, color=_PALE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel('recall', color=_PALE)
    axes.set_ylabel('precision', color=_PALE)
    # Below the axes, where it hides no curve.
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.12), ncol=2, fontsize=9, frameon=False, labelcolor=_INK)
    _bare(axes)
    _title(
        figure,
        'Precision against recall, mean over the classes\nDot: at the best score threshold, all classes together',
    )
    return _pixels(figure)


def class_ap(masks: np.ndarray, boxes: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """AP of each class as two bars, one of masks and one of boxes; highest mask AP first.

    Args:
      masks: [K] fractions; NaN for a class without instances, which gets no bar.
      boxes: [K] fractions, NaN for the same classes; at least one class has instances.
      class_names: K names.

    Returns:
      uint8 [h, w, 3].
    """
    found = np.flatnonzero(~np.isnan(masks))
    order = found[np.argsort(-masks[found], kind='stable')]
    if cut := len(order) > _MOST:
        order = np.concatenate([order[: _MOST // 2], order[-(_MOST // 2) :]])
    names = _labels(class_names)
    figure, axes, size = _bars([names[c] for c in order], lines=2)
    rows = np.arange(len(order))
    for values, offset, color in ((masks[order], -0.2, _BLUE), (boxes[order], 0.2, _ORANGE)):
        axes.barh(rows + offset, values, height=0.38, color=color)
        for row, value in zip(rows, values, strict=True):
            axes.text(value + 0.01, row + offset, f'{value:.2f}', va='center', fontsize=size * 0.85, color=_INK)
    axes.set_xlim(0, 1.08)
    axes.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1.0), ['0', '0.2', '0.4', '0.6', '0.8', '1'], fontsize=9, color=_PALE)
    title = f'AP of each class; blue: masks, mean {masks[found].mean():.3f}; orange: boxes, {boxes[found].mean():.3f}'
    notes = [f'The {_MOST // 2} highest and the {_MOST // 2} lowest of {len(found)}'] if cut else []
    if absent := len(class_names) - len(found):
        notes.append(f'no instance: {absent} of {len(class_names)} classes')
    _title(figure, title + ('\n' + '; '.join(notes) if notes else ''))
    return _pixels(figure)


def score_histogram(right: np.ndarray, wrong: np.ndarray, threshold: float | None) -> np.ndarray:
    """Histogram of the scores of right and of wrong detections.

    The axis is logarithmic if the numbers differ by more than a factor of 30.

    Args:
      right: [N] numbers of detections in N equal bins of the score, from 0 to 1.
      wrong: [N], the same.
      threshold: the best score threshold, drawn as a line; None for none.

    Returns:
      uint8 [h, w, 3].
    """
    figure, axes = _figure(7.0, 4.4, (0.8, 0.6, 5.9, 2.95))
    part = 1 / len(right)
    counts = np.concatenate([right, wrong])
    logarithmic = counts.max() > 30 * counts[counts > 0].min(initial=counts.max())
    for values, offset, color in ((right, 0.28, _BLUE), (wrong, 0.72, _ORANGE)):
        axes.bar((np.arange(len(values)) + offset) * part, values, width=0.4 * part, color=color)
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1.5)
    if logarithmic:
        axes.set_yscale('log')
        axes.set_ylim(0.7, counts.max() * 1.6)
        powers = 10 ** np.arange(len(str(counts.max())))
        axes.set_yticks([], minor=True)
        axes.set_yticks(powers, [f'{power:,}' for power in powers])
    else:
        axes.set_ylim(0, max(counts.max(), 1) * 1.08)
        axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(0, 1)
    axes.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1.0), ['0', '0.2', '0.4', '0.6', '0.8', '1'], fontsize=9, color=_PALE)
    axes.tick_params(axis='y', labelsize=9, labelcolor=_PALE)
    axes.set_xlabel('score', color=_PALE)
    axes.set_ylabel('detections', color=_PALE)
    _bare(axes)
    scale = ' (log scale)' if logarithmic else ''
    title = f'Scores of the detections{scale}; blue: right at mask IoU 0.5, orange: wrong'
    _title(figure, title + ('' if threshold is None else f'\nLine: the threshold with the highest F1, {threshold:.2f}'))
    return _pixels(figure)


def _percent(fraction: float) -> str:
    """Two significant digits, without an exponent."""
    if not fraction:
        return '0 %'
    decimals = max(0, 1 - int(np.floor(np.log10(100 * fraction))))
    return f'{100 * fraction:.{min(decimals, 8)}f} %'


def _labels(class_names: Sequence[str]) -> list[str]:
    return [
        text.shorten(text.class_label(name, i), lambda cut: len(cut) <= _NAME_LENGTH)
        for i, name in enumerate(class_names)
    ]


def _name_room(names: Sequence[str], size: float) -> float:
    """Width in inches of the longest of these names in a font of `size` points."""
    from PIL import ImageFont

    font = ImageFont.truetype(text.font_path(), 100, layout_engine=ImageFont.Layout.BASIC)
    return max(font.getlength(name) for name in names) / 100 * size / 72


def _bars(names: Sequence[str], lines: int = 1):
    """A figure for horizontal bars, first name on top. Returns it, its axes and the font size of the bars."""
    step = min((10 + 6 * lines) / len(names), 0.2 + 0.08 * lines)  # Inches per row.
    size = min(72 * step / (1.3 if lines == 1 else 1.9), 10)  # Points.
    left, bottom, top, width, height = _name_room(names, size) + 0.25, 0.4, 0.65, 6.0, step * len(names)
    figure, axes = _figure(left + width + 0.35, bottom + height + top, (left, bottom, width, height))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=size, color=_INK)
    _bare(axes, 'x')
    return figure, axes, size


def _bare(axes, grid: str = 'both') -> None:
    """Removes ticks and frame, and draws a pale grid behind the data."""
    axes.tick_params(which='both', length=0)
    axes.grid(axis=grid, color=_GRID)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _figure(width: float, height: float, box: tuple[float, float, float, float]):
    """A white figure of this size in inches, with axes in a box of (left, bottom, width, height) inches."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=_DPI, facecolor='white')
    return figure, figure.add_axes(_in_figure(figure, *box), facecolor='white')


def _in_figure(figure, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
    """A box in inches as matplotlib takes it: in fractions of the figure."""
    total_width, total_height = figure.get_size_inches()
    return left / total_width, bottom / total_height, width / total_width, height / total_height


def _title(figure, title: str) -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.012, 1 - 0.14 / height, title, fontsize=11, color=_INK, va='top', linespacing=1.3)


def _blues():
    from matplotlib import colormaps

    return colormaps['Blues'].with_extremes(bad='#eeeeee')


def _pixels(figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for part in figure.findobj(Text):  # A dollar sign in a name does not start a formula.
        part.set(parse_math=False, usetex=False, fontfamily=text.FAMILY)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
