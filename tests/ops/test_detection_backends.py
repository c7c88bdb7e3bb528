"""Operations on boxes give the same under JAX, compiled, as under TensorFlow with its own kernels."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

from seg.ops.roi_align import roi_align
from tests.ops import detection_on_backend
from tests.ops.detection_reference import STRIDES

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_jax_gives_the_same(tmp_path):
    path = tmp_path / 'jax.npz'
    command = [sys.executable, '-m', 'tests.ops.detection_on_backend', path]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, 'KERAS_BACKEND': 'jax'})
    stored = np.load(path)
    got = [stored[name] for name in stored.files]

    values = [tf.nest.map_structure(tf.constant, value) for value in detection_on_backend.inputs()]
    expected = detection_on_backend.outputs(*values)
    maps, boxes = values[:2]
    with tf.GradientTape() as tape:
        tape.watch(maps)
        total = tf.reduce_sum(roi_align(maps, boxes, STRIDES, 3) ** 2)
    expected += [*tape.gradient(total, maps), np.zeros_like(boxes)]

    assert len(got) == len(expected)
    for place, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
        np.testing.assert_allclose(theirs, ours, atol=1e-3 if place == 5 else 2e-4, err_msg=f'output {place}')
