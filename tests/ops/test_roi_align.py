"""ROIAlign against loops over samples, and against torchvision's stored results."""

import numpy as np
import pytest
import tensorflow as tf

from seg.ops import roi_align as roi_lib
from seg.ops.roi_align import roi_align
from tests.ops import detection_reference as reference

STRIDES = reference.STRIDES


def read(image, y, x):
    """Reads one map [h, w, C] between its cells: 0 beyond one cell outside, else the edge."""
    height, width = image.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(image.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * image[top, left] + across * image[top, right]
    lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
    return (1 - down) * upper + down * lower


def aligned_features(features, boxes, size, ratio, aligned):
    out = np.zeros((*boxes.shape[:2], size, size, features[0].shape[3]))
    for b, r in np.ndindex(*boxes.shape[:2]):
        y0, x0, y1, x1 = boxes[b, r]
        with np.errstate(divide='ignore'):
            level = np.floor(4 + np.log2(np.sqrt(max(y1 - y0, 0) * max(x1 - x0, 0)) / 224) + 1e-6)
        level = int(np.clip(level, 2, 5)) - 2
        y0, x0, y1, x1 = boxes[b, r] / STRIDES[level] - (0.5 if aligned else 0)
        height, width = y1 - y0, x1 - x0
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        for i, j in np.ndindex(size, size):
            for v, w in np.ndindex(ratio, ratio):
                y, x = (
                    start + (bin + (part + 0.5) / ratio) * side / size
                    for start, bin, part, side in ((y0, i, v, height), (x0, j, w, width))
                )
                out[b, r, i, j] += read(features[level][b], y, x) / ratio**2
    return out


@pytest.mark.parametrize('case', range(len(reference.ROI_CASES)))
@pytest.mark.parametrize('compiled', [False, True])
def test_equals_torchvision(case, compiled):
    size, ratio, aligned = reference.ROI_CASES[case]
    run = tf.function(
        lambda maps, boxes: roi_align(maps, boxes, STRIDES, size, sampling_ratio=ratio, aligned=aligned),
        jit_compile=compiled,
    )
    got = run([tf.constant(x) for x in reference.features()], tf.constant(reference.rois()))
    assert got.dtype == tf.float32 and got.shape == (2, 24, size, size, 3)
    np.testing.assert_allclose(got, np.load(reference.REFERENCE)[f'roi_align{case}'], atol=2e-5)


@pytest.mark.parametrize(('size', 'ratio', 'aligned'), [(3, 2, False), (3, 2, True), (2, 1, False), (1, 3, True)])
def test_equals_a_loop_in_float64(size, ratio, aligned):
    features = [x.astype('float64') for x in reference.features()]
    boxes = reference.rois().astype('float64')
    got = roi_align(
        [tf.constant(x) for x in features], tf.constant(boxes), STRIDES, size, sampling_ratio=ratio, aligned=aligned
    )
    assert got.dtype == tf.float64
    np.testing.assert_allclose(got, aligned_features(features, boxes, size, ratio, aligned), atol=1e-12)


def test_levels():
    sides = [0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 5000]
    boxes = tf.constant([[[0, 0, side, side] for side in sides]], tf.float32)
    np.testing.assert_array_equal(roi_lib._levels(boxes, 4), [[0, 0, 0, 1, 1, 2, 2, 3, 3]])
    np.testing.assert_array_equal(roi_lib._levels(boxes, 2), [[0, 0, 0, 1, 1, 1, 1, 1, 1]])


def test_the_border_cell_reaches_one_cell_outwards():
    image = tf.constant(np.arange(1, 5, dtype='float32').reshape(1, 2, 2, 1))
    # One bin of one sample: boxes of one cell around the sample.
    points = [(-1, 0), (-1.01, 0), (2, 0), (2.01, 0), (0, 2), (0, 2.01), (1.5, 1.5)]
    boxes = tf.constant([[[y - 0.5, x - 0.5, y + 0.5, x + 0.5] for y, x in points]])
    got = roi_align([image], boxes, (1,), 1, sampling_ratio=1)
    np.testing.assert_array_equal(got[0, :, 0, 0, 0], [1, 0, 3, 0, 2, 0, 4])


def gradients(dtype, compiled=False, size=3):
    maps = [tf.constant(x, dtype) for x in reference.features()]
    boxes = tf.constant(reference.rois())
    weight = tf.constant(np.random.default_rng(0).normal(size=(2, 24, size, size, 3)), dtype)

    def run():
        with tf.GradientTape() as tape:
            tape.watch([*maps, boxes])
            out = roi_align(maps, boxes, STRIDES, size)
        return out, tape.gradient(out, [*maps, boxes], weight)

    out, back = tf.function(run, jit_compile=compiled)()
    assert back.pop() is None  # Nothing flows to the boxes.
    assert all(g.dtype == x.dtype and g.shape == x.shape for g, x in zip(back, maps, strict=True))
    return maps, weight, out, back


def test_gradient_is_the_transpose():
    """<align(x), w> = <x, gradient at w>, and the neutral form's own gradient is the same, and again the same bits."""
    maps, weight, out, back = gradients('float64')
    total = sum(tf.reduce_sum(x * g) for x, g in zip(maps, back, strict=True))
    np.testing.assert_allclose(tf.reduce_sum(out * weight), total, rtol=1e-12)
    for compiled in (False, True):
        again = gradients('float64', compiled)[3]
        for got, expected in zip(again, back, strict=True):
            np.testing.assert_allclose(got, expected, atol=0 if not compiled else 1e-12)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-5), ('bfloat16', 0.06)])
def test_lower_precision(dtype, tolerance):
    exact, lower = gradients('float64'), gradients(dtype)
    assert lower[2].dtype == dtype
    np.testing.assert_allclose(tf.cast(lower[2], 'float64'), exact[2], atol=tolerance)
    for got, expected in zip(lower[3], exact[3], strict=True):
        np.testing.assert_allclose(tf.cast(got, 'float64'), expected, atol=4 * tolerance)


def test_boxes_of_nan_read_nothing():
    boxes = tf.constant([[[np.nan] * 4, [np.inf] * 4, [-np.inf] * 4, [0, 0, np.inf, np.inf], [3e38] * 4]] * 2)
    got = roi_align([tf.constant(x) for x in reference.features()], boxes, STRIDES, 2)
    np.testing.assert_array_equal(got, np.zeros((2, 5, 2, 2, 3)))


def test_shapes_are_static():
    specs = [[tf.TensorSpec(x.shape) for x in reference.features()], tf.TensorSpec([2, 24, 4])]
    graph = tf.function(lambda maps, boxes: roi_align(maps, boxes, STRIDES, 7), input_signature=specs)
    assert graph.get_concrete_function().output_shapes == (2, 24, 7, 7, 3)
