"""Keras' global policy: the precision of all layers that are made later."""

from __future__ import annotations

import keras


def set_precision(precision: str) -> None:
    """Sets Keras' global policy: `float32`, `bfloat16` (float32 variables) or `float64` (for tests of equality)."""
    keras.config.set_floatx('float64' if precision == 'float64' else 'float32')
    keras.config.set_dtype_policy('mixed_bfloat16' if precision == 'bfloat16' else precision)


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX512-BF16, AMX); others are slower with it than with float32."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            words = set(file.read().split())
    except OSError:
        return False
    return bool(words & {'avx512_bf16', 'amx_bf16'})
