"""The devices of this machine, and the distribution of batches to them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port

from seg.errors import UserError
from seg.ops import replicas
from seg.structures import Input


def batches(source: Input, strategy: tf.distribute.Strategy, start: int = 0) -> Iterator[Any]:
    """Iterates over an input's batches from step `start` on, each divided into one piece per replica.

    A single CPU device reads the data set directly: transfer between devices costs threads and a copy, and one of those
    threads (the tuner, which cannot be switched off) delays the end of the process by up to a minute.
    """
    if strategy.num_replicas_in_sync == 1 and 'CPU' in strategy.extended.worker_devices[0]:
        return iter(source.make(start))
    pieces = strategy.num_replicas_in_sync
    return iter(strategy.distribute_datasets_from_function(lambda _: source.make(start, pieces=pieces)))


def replica(strategy: tf.distribute.Strategy) -> AbstractContextManager[None]:
    """Context of the code of one replica in a step: sets the number of replicas, and the sum over them."""
    count = strategy.num_replicas_in_sync
    # For one replica the graph has no reduction, so that XLA compiles it.
    return replicas.running(count, _sum if count > 1 else lambda tensors: tensors)


def _sum(tensors: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def names() -> list[str]:
    """Names of all physical devices. The first call starts TensorFlow."""
    return [_name(device) for device in tf.config.list_physical_devices()]


def _name(device) -> str:
    details = tf.config.experimental.get_device_details(device) if device.device_type == 'GPU' else {}
    return details.get('device_name', device.name.removeprefix('/physical_device:'))


def has_onednn() -> bool:
    """Whether TensorFlow uses oneDNN in this process; the variable TF_ENABLE_ONEDNN_OPTS was read at its import."""
    return _pywrap_util_port.IsMklEnabled()


def gpus_have_bfloat16(gpus) -> bool:
    capabilities = [tf.config.experimental.get_device_details(g).get('compute_capability', (0, 0)) for g in gpus]
    return min(capabilities) >= (8, 0)


def strategy(name: str, count: int | None, gpus) -> tf.distribute.Strategy:
    """The strategy `auto`, `one` or `mirrored`, on `count` devices (None for all GPUs, or two logical CPU devices).

    Raises:
      UserError: for more devices than there are.
    """
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
    """Returns the only strategy of this process on these devices. A second one would number its collective operations
    like the first, and TensorFlow would confuse them."""
    return tf.distribute.MirroredStrategy(devices)


def _logical_cpus(count: int) -> int:
    """Splits the CPU into `count` logical devices, unless this process has done so before."""
    cpu = tf.config.list_physical_devices('CPU')[0]
    try:
        configured = tf.config.get_logical_device_configuration(cpu) or ()
        if len(configured) < count:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
            # A collective operation blocks its thread until all devices take part; a thread per core would deadlock.
            tf.config.threading.set_inter_op_parallelism_threads(max(8, 4 * count))
        available = len(tf.config.list_logical_devices('CPU'))
    except RuntimeError:  # TensorFlow is initialised: its devices cannot change.
        available = len(tf.config.list_logical_devices('CPU'))
    if available < count:
        raise UserError(
            f'--strategy=mirrored:{count}: TensorFlow has already started with {available} CPU device(s) in this '
            'process. Start a new process, or call seg.engine.set_up first.'
        )
    return count


def graph(function: Callable[..., Any], jit_compile: bool = False) -> Callable[..., Any]:
    """Returns a function as a graph, compiled by XLA with `jit_compile`.

    TensorFlow counts tracings by the function's code, and so would warn of the fifth run in one process, a cell of a
    notebook or a step of a sweep. A `partial` has a count of its own.
    """
    return tf.function(functools.partial(function), jit_compile=jit_compile or None, autograph=False)
