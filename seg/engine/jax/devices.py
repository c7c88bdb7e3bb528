"""The devices of this process, and code that runs on all of them at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from seg.ops import replicas

AXIS = 'batch'
WHOLE, ROWS = P(), P(AXIS)  # The same on every device; the rows of a batch divided among the devices.


class Devices:
    """Some devices, each of which is a replica.

    Attributes:
      mesh: the devices along the axis `AXIS`.
      count: their number.
      platform: `cpu`, `gpu` or `tpu`.
      deterministic: whether the same arguments give the same bits in every run.
    """

    def __init__(self, devices: Sequence[jax.Device], deterministic: bool = False):
        self.mesh = Mesh(np.array(devices), (AXIS,))
        self.count, self.platform, self.deterministic = len(devices), devices[0].platform, deterministic

    def copied(self, values: Any) -> Any:
        """Copies arrays to every device. No copy shares memory with its original, so that it can be donated."""
        copies = jax.tree.map(lambda value: jnp.array(value, copy=True), values)
        return jax.device_put(copies, NamedSharding(self.mesh, WHOLE))

    def divided(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Copies a global batch to the devices, an equal number of rows to each."""
        return jax.device_put(dict(batch), NamedSharding(self.mesh, ROWS))

    def compiled(self, function: Callable[..., Any], out_specs: Any, donates: bool = False) -> Any:
        """Returns `function(values, batch)` as one program that runs on every device, each with its rows of the batch.

        Args:
          function: code of one replica. It finds the number of replicas, and sums over them, in `seg.ops.replicas`.
          out_specs: for each result `WHOLE` or `ROWS`.
          donates: whether the memory of `values` is reused for the results.
        """

        def one(values: Any, batch: Any) -> Any:
            with replicas.running(self.count, _sum if self.count > 1 else lambda tensors: tensors):
                return function(values, batch)

        # Without the check of replication the gradient of a sum is summed likewise, as `seg.ops.replicas` promises; and
        # loops may begin with constants, which that check takes for another type than the results of an iteration.
        everywhere = jax.shard_map(one, mesh=self.mesh, in_specs=(WHOLE, ROWS), out_specs=out_specs, check_vma=False)
        options = {'xla_gpu_deterministic_ops': True} if self.deterministic and self.platform == 'gpu' else None
        return jax.jit(everywhere, donate_argnums=0 if donates else (), compiler_options=options)


def _sum(tensors: Any) -> Any:
    return lax.psum(tensors, AXIS)


def row(value: jax.Array, index: int) -> np.ndarray:
    """Copies one row of a divided array to the host."""
    shards = sorted(value.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    shard, index = divmod(int(index), shards[0].data.shape[0])
    return np.asarray(shards[shard].data[index])


def keep_tensorflow_on_the_cpu() -> None:
    """Hides GPUs from TensorFlow, which makes the batches: it would take most of their memory."""
    with contextlib.suppress(ImportError):  # Models and steps do without TensorFlow.
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow is initialised, and has its memory already.
            tf.config.set_visible_devices([], 'GPU')


def names() -> list[str]:
    """Names of all devices. The first call starts JAX."""
    return [f'CPU:{d.id}' if d.platform == 'cpu' else d.device_kind for d in jax.devices()]


def have_bfloat16(devices: Sequence[jax.Device]) -> bool:
    """Whether the devices multiply bfloat16. XLA's code for CPUs is slower with it than with float32."""
    if devices[0].platform == 'gpu':
        return min(float(device.compute_capability) for device in devices) >= 8
    return devices[0].platform == 'tpu'
