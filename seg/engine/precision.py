"""Keras' global policy: the precision of all layers that are made later."""

from __future__ import annotations

import os

import keras
from absl import logging

# What ONEDNN_MAX_CPU_ISA allows oneDNN at most, where that leaves out AVX-512, and where it leaves out AVX512-BF16.
_BELOW_AVX512 = ('SSE41', 'AVX', 'AVX2', 'AVX2_VNNI', 'AVX2_VNNI_2')
_BELOW_BFLOAT16 = (*_BELOW_AVX512, 'AVX512_CORE', 'AVX512_CORE_VNNI')


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
    """Whether the CPU has instructions for bfloat16 (AVX512-BF16, AMX), and ONEDNN_MAX_CPU_ISA allows them.

    Others are slower with it than with float32.
    """
    return bool(_cpu_flags() & {'avx512_bf16', 'amx_bf16'}) and _onednn_limit() not in _BELOW_BFLOAT16


def onednn_fails_in_bfloat16() -> bool:
    """Whether TensorFlow's operations in bfloat16 end with an error, or the process.

    TensorFlow chooses oneDNN's kernels by what the CPU has, and does not see that ONEDNN_MAX_CPU_ISA takes them away.
    """
    on = os.environ.get('TF_ENABLE_ONEDNN_OPTS') != '0'
    return on and 'avx512f' in _cpu_flags() and _onednn_limit() in _BELOW_AVX512


def _onednn_limit() -> str:
    return os.environ.get('ONEDNN_MAX_CPU_ISA', '').upper()


def _cpu_flags() -> set[str]:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return set(file.read().split())
    except OSError:
        return set()
