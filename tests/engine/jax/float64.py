"""Importing this makes Keras run on JAX in float64, on 8 devices of the CPU, in a process that has not imported it.

`python -m pytest -p tests.engine.jax.float64 FILE` runs tests of both engines on JAX.
"""

import os

import tests.engine.jax.eight_devices  # noqa: F401

os.environ['JAX_ENABLE_X64'] = '1'

from keras.src.backend.common import dtypes  # noqa: E402

# On every backend but TensorFlow, Keras turns float64 into float32 where it promotes types.
dtypes.BIT64_TO_BIT32_DTYPE['float64'] = 'float64'
