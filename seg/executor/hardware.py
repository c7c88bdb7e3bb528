"""Flags -> devices, strategy and precision. Comes before any tensor, data set or layer exists."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tensorflow.python.util import _pywrap_util_port

from seg.errors import UserError
from seg.structures import Hardware, Input

PRECISIONS = ('auto', 'float32', 'bfloat16')


def set_up(strategy: str = 'auto', precision: str = 'auto', jit: str = 'auto', deterministic: bool = False) -> Hardware:
    """Makes the strategy and sets Keras' precision policy.

    Args:
      strategy: `auto` (all GPUs of this machine, else one CPU device), `one`, `mirrored`, or `mirrored:N` for N
        devices; without GPUs these are N logical CPU devices.
      precision: `auto` (bfloat16 where the hardware multiplies it, else float32), `float32` or `bfloat16`.
      jit: `auto` (XLA on GPUs; on the CPU it is slower than oneDNN), `on` or `off`.
      deterministic: the same numbers from the same seed, bit for bit, at some cost in speed.

    Raises:
      UserError: for an unknown value, or more devices than there are.
    """
    gpus = tf.config.list_physical_devices('GPU')
    name, _, count = strategy.partition(':')
    if name not in ('auto', 'one', 'mirrored') or (
        count and (name != 'mirrored' or not count.isdigit() or count == '0')
    ):
        raise UserError(f'--strategy={strategy}: expected auto, one, mirrored, or mirrored:N with N devices.')
    if precision not in PRECISIONS:
        raise UserError(f'--precision={precision}: expected one of {", ".join(PRECISIONS)}.')
    if jit not in ('auto', 'on', 'off'):
        raise UserError(f'--jit={jit}: expected auto, on or off.')
    if precision == 'auto':
        precision = 'bfloat16' if (_gpus_have_bfloat16(gpus) if gpus else _cpu_has_bfloat16()) else 'float32'
    set_precision(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    made = _strategy(name, int(count) if count else None, gpus)
    if jit == 'on' and made.num_replicas_in_sync > 1 and not gpus:
        raise UserError(
            '--jit=on: XLA cannot compile a step that runs on several logical CPU devices. Use --strategy=one.'
        )
    hardware = Hardware(made, precision, jit == 'on' or (jit == 'auto' and bool(gpus)), deterministic)
    logging.info(
        '%d device(s) of kind %s, %s, XLA %s',
        hardware.num_replicas,
        'GPU' if gpus else 'CPU',
        precision,
        'on' if hardware.jit_compile else 'off',
    )
    if not gpus and not has_onednn() and 'TF_ENABLE_ONEDNN_OPTS' not in os.environ:
        logging.warning(
            'oneDNN is off, because TensorFlow was imported before seg: steps take about twice the time. '
            'In a new process, import seg first, or set TF_ENABLE_ONEDNN_OPTS=1.'
        )
    return hardware


def has_onednn() -> bool:
    """Whether TensorFlow uses oneDNN in this process; the variable TF_ENABLE_ONEDNN_OPTS was read at its import."""
    return _pywrap_util_port.IsMklEnabled()


def set_precision(precision: str) -> None:
    """Sets Keras' global policy: `float32`, `bfloat16` (float32 variables) or `float64` (for tests of equality)."""
    keras.config.set_floatx('float64' if precision == 'float64' else 'float32')
    keras.config.set_dtype_policy('mixed_bfloat16' if precision == 'bfloat16' else precision)


def batches(source: Input, strategy: tf.distribute.Strategy, start: int = 0) -> Iterator[Any]:
    """Iterates over an input's batches from step `start` on, each cut into one piece per replica.

    A single CPU device reads the data set as it is: handing batches over between devices costs threads and a copy, and
    one of those threads (the tuner, which cannot be switched off there) holds up the process' end by up to a minute.
    """
    if strategy.num_replicas_in_sync == 1 and 'CPU' in strategy.extended.worker_devices[0]:
        return iter(source.make(start))
    pieces = strategy.num_replicas_in_sync
    return iter(strategy.distribute_datasets_from_function(lambda _: source.make(start, pieces=pieces)))


def describe() -> dict[str, object]:
    """Versions, system, processor, devices and memory: for `--version`, `run.json` and reports."""
    import psutil

    from seg import __version__

    return {
        'seg': __version__,
        'python': platform.python_version(),
        'tensorflow': tf.__version__,
        'onednn': 'on' if has_onednn() else 'off',
        'keras': keras.__version__,
        'system': platform.platform(),
        'processor': _processor_name(),
        'devices': [_device_name(d) for d in tf.config.list_physical_devices()],
        'cpu_cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'memory_gib': round(psutil.virtual_memory().total / 2**30, 1),
    }


def _device_name(device) -> str:
    details = tf.config.experimental.get_device_details(device) if device.device_type == 'GPU' else {}
    return details.get('device_name', device.name.removeprefix('/physical_device:'))


def _processor_name() -> str:
    """The processor's trade name where the system tells it, else its architecture."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def _gpus_have_bfloat16(gpus) -> bool:
    capabilities = [tf.config.experimental.get_device_details(g).get('compute_capability', (0, 0)) for g in gpus]
    return min(capabilities) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX512-BF16 or AMX); elsewhere it is slower than float32."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            words = set(file.read().split())
    except OSError:
        return False
    return bool(words & {'avx512_bf16', 'amx_bf16'})


def _strategy(name: str, count: int | None, gpus) -> tf.distribute.Strategy:
    if name == 'auto':
        name = 'mirrored' if len(gpus) > 1 else 'one'
    if name == 'one':
        return tf.distribute.OneDeviceStrategy('GPU:0' if gpus else 'CPU:0')
    if gpus:
        if count and count > len(gpus):
            raise UserError(f'--strategy=mirrored:{count}: this machine has {len(gpus)} GPU(s).')
        return mirrored(tuple(f'GPU:{i}' for i in range(count or len(gpus))))
    return mirrored(tuple(f'CPU:{i}' for i in range(_logical_cpus(count or 2))))


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """The one strategy of this process on these devices: a second one would number its collective operations like the
    first, and TensorFlow would mix them up."""
    return tf.distribute.MirroredStrategy(devices)


def _logical_cpus(count: int) -> int:
    """Splits the CPU into `count` logical devices, unless that was done before in this process."""
    cpu = tf.config.list_physical_devices('CPU')[0]
    try:
        configured = tf.config.get_logical_device_configuration(cpu) or ()
        if len(configured) < count:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
            # A collective operation holds its thread until all devices take part; with a thread per core they starve.
            tf.config.threading.set_inter_op_parallelism_threads(max(8, 4 * count))
        available = len(tf.config.list_logical_devices('CPU'))
    except RuntimeError:  # TensorFlow is initialised: what it has stays.
        available = len(tf.config.list_logical_devices('CPU'))
    if available < count:
        raise UserError(
            f'--strategy=mirrored:{count}: TensorFlow has already started with {available} CPU device(s) in this '
            'process. Start a new process, or call hardware.set_up first.'
        )
    return count
