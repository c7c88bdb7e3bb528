"""Importing this makes Keras run on JAX, on 8 devices of the CPU, in a process that has not imported it."""

import os

os.environ |= {'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'}
# Without the expensive passes a step compiles in a fraction of the time; its numbers are the same but for rounding.
os.environ['XLA_FLAGS'] = (
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
    '--xla_llvm_disable_expensive_passes=true'
)
