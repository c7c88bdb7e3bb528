"""What the tests of all backbones share."""

import keras
import pytest


@pytest.fixture
def float64():
    before, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(before)
