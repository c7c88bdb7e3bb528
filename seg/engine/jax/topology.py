"""Compiles steps for TPUs that this machine does not have, or for its CPU, and reports their cost. Runs none."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import keras
import psutil
from absl import logging
from jax.experimental import topologies
from jax.sharding import NamedSharding

from seg import files
from seg.engine import precision as precisions
from seg.engine.jax import chips
from seg.engine.jax import devices as all_devices
from seg.engine.jax.devices import ROWS, WHOLE, Devices
from seg.engine.jax.engine import JaxEngine
from seg.engine.jax.evaluation import Evaluation
from seg.engine.jax.state import initial_values
from seg.engine.jax.step_cost import Compiled, StepCost, collectives, excess, on_chip
from seg.engine.jax.train_step import SPECS, TrainStep
from seg.engine.optimizer_step import OptimizerStep
from seg.engine.variables import Variables
from seg.errors import UserError
from seg.structures import Input, Share

# libtpu otherwise waits for the metadata server of a TPU VM, permits one process at a time, and writes logs and
# complaints about the missing TPU.
_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v3-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
    'TPU_LOG_DIR': 'disabled',
}

_GIB = 2**30

# A scalar in StableHLO other than 0 and 1, which a compiler may simplify.
_CONSTANT = re.compile(r'dense<(?![01]\.0+e\+00>)-?\d+\.\d+e[+-]\d+>(?= : tensor<b?f\d+>)')

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def set_up(name: str, strategy: str, precision: str, jit: str) -> TopologyEngine:
    """See `seg.engine.set_up`; `name` is the topology.

    Raises:
      UserError: for an unknown topology, a flag that it excludes, or without libtpu.
    """
    topology = chips.find(name)
    for flag, value, only in (('strategy', strategy, ('auto',)), ('jit', jit, ('auto', 'on'))):
        if value not in only:
            raise UserError(f'--{flag}={value}: with --topology={name} expected {" or ".join(only)}.')
    if name != chips.CPU.name and importlib.util.find_spec('libtpu') is None:
        raise UserError(
            f"--topology={name} needs libtpu, XLA's compiler for TPUs, which is not installed. "
            "Install it: pip install -e '.[tpu]'"
        )
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    all_devices.keep_tensorflow_on_the_cpu()
    precision = 'bfloat16' if precision == 'auto' else precision
    precisions.set_precision(precision)
    if name == chips.CPU.name:
        topology = topology._replace(memory=round(psutil.virtual_memory().total / _GIB, 1))
        found = jax.devices('cpu')[:1]
    else:
        found = topologies.get_topology_desc(platform='tpu', topology_name=topology.layout, **topology.options).devices
    return TopologyEngine(topology, Devices(found), precision)


class TopologyEngine(JaxEngine):
    """The engine of TPUs that this machine does not have. It compiles steps and runs none."""

    def __init__(self, topology: chips.Topology, devices: Devices, precision: str):
        super().__init__(devices, precision)
        self._topology = topology

    @property
    def process(self) -> Share:
        """This process, which compiles alone for the hosts of a slice."""
        return Share()

    def agree(self, flag: bool) -> bool:
        return flag

    def training_cost(
        self, task, optimizer: keras.optimizers.Optimizer, settings: OptimizerStep, source: Input
    ) -> StepCost:
        """Compiles a training step.

        Args:
          task: the task.
          optimizer: an optimizer that is not built.
          settings: settings of the step.
          source: the training data, of which only the shapes of a batch are used.
        """
        variables = Variables(task.checkpoint_items, optimizer, settings.frozen)
        state = self._shapes(initial_values(variables, settings.ema_decay is not None), WHOLE)
        step = self.devices.compiled(TrainStep(task, optimizer, settings, variables), SPECS, donates=True)
        return self._cost('training', source, lambda batch: step.lower(state, batch), state)

    def evaluation_cost(self, task, summing: Sequence[Any], by_row: Sequence[Any], source: Input, draws: bool):
        """Compiles an evaluation step; arguments as for `evaluator` and what that returns. Returns a `StepCost`."""
        evaluation = Evaluation(task, summing, by_row, self.devices)
        values = self._shapes([variable.value for variable in evaluation.variables], WHOLE)
        return self._cost('evaluation', source, lambda batch: evaluation.programs[draws].lower(values, batch), values)

    def _cost(self, name: str, source: Input, lower: Callable[[Shapes], jax.stages.Lowered], values: Any) -> StepCost:
        spec, devices = source.make().element_spec, self.num_devices

        def compiled(images: int) -> Compiled:
            """Compiles the step with this number of images on each device."""
            size = images * devices
            logging.info('%s: the %s step with batches of %d images …', self._topology.name, name, size)
            batch = {
                key: jax.ShapeDtypeStruct(
                    (size, *part.shape[1:]), jax.dtypes.canonicalize_dtype(part.dtype.as_numpy_dtype)
                )
                for key, part in spec.items()
            }
            return self._compiled(lower(self._shapes(batch, ROWS)))

        asked = compiled(source.batch_size // devices)
        fixed = sum(value.size * value.dtype.itemsize for value in jax.tree.leaves(values)) / _GIB
        cost = StepCost(name, devices, self._topology.memory, source.batch_size, asked, fixed=fixed)
        if asked.limit is None:
            return cost
        images, fitting = largest(compiled, source.batch_size // devices, asked, fixed)
        return cost._replace(largest=images * devices, fitting=fitting) if fitting else cost

    def _compiled(self, lowered: jax.stages.Lowered) -> Compiled:
        """Compiles a program, or reads the result of an earlier compilation of the same program."""
        libraries = ('jax', 'jaxlib') if self.devices.platform == 'cpu' else ('jax', 'jaxlib', 'libtpu')
        versions = [importlib.metadata.version(name) for name in libraries]
        text = lowered.as_text()
        text_of_key = without_constants(text)
        key = hashlib.sha256('\n'.join([*versions, *map(str, self._topology), text_of_key]).encode()).hexdigest()
        path, loops = os.path.join(folder(), f'{key[:32]}.json'), text.count('stablehlo.while')
        if (known := _read(path)) is not None:
            return known._replace(loops=loops)
        begin, cpu = time.perf_counter(), time.process_time()
        try:
            program = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if (found := excess(str(error))) is None:
                raise
            result = Compiled(*found, loops=loops)
        else:
            costs, made = program.cost_analysis(), program.as_text()
            away = on_chip(made)
            result = Compiled(
                memory=_memory(program.memory_analysis(), self.devices.platform),
                loops=loops,
                flops=costs['flops'],
                bytes_accessed=costs['bytes accessed'] * (1 - away),
                collectives=collectives(made),
                on_chip=away,
            )
        result = result._replace(seconds=time.perf_counter() - begin, cpu_seconds=time.process_time() - cpu)
        try:
            with files.writing(path):
                os.makedirs(folder(), exist_ok=True)
            files.write_json(path, result._asdict())
        except UserError as error:  # The next compilation takes its time again.
            logging.warning('%s', error)
        return result

    def _shapes(self, values: Any, spec: Any) -> Any:
        sharding = NamedSharding(self.devices.mesh, spec)
        return jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding), values)


def largest(
    compiled: Callable[[int], Compiled], too_many: int, found: Compiled, fixed: float
) -> tuple[int, Compiled | None]:
    """Searches the largest number of images that fits on a device. Memory is about linear in it.

    Args:
      compiled: compiles the step with a number of images on each device.
      too_many: a number that does not fit.
      found: the result for it.
      fixed: GiB that do not depend on the number.

    Returns:
      The number and the result for it; 0 and None if a single image does not fit.
    """
    fits, best = 0, None
    while too_many - fits > 1:
        guess = int(too_many * (found.limit - fixed) / (found.memory - fixed))
        images = min(max(guess, fits + 1), too_many - 1)
        tried = compiled(images)
        if tried.limit is None:
            fits, best = images, tried
        else:
            too_many, found = images, tried
    return fits, best


def without_constants(program: str) -> str:
    """The text of a program without its scalar floating-point constants.

    Steps that differ in a learning rate or a loss weight cost the same, so one compilation stands for all of them.
    """
    return _CONSTANT.sub('dense<?>', program)


def _memory(found: Any, platform: str) -> float:
    """GiB that a program needs, code included. The peak that XLA gives for CPUs leaves out temporary arrays."""
    if platform == 'cpu':
        size = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return (size + found.temp_size_in_bytes) / _GIB
    return (found.peak_memory_in_bytes + found.generated_code_size_in_bytes) / _GIB


def _read(path: str) -> Compiled | None:
    """Reads the result of a compilation; None if there is none, or the file is damaged or of another version."""
    try:
        found = files.read_object(path, 'It is written again.')
    except UserError:
        return None
    return Compiled(**found) if found.keys() == set(Compiled._fields) else None


def folder() -> str:
    """The folder that keeps the results of compilations: `seg/topologies` in the user's cache directory."""
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(cache, 'seg', 'topologies')
