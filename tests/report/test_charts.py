"""Charts of the report: smoothing, scales, words, and SVG that fits into a page."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from seg.report import charts
from seg.report.charts import Series


def test_smoothing_keeps_constants_lines_and_length():
    assert np.allclose(charts.smoothed([3.0] * 100), 3)
    line = np.arange(1000.0)
    inner = slice(50, -50)
    assert np.allclose(charts.smoothed(line)[inner], line[inner])
    for length in (1, 2, 3, 30, 999):
        assert charts.smoothed(np.ones(length)).shape == (length,)


def test_smoothing_takes_out_noise_and_has_no_lag():
    steps = np.linspace(0, 2 * np.pi, 2000)
    noisy = np.sin(steps) + np.random.default_rng(0).normal(0, 0.3, 2000)
    error = charts.smoothed(noisy) - np.sin(steps)
    assert np.abs(error).max() < 0.15 and np.abs(error).mean() < 0.04


def ticks(chart):
    return [text.replace('−', '-') for text in re.findall(r'>([^<>]*)</text>', chart.svg)]


def test_scales():
    few = charts.line_chart('Loss', 'loss', [Series('a', [1, 2, 3], [1.0, 2.0, 3.0])], key='x', logarithmic=True)
    wide = charts.line_chart('Loss', 'loss', [Series('a', [1, 2, 3], [1e-3, 1.0, 10.0])], key='x', logarithmic=True)
    linear = charts.line_chart('Loss', 'loss', [Series('a', [1, 2, 3], [1e-3, 1.0, 10.0])], key='x')
    zero = charts.line_chart('Loss', 'loss', [Series('a', [1, 2, 3], [0.0, 1e-3, 10.0])], key='x', logarithmic=True)
    assert {'0.01', '0.1', '1', '10'} <= set(ticks(wide))
    assert '0.01' not in ticks(linear) and '0.01' not in ticks(zero) and '0.01' not in ticks(few)
    assert '0' in ticks(few) and all(chart.svg.count('Step') == 1 for chart in (few, wide, linear))


@pytest.mark.parametrize('values', [[0.0], [0.0, 0.0], [1.0] * 50, [-1.0, 1e-30], [1e300, -1e300], [0.999, 1.0]])
def test_odd_values(values):
    chart = charts.line_chart('T', 'u', [Series('a', range(len(values)), values, smooth=True)], key='x')
    assert 'nan' not in chart.svg.lower() and ElementTree.fromstring(chart.svg) is not None


def test_step_axis_is_that_of_the_run():
    one = [Series('a', [400], [1.0], points=True)]
    assert {'0', '400', '800'} <= set(ticks(charts.line_chart('T', 'u', one, key='x', last_step=800)))
    assert {'0', '400'} <= set(ticks(charts.line_chart('T', 'u', one, key='x')))


def test_shares_end_at_one():
    chart = charts.line_chart('T', 'share', [Series('a', [1, 2], [0.5, 0.99])], key='x')
    assert max(float(text) for text in ticks(chart) if re.fullmatch(r'[\d.]+', text) and '.' in text) <= 1


def test_charts_have_a_description_in_words():
    chart = charts.line_chart('Loss', 'loss', [Series('Training', [10, 20, 3000], [2.0, 0.25, 1.0])], key='x')
    assert chart.text == (
        'Loss. Training: first 2 at step 10, last 1 at step 3,000, lowest 0.25 at step 20, highest 2 at step 10.'
    )
    assert charts.line_chart('L', 'u', [Series('a', [5], [1.0])], key='x').text == 'L. a: only 1 at step 5.'


def test_svg_has_ids_of_its_own_and_no_size():
    drawn = [charts.line_chart('T', 'u', [Series('a', [1, 2], [1, 2], points=True)], key=f'c{i}').svg for i in range(2)]
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in drawn]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip(drawn, ids, strict=True):
        assert set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r'url\(#([^)]*)\)', svg)) == own
        root = ElementTree.fromstring(svg)
        assert root.tag == 'svg' and 'viewBox' in root.attrib and not {'width', 'height'} & set(root.attrib)
        assert 'http' not in svg and '<style' not in svg


def test_a_long_curve_stays_small():
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    chart = charts.line_chart('T', 'u', [Series('a', np.arange(100_000), values, smooth=True)], key='x')
    assert len(chart.svg) < 60_000
