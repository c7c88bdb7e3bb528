"""The devices of a run, and code that runs on all of them at once."""

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

from seg.engine import base
from seg.engine.jax.processes import reporting_loss
from seg.errors import UserError
from seg.ops import replicas
from seg.structures import Share

AXIS = 'batch'
WHOLE, ROWS = P(), P(AXIS)  # The same on every device; the rows of a batch divided among the devices.


class Devices:
    """Some devices of this process, or of all processes of the run; each is a replica.

    Attributes:
      mesh: the devices along the axis `AXIS`, those of process 0 first: each process has its `Share` of a batch.
      count: their number.
      processes: the processes that have some of them, each as many.
      share: this process's rows of a batch.
      platform: `cpu`, `gpu` or `tpu`.
      deterministic: whether the same arguments give the same bits in every run.
    """

    def __init__(self, devices: Sequence[jax.Device], deterministic: bool = False):
        devices = sorted(devices, key=lambda device: (device.process_index, device.id))
        self.processes = len({device.process_index for device in devices})
        self.mesh = Mesh(np.array(devices), (AXIS,))
        self.count, self.platform, self.deterministic = len(devices), devices[0].platform, deterministic
        self._local = [device for device in devices if device.process_index == jax.process_index()]
        self.share = Share(jax.process_index(), self.processes) if self.processes > 1 else Share()
        if len(self._local) * self.processes != self.count:
            raise UserError(
                f'This process has {len(self._local)} of {self.count} devices of {self.processes} processes. Expected '
                'as many in each.'
            )
        by_process = Mesh(np.array(devices).reshape(self.processes, -1), ('process', 'device'))
        self._one_each = NamedSharding(by_process, P('process'))
        self._gather = jax.jit(lambda values: values, out_shardings=NamedSharding(by_process, WHOLE))

    def of_this_process(self) -> Devices:
        """The devices of this process alone."""
        return self if self.processes == 1 else Devices(self._local, self.deterministic)

    def copied(self, values: Any) -> Any:
        """Copies arrays, equal in all processes, to every device.

        No copy shares memory with its original, so that it can be donated.
        """
        whole = NamedSharding(self.mesh, WHOLE)

        def copied(value: Any) -> jax.Array:
            value = value.addressable_data(0) if isinstance(value, jax.Array) else value
            copy = jnp.array(value, copy=True)
            copies = [jax.device_put(copy, device) for device in self._local]
            return jax.make_array_from_single_device_arrays(copies[0].shape, whole, copies)

        return jax.tree.map(copied, values)

    def divided(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Copies this process's rows of a global batch to its devices, an equal number of rows to each."""
        rows = NamedSharding(self.mesh, ROWS)
        if self.processes == 1:
            return jax.device_put(dict(batch), rows)
        return {key: jax.make_array_from_process_local_data(rows, value) for key, value in batch.items()}

    def to_host(self, values: Any) -> Any:
        """Copies results of a program to the host: whole arrays, and this process's rows of divided ones."""
        arrays, tree = jax.tree.flatten(values)
        pieces = jax.device_get([_pieces(array) for array in arrays])
        return jax.tree.unflatten(tree, [each[0] if len(each) == 1 else np.concatenate(each) for each in pieces])

    def gathered(self, values: Sequence[Any]) -> list[Sequence[np.ndarray]]:
        """Returns, for each of some values of the host, the values of all processes. All call it together.

        Args:
          values: arrays or numbers; those of one place have the same shape and dtype in every process.
        """
        if self.processes == 1:
            return [[np.asarray(value)] for value in values]

        def placed(value: Any) -> jax.Array:
            value = np.asarray(value)[None]
            copies = [jax.device_put(value, device) for device in self._local]
            shape = (self.processes, *value.shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self._one_each, copies)

        with reporting_loss(self.processes):
            return jax.device_get(self._gather([placed(value) for value in values]))

    def rows_of_all(self, values: Any) -> Any:
        """Returns the rows of all processes, in the order of the global batch, for arrays of this process's rows."""
        if self.processes == 1:
            return values
        arrays, tree = jax.tree.flatten(values)
        return jax.tree.unflatten(tree, [np.concatenate(list(found)) for found in self.gathered(arrays)])

    def row(self, values: Mapping[str, jax.Array], index: int) -> dict[str, np.ndarray]:
        """Copies one row of divided arrays to the host of every process. All call it together.

        Args:
          values: of one global batch.
          index: of the row in it.
        """
        own, owner = [], 0
        for value in values.values():
            pieces = _pieces(value)
            owner, place = divmod(int(index), value.shape[0] // self.processes)
            piece, place = divmod(place, pieces[0].shape[0])
            own.append(pieces[piece][place])
        return {key: found[owner] for key, found in zip(values, self.gathered(own), strict=True)}

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

        # Without JAX's check of replication, the gradient of a sum over replicas is a sum as well, as
        # `seg.ops.replicas` requires. Also, a loop may start from constants, whose type that check distinguishes from
        # an iteration's results.
        everywhere = jax.shard_map(one, mesh=self.mesh, in_specs=(WHOLE, ROWS), out_specs=out_specs, check_vma=False)
        options = {'xla_gpu_deterministic_ops': True} if self.deterministic and self.platform == 'gpu' else None
        return jax.jit(everywhere, donate_argnums=0 if donates else (), compiler_options=options)

    def needed(self, program: jax.stages.Compiled) -> int:
        """Bytes that a compiled program takes on the devices of this process, besides its arguments."""
        found = program.memory_analysis()
        own = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return own * len(self._local)

    def memory(self) -> base.Memory:
        """The memory of the devices of this process."""
        if self.platform == 'cpu':
            from seg.engine import machine  # It needs psutil, which steps do not.

            return machine.memory()
        stats = [device.memory_stats() or {} for device in self._local]
        limit = sum(each.get('bytes_limit', 0) for each in stats)
        return base.Memory(sum(each.get('bytes_in_use', 0) for each in stats), limit or None)


def _sum(tensors: Any) -> Any:
    return lax.psum(tensors, AXIS)


def _pieces(value: jax.Array) -> list[jax.Array]:
    """The different parts of an array that are on devices of this process, in their order."""
    if value.is_fully_replicated:
        return [value.addressable_data(0)]
    shards = sorted(value.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [shard.data for shard in shards]


def keep_tensorflow_on_the_cpu() -> None:
    """Hides GPUs from TensorFlow, which makes the batches: it would take most of their memory."""
    with contextlib.suppress(ImportError):  # Models and steps need no TensorFlow.
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow is initialised, and has its memory already.
            tf.config.set_visible_devices([], 'GPU')


def names() -> list[str]:
    """Names of all devices. The first call starts JAX."""
    return [f'CPU:{d.id}' if d.platform == 'cpu' else d.device_kind for d in jax.devices()]


def have_bfloat16(devices: Sequence[jax.Device]) -> bool:
    """Whether the devices have instructions for bfloat16. XLA's code for CPUs is slower with it than with float32."""
    if devices[0].platform == 'gpu':
        return min(float(device.compute_capability) for device in devices) >= 8
    return devices[0].platform == 'tpu'
