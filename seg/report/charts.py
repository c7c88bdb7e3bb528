"""Charts as inline SVG, coloured by CSS variables of the page, and the values that its script shows on hover."""

from __future__ import annotations

import contextlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

# Placeholders that are replaced by CSS variables of the page, so that one drawing fits light mode, dark mode and paper.
# Series i has the colour --series-<i>.
INK, _GRID = '#0000f0', '#0000f1'
SERIES = ('#0000e0', '#0000e1', '#0000e2', '#0000e3', '#0000e4', '#0000e5')
_VARIABLES = {INK: '--muted', _GRID: '--line'} | {color: f'--series-{i}' for i, color in enumerate(SERIES)}
NUM_COLORS = len(SERIES)

_STYLE = {
    'svg.fonttype': 'none',
    'text.parse_math': False,
    'text.color': INK,
    'font.size': 11.5,
    'axes.labelsize': 11.5,
    'xtick.labelsize': 11,
    'ytick.labelsize': 11,
    'axes.edgecolor': _GRID,
    'axes.facecolor': 'none',
    'axes.labelcolor': INK,
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.axisbelow': True,
    'axes.spines.left': False,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'grid.color': _GRID,
    'grid.linewidth': 0.8,
    'xtick.color': _GRID,
    'ytick.color': _GRID,
    'xtick.labelcolor': INK,
    'ytick.labelcolor': INK,
    'ytick.left': False,
    'lines.linewidth': 1.7,
    'lines.solid_capstyle': 'round',
    'path.simplify_threshold': 0.3,
}
_SIZE = (5.0, 2.9)  # Inches of 72 units; shown about one pixel to the unit, so that text keeps its size.

# The number of points from which a curve is smoothed, and the fraction of it that is averaged for one point.
_SMOOTH_FROM, _WINDOW = 30, 1 / 20
_BAND_FROM, _BINS = 300, 150  # The number of points from which the values are drawn as a band, and its bins.
_LOGARITHMIC_FROM = 50  # Least ratio of the largest value to the smallest for a logarithmic axis.
_MARKERS_TO = 40
_HOVERED = 400  # Values of a curve that hovering shows, evenly spread over it; of shorter curves all.


class Series(NamedTuple):
    """A curve.

    Attributes:
      label: name in the legend, which the page writes.
      steps: [N] x values.
      values: [N] y values, finite.
      smooth: whether it is noisy: a long one is then smoothed, and its single values are shown in a pale colour.
      points: whether the steps are few and far between, and therefore marked.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    smooth: bool = False
    points: bool = False


class Chart(NamedTuple):
    """A chart: title, unit of the y axis, labels of the curves, an SVG element, a description in words, and the values
    that hovering shows, as JSON (`hovered`)."""

    title: str
    unit: str
    labels: list[str]
    svg: str
    text: str
    hover: str


def line_chart(
    title: str, unit: str, series: Sequence[Series], *, key: str, last_step: int = 0, logarithmic: bool = False
) -> Chart:
    """Draws curves over the training steps.

    Args:
      title: title on the page; not drawn.
      unit: label of the y axis.
      series: at least one, with at least one point each; more than `NUM_COLORS` share colours.
      key: makes the ids in the SVG unique in the page; letters and digits.
      last_step: end of the step axis, which begins at 0, so that all charts of a run have the same axis; later data
        extend it.
      logarithmic: whether the y axis may be logarithmic, as for positive values of very different sizes.
    """
    with blank(key) as axes:
        for i, one in enumerate(series):
            _draw(axes, one, SERIES[i % NUM_COLORS])
        values = np.concatenate([np.asarray(one.values, float) for one in series])
        if logarithmic and values.min() > 0 and values.max() / values.min() >= _LOGARITHMIC_FROM:
            axes.set_yscale('log')
            subs = (1, 2, 5) if values.max() / values.min() < 300 else (1,)
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=8))
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        else:
            axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
            axes.margins(y=0.08)
            _not_below_zero(axes, values)
        axes.yaxis.set_major_formatter(value_text)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=(1, 2, 2.5, 5, 10)))
        axes.xaxis.set_major_formatter(_step)
        axes.set_xlim(0, 1.02 * max(last_step, *(max(one.steps) for one in series), 1))
        axes.set_xlabel('Step')
        axes.set_ylabel(unit)
        text = '; '.join(_in_words(one) for one in series)
        return finished(axes, title, unit, series, key, f'{title}. {text}.', at=lambda step: f'{step:,.0f}')


@contextlib.contextmanager
def blank(key: str) -> Iterator[Any]:
    """Axes in the style of the page; to be drawn on, and passed to `finished`, within the context."""
    with matplotlib.rc_context(_STYLE | {'svg.hashsalt': key}):
        figure = Figure(_SIZE, layout='constrained')
        figure.patch.set_alpha(0)
        yield figure.add_subplot()


def finished(
    axes: Any, title: str, unit: str, series: Sequence[Series], key: str, text: str, at: Callable[[float], str]
) -> Chart:
    """Makes the chart of what is drawn; `at` is the text of an x value on hover, the other arguments are as above."""
    file = io.BytesIO()
    axes.figure.savefig(file, format='svg', metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    labels = [one.label for one in series]
    return Chart(title, unit, labels, _inline(file.getvalue(), key), text, hovered(axes, series, at))


def hovered(axes: Any, series: Sequence[Series], at: Callable[[float], str]) -> str:
    """The values of curves where they are drawn, as JSON.

    Returns:
      `name`, of the x axis; `top` and `bottom` of the axes; and `series`: for each curve its `label`, and of its points
      `x` and `y`, fractions of the drawing from its top left, `at` and `value`, as text.
    """
    to_fraction = axes.transData + axes.figure.transFigure.inverted()
    curves = []
    for one in series:
        chosen = np.unique(np.linspace(0, len(one.steps) - 1, min(len(one.steps), _HOVERED)).round().astype(int))
        steps, values = np.asarray(one.steps, float)[chosen], np.asarray(one.values, float)[chosen]
        places = to_fraction.transform(np.stack([steps, values], axis=1))
        curves.append({
            'label': one.label,
            'x': [round(float(x), 4) for x in places[:, 0]],
            'y': [round(float(1 - y), 4) if np.isfinite(y) else 1 for y in places[:, 1]],
            'at': [at(step) for step in steps],
            'value': [value_text(value) for value in values],
        })  # fmt: skip
    box = axes.get_position()
    return json.dumps(
        {'name': axes.get_xlabel(), 'top': round(1 - box.y1, 4), 'bottom': round(1 - box.y0, 4), 'series': curves},
        separators=(',', ':'),
    )


def smoothed(values: Sequence[float]) -> np.ndarray:
    """A centred running mean [N] with a bell-shaped window of a twentieth of the curve: no lag, at any length."""
    values = np.asarray(values, float)
    half = max(1, round(len(values) * _WINDOW / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.convolve(values, window)[half : half + len(values)]
    return padded / np.convolve(np.ones_like(values), window)[half : half + len(values)]


def _draw(axes, one: Series, color: str) -> None:
    if one.smooth and len(one.values) >= _SMOOTH_FROM:
        if len(one.values) < _BAND_FROM:
            axes.plot(one.steps, one.values, color=color, alpha=0.35, linewidth=0.8)
        else:
            pieces = np.array_split(np.asarray(one.values, float), _BINS)
            middles = [steps.mean() for steps in np.array_split(np.asarray(one.steps, float), _BINS)]
            lows, highs = ([extreme(piece) for piece in pieces] for extreme in (np.min, np.max))
            axes.fill_between(middles, lows, highs, color=color, alpha=0.22, linewidth=0)
        axes.plot(one.steps, smoothed(one.values), color=color)
        return
    marked = len(one.values) <= (_MARKERS_TO if one.points else 1)
    axes.plot(one.steps, one.values, color=color, marker='o' if marked else None, markersize=4)


def _not_below_zero(axes, values: np.ndarray) -> None:
    """Limits the y axis: at 0 for values that are never negative, at 1 for fractions."""
    low, high = axes.get_ylim()
    if values.min() >= 0 and (low < 0 or values.min() < 0.4 * values.max()):
        axes.set_ylim(bottom=0)
    if values.max() == values.min() == 0:
        axes.set_ylim(0, 1)
    elif values.max() <= 1 < high:
        axes.set_ylim(top=1 if values.max() < 1 else high)


def value_text(value: float, _=None) -> str:
    mantissa, _, exponent = f'{value:.4g}'.partition('e')
    if exponent:
        return f'{mantissa}e{int(exponent)}'.replace('-', '\N{MINUS SIGN}')
    return f'{value:,.0f}' if abs(value) >= 1000 else mantissa.replace('-', '\N{MINUS SIGN}')


def _step(value: float, _=None) -> str:
    return f'{value / 1000:,.4g}k' if value >= 100_000 else f'{value:,.0f}'


def _in_words(one: Series) -> str:
    last, lowest, highest = len(one.values) - 1, int(np.argmin(one.values)), int(np.argmax(one.values))
    points = {'first': 0, 'last': last, 'lowest': lowest, 'highest': highest} if last else {'only': 0}
    described = [f'{name} {value_text(one.values[i])} at step {one.steps[i]:,.0f}' for name, i in points.items()]
    return f'{one.label}: ' + ', '.join(described)


def _inline(svg: bytes, key: str) -> str:
    """Turns an SVG file into an inline element: no fixed size, unique ids, CSS variables for colours."""
    namespaces = {'': 'http://www.w3.org/2000/svg', 'xlink': 'http://www.w3.org/1999/xlink'}
    root = ElementTree.fromstring(svg)
    text = ElementTree.tostring(root, encoding='unicode')
    href = f'{{{namespaces["xlink"]}}}href'
    for element in root.iter():
        element.tag = element.tag.rpartition('}')[2]
        name = element.attrib.pop('id', None)
        if name and f'#{name}' in text:
            element.set('id', f'{key}-{name}')
        if href in element.attrib:
            element.set('href', f'#{key}-{element.attrib.pop(href)[1:]}')
        if 'clip-path' in element.attrib:
            element.set('clip-path', element.get('clip-path').replace('url(#', f'url(#{key}-'))
        if element.tag == 'text':  # In the page's own font.
            element.set('style', re.sub(r'font-family: [^;]*; ?', '', element.get('style')))
        else:
            element.text = None
        element.tail = None
    for name in ('width', 'height', 'version'):
        root.attrib.pop(name, None)
    for definitions in root.findall('defs'):  # A style sheet would apply to the whole page.
        for style in definitions.findall('style'):
            definitions.remove(style)
    root.set('aria-hidden', 'true')  # The element around it describes the chart in words.
    inline = ElementTree.tostring(root, encoding='unicode')
    for color, variable in _VARIABLES.items():
        inline = inline.replace(color, f'var({variable})')
    return inline
