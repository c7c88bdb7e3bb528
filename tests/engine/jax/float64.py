"""Importing this makes Keras run on JAX, on 8 devices of the CPU, in a process that has not imported it.

`python -m pytest -p tests.engine.jax.float64 FILE` runs tests of both engines on JAX.
"""

import os

os.environ |= {'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_X64': '1', 'TF_CPP_MIN_LOG_LEVEL': '3'}
# Without the expensive passes a step compiles in a fraction of the time; its numbers are the same but for rounding.
os.environ['XLA_FLAGS'] = (
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
    '--xla_llvm_disable_expensive_passes=true'
)

from keras.src.backend.common import dtypes  # noqa: E402

# On every backend but TensorFlow, Keras turns float64 into float32 where it promotes types.
dtypes.BIT64_TO_BIT32_DTYPE['float64'] = 'float64'
