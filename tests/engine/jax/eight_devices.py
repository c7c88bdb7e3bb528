"""Importing this makes Keras run on JAX, on 8 devices of the CPU, in a process that has not imported it."""

import os

os.environ |= {'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'}
# Without the expensive passes a step compiles in a fraction of the time; its numbers are the same but for rounding. At
# level 1 compilation takes longer, and float64 steps of large networks a tenth of the time.
os.environ['XLA_FLAGS'] = (
    '--xla_force_host_platform_device_count=8 '
    f'--xla_backend_optimization_level={os.environ.get("OPTIMIZATION_LEVEL", "0")} '
    '--xla_llvm_disable_expensive_passes=true'
)
