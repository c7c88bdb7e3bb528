"""A backend's own kernels compute what `keras.ops` computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.ops import dispatch


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float64'])
@pytest.mark.parametrize('how', ['eager', 'graph', 'xla'])
def test_argmax_takes_the_first_of_equal_values(dtype, how):
    values = np.random.default_rng(0).integers(0, 4, (2, 9, 33, 21))  # Of 21 values, about five are the largest.
    run = dispatch.argmax if how == 'eager' else tf.function(dispatch.argmax, jit_compile=how == 'xla')
    found = run(tf.cast(values, dtype))
    assert found.dtype == 'int32'
    np.testing.assert_array_equal(found, values.argmax(-1))
    np.testing.assert_array_equal(found, keras.ops.argmax(values, -1))
