"""Keras' global policy: the precision of all layers that are made later."""

from __future__ import annotations

import keras
from absl import logging


def set_precision(precision: str) -> None:
    """Sets Keras' global policy: `float32`, `bfloat16` (float32 variables) or `float64` (for tests of equality)."""
    keras.config.set_floatx('float64' if precision == 'float64' else 'float32')
    keras.config.set_dtype_policy('mixed_bfloat16' if precision == 'bfloat16' else precision)


def tell_cost(precision: str, native: bool) -> None:
    """Says what a precision costs if the devices have a faster one.

    Args:
      precision: the precision in use.
      native: whether the devices have fast instructions for bfloat16.
    """
    if precision == 'bfloat16' and not native:
        logging.warning(
            'bfloat16 is emulated here, because the devices have no fast instructions for it: steps take several '
            'times as long as with --precision=float32.'
        )
    elif precision == 'float32' and native:
        logging.info('float32: steps take almost twice as long as with --precision=bfloat16.')
    elif precision == 'float32':
        logging.info('Devices with fast instructions for bfloat16, which these lack, take about half the time.')


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX512-BF16, AMX); others are slower with it than with float32."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            words = set(file.read().split())
    except OSError:
        return False
    return bool(words & {'avx512_bf16', 'amx_bf16'})
