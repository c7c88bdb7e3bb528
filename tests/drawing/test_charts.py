"""Charts of an evaluation."""

import numpy as np
import pytest

from seg.drawing import charts

VOC = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable',
    'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
BLUE, ORANGE, EMPTY_ROW = (0, 114, 178), (230, 159, 0), (238, 238, 238)


def confusion(k, seed=0):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(k, 0.2), k) * 0.4 + np.eye(k) * 0.6
    return (shares * random.lognormal(0, 2, (k, 1)) * 1e6).astype(np.int64)


def draw(matrix, names):
    """All three charts of a confusion matrix."""
    right, truth, predicted = np.diagonal(matrix), matrix.sum(1), matrix.sum(0)
    union = truth + predicted - right
    ious = np.divide(right, union, out=np.full(len(names), np.nan), where=union > 0)
    return (
        charts.confusion_matrix(matrix, names),
        charts.class_iou(ious, names),
        charts.class_pixels(truth, predicted, names),
    )


def where(pixels, color):
    return np.all(pixels == color, axis=-1)


def bars(pixels, color):
    """Lengths in pixels of the bars of a colour, from the top. (Rows that a bar's edge blends are left out.)"""
    mask = where(pixels, color)
    rows = np.flatnonzero(mask.sum(1) > 1)
    groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [int(np.median(mask[group].sum(1))) for group in groups if len(group)]


@pytest.fixture(scope='module')
def drawn():
    return draw(confusion(21), VOC)


def test_sizes(drawn):
    for pixels in drawn:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert 300 < pixels.shape[0] < 1300 and 600 < pixels.shape[1] < 1400


@pytest.mark.parametrize(
    'names',
    [
        ('nucleus',),
        ('a', 'b'),
        ('Straße', 'дорога', '道路'),
        ('$x_1$', '$\\frac{', '_hidden', '100%', '<b>'),
        ('n' * 300, 'wide ' * 60, 'x'),
        ('two\nlines', ' ', 'tab\there'),
        VOC[:11],
        VOC,
        tuple(f'a thing of kind {i}' for i in range(150)),
    ],
)
def test_any_names(names):
    """Nothing reaches the edge, where it would be cut, and the size stays that of an image."""
    for pixels in draw(confusion(len(names)), names):
        assert max(pixels.shape) < 2500
        edges = [pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]]
        assert all(np.all(edge == 255) for edge in edges)


def test_same_input_same_pixels(drawn):
    for one, two in zip(drawn, draw(confusion(21), VOC), strict=True):
        np.testing.assert_array_equal(one, two)


def test_confusion_matrix_cells():
    """Dark where all of a true class is; the empty class has a grey row."""
    matrix = np.array([[90, 0, 10], [0, 0, 0], [50, 0, 0]])
    pixels = charts.confusion_matrix(matrix, ('a', 'b', 'c'))
    grey = where(pixels, EMPTY_ROW)
    rows, columns = np.flatnonzero(grey.sum(1) > 100), np.flatnonzero(grey.sum(0) > 20)
    assert len(rows) == pytest.approx(50, abs=2) and len(columns) == pytest.approx(150, abs=3)
    top, left = rows[0] - 50, columns[0]
    corners = [[int(pixels[top + 50 * r + 5, left + 50 * c + 5].sum()) for c in range(3)] for r in (0, 2)]
    (aa, _, ac), (ca, cb, cc) = corners
    assert ca < aa < ac < cb == cc, 'darker is more, row by row'


def test_numbers_only_where_they_can_be_read():
    few, many = (charts.confusion_matrix(np.eye(k, dtype=np.int64), VOC[:1] * k) for k in (25, 26))
    white_in_the_dark = [
        int(where(p[:, : p.shape[1] - 130], (255, 255, 255))[100:300, 200:400].sum()) for p in (few, many)
    ]
    assert white_in_the_dark[0] > 20 and white_in_the_dark[1] == 0


def test_iou_bars_are_sorted_and_as_long_as_the_scores():
    ious = np.array([0.25, np.nan, 1.0, 0.5])
    pixels = charts.class_iou(ious, ('a', 'b', 'c', 'd'))
    lengths = bars(pixels, BLUE)
    assert len(lengths) == 3
    np.testing.assert_allclose(np.array(lengths) / lengths[0], [1, 0.5, 0.25], atol=0.03)


def test_perfect_and_failed_classes():
    pixels = charts.class_iou(np.array([0.0, 1.0, 0.0]), ('a', 'b', 'c'))
    assert len(bars(pixels, BLUE)) == 1


def test_pixels_side_by_side():
    """Linear within a factor of 30: the lengths are the shares, most frequent first."""
    pixels = charts.class_pixels(np.array([20, 0, 60, 20]), np.array([40, 0, 30, 30]), ('a', 'none', 'c', 'd'))
    truth, predicted = bars(pixels, BLUE), bars(pixels, ORANGE)
    np.testing.assert_allclose(np.array(truth) / truth[0], [1, 1 / 3, 1 / 3], atol=0.03)
    np.testing.assert_allclose(np.array(predicted) / truth[0], [1 / 2, 2 / 3, 1 / 2], atol=0.03)


def test_pixels_far_apart_are_logarithmic():
    pixels = charts.class_pixels(np.array([10**6, 10**4, 100]), np.array([10**6, 10**4, 0]), ('a', 'b', 'c'))
    truth, predicted = bars(pixels, BLUE), bars(pixels, ORANGE)
    assert truth[0] - truth[1] == pytest.approx(truth[1] - truth[2], rel=0.03), 'equal factors are equal lengths'
    assert len(predicted) == 2, 'nothing was predicted as c'


def test_more_classes_than_a_chart_can_show():
    k = 300
    names = [f'thing {i}' for i in range(k)]
    pixels = charts.class_iou(np.linspace(0.1, 1, k), names)
    lengths = bars(pixels, BLUE)
    assert len(lengths) == 100 and max(pixels.shape) < 2500
    assert max(np.array(lengths)[50:]) < 0.4 * lengths[0], 'the lowest are among them'
    assert max(charts.class_pixels(np.arange(k), np.arange(k), names).shape) < 2500


def test_nothing_of_matplotlib_stays(drawn):
    """No figure is registered anywhere, and the settings are as they were."""
    import matplotlib
    from matplotlib import _pylab_helpers

    before = dict(matplotlib.rcParams)
    charts.class_iou(np.array([0.5]), ('a',))
    assert dict(matplotlib.rcParams) == before and not _pylab_helpers.Gcf.figs


def instance_charts(k, names=None, seed=0):
    """The charts of an evaluation of instances of K classes, of which the last has none."""
    random = np.random.default_rng(seed)
    masks, boxes = random.uniform(0.1, 1, (2, k))
    masks[k - 1 :] = boxes[k - 1 :] = np.nan if k > 1 else 0.5
    curves = {(kind, iou): np.linspace(1, iou, 101) for kind in ('box', 'mask') for iou in (0.5, 0.75)}
    return (
        charts.precision_recall(curves, 0.6, 0.7),
        charts.class_ap(masks, boxes, names or [f'class {i}' for i in range(k)]),
        charts.score_histogram(random.integers(0, 9, 20), random.integers(0, 900, 20), 0.4),
    )


@pytest.mark.parametrize('names', [('nucleus',), ('$x_1$', '\\frac{'), ('n' * 300, 'дорога', '')])
def test_charts_of_instances(names):
    for pixels in instance_charts(len(names), names):
        assert pixels.dtype == np.uint8 and 130 < pixels.shape[0] < 1300 and 500 < pixels.shape[1] < 1400


def test_class_ap_has_two_bars_of_each_class_that_has_instances():
    masks, boxes = np.array([0.2, 0.8, np.nan, 0.4]), np.array([0.4, 0.2, np.nan, 0.8])
    pixels = charts.class_ap(masks, boxes, ['a', 'b', 'c', 'd'])
    for color, order in ((BLUE, masks[[1, 3, 0]]), (ORANGE, boxes[[1, 3, 0]])):
        lengths = np.array(bars(pixels, color))
        np.testing.assert_allclose(lengths / lengths.max(), order / order.max(), atol=0.01)


def test_class_ap_of_very_many_classes():
    pixels = instance_charts(400)[1]
    assert len(bars(pixels, BLUE)) == 100 and pixels.shape[0] < 2600


@pytest.mark.parametrize('right', [np.zeros(20, int), np.arange(20), np.full(20, 3000)])
@pytest.mark.parametrize('threshold', [None, 0.0, 1.0])
def test_any_scores(right, threshold):
    for wrong in (np.zeros(20, int), np.arange(20)[::-1]):
        assert charts.score_histogram(right, wrong, threshold).shape == (440, 700, 3)


def test_curves_without_a_detection():
    curves = {('mask', 0.5): np.zeros(101)}
    assert charts.precision_recall(curves, 0.0, None).dtype == np.uint8
