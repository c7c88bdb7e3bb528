"""`--mode=plan`."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from seg import files
from seg.engine.jax import chips
from seg.errors import UserError
from seg.modes import plan_steps
from seg.modes.base import SETTINGS, Call, ExperimentMode, Flag, Mode
from seg.modes.plan_steps import Known, Settings, Step
from seg.planner import estimate, records, table, tables
from seg.planner.estimate import COMPILED, ROOFLINE, Figures, Row
from seg.planner.tables import Hardware
from seg.run.folder import RunFolder

if TYPE_CHECKING:
    from seg.experiment import Experiment

_COMMON = ('gin_file', 'gin_param', 'plugins', 'validate')
_PRECISION = next(flag for flag in SETTINGS if flag.name == 'precision')
_ACCESSES = 4  # Of each weight in a step: forward, backward, gradient, update.


class EndedError(UserError):
    """The system ended a process of the plan."""


class Plan(ExperimentMode):
    """Tells time, memory and cost of a training on hardware that need not be there; trains nothing."""

    name = 'plan'
    aliases = ('planning', 'cost', 'estimate')
    common_flags = tuple(flag for flag in SETTINGS if flag.name in _COMMON)
    flags = (
        Flag(
            'hardware',
            flags.DEFINE_list,
            [],
            'What to plan for, separated by commas: slices of TPUs (v3-8, v5e-8), GPUs (h100-1, a100-8), cpu.',
        ),
        Flag('output', flags.DEFINE_string, None, 'File to write.'),
        Flag('prices', flags.DEFINE_string, '', 'Your own price file. Default: the one of this package.'),
        _PRECISION,
    )

    def __init__(self, call: Call):
        """Checks flags and files; loads no framework.

        Raises:
          UserError: for the first mistake.
        """
        Mode.__init__(self, call)
        names = call.flags['hardware']
        names = names.split(',') if isinstance(names, str) else names
        if not names:
            raise UserError('--mode=plan: give --hardware=…, such as --hardware=v3-8,v5e-8,h100-1,cpu.')
        # By name, because several spellings name the same.
        self._hardware = list({found.name: found for found in map(tables.hardware, names)}.values())
        self._prices = tables.prices(call.flags['prices'])
        self.check_files()
        gin_files = self.gin_files()
        self.folder = RunFolder(self.directory(gin_files, call.model_dir))
        output = call.flags['output'] or (call.model_dir and self.folder.plan)
        self._output = os.path.expanduser(output) if output else None
        self._check_output()
        self._settings = Settings(gin_files, call.gin_params, call.plugin_specs, call.flags['precision'])
        self._steps: dict[tuple[str, int], Step | None] = {}

    def validate(self) -> str:
        facts = in_a_process(plan_steps.known, self._settings).facts
        return f'Valid: {facts.steps:,} steps with batches of {facts.batch}; nothing was planned.'

    def build(self) -> Experiment:
        """Refuses: the parts are built in other processes."""
        return Mode.build(self)

    def execute(self) -> dict[str, Any]:
        return self.run()

    def run(self) -> dict[str, Any]:
        known = in_a_process(plan_steps.known, self._settings)
        rows = []
        for hardware in self._hardware:
            logging.info('Planning %s.', hardware.name)
            rows.append(self._row(hardware, known))
        plan = table.as_json(rows, self._prices, known.facts.steps)
        if self._output:
            with files.writing(self._output):
                os.makedirs(os.path.dirname(self._output) or '.', exist_ok=True)
            files.write_json(self._output, plan)
            logging.info('Wrote %s.', self._output)
        return plan

    def _check_output(self) -> None:
        """Refuses, before steps are compiled for many minutes, a file that cannot be written."""
        if not self._output:
            return
        flag = '--output' if self.call.flags['output'] else '--model_dir'
        if os.path.isdir(self._output):
            raise UserError(f'{flag}: {self._output!r} is a folder, expected a file to write, such as plan.json.')
        folder = os.path.dirname(os.path.abspath(self._output))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            raise UserError(
                f'{flag}: {self._output!r} cannot be written: {folder!r} is no folder, or not writable. Name another '
                'place.'
            )

    @classmethod
    def printed(cls, results: dict[str, Any]) -> str:
        return table.text(results)

    def _row(self, hardware: Hardware, known: Known) -> Row:
        """A row: measured if it can be, else compiled, else from the step as compiled for the CPU."""
        facts = known.facts
        precision = hardware.precision if self._settings.precision == 'auto' else self._settings.precision
        if found := records.recorded(self.folder, hardware, facts, known.config, known.processor):
            return estimate.measured_row(hardware, found, facts, precision, self._prices)
        if hardware.facts is None:
            found, precision = in_a_process(plan_steps.measured, self._settings)
            return estimate.measured_row(hardware, found, facts, precision, self._prices)
        if message := estimate.undivided(hardware, facts):
            return estimate.refused_row(hardware, facts, precision, message)
        images = facts.batch // hardware.devices
        figures, note = self._compiled(hardware, images) if hardware.family == 'tpu' else (None, '')
        if figures is None:
            figures = roofline(hardware, images, self._on_the_cpu(), precision, note)
        return estimate.row(hardware, figures, facts, precision, self._prices)

    def _compiled(self, hardware: Hardware, images: int) -> tuple[Figures | None, str]:
        """The step compiled for four chips of the kind, or one: it is the same on more, but for the exchange.

        Returns:
          The figures and '', or None and why it could not be compiled.
        """
        if importlib.util.find_spec('libtpu') is None:
            return None, "pip install -e '.[tpu]' compiles the step"
        topology = four_chips(hardware)
        key = (topology.name, images)
        if key not in self._steps:
            arguments = (self._settings, topology.name, topology.devices, images)
            try:
                self._steps[key] = in_a_process(plan_steps.compiled, *arguments)
            except EndedError:
                self._steps[key] = None
        step = self._steps[key]
        if step is None:
            return None, 'the compiler was ended, probably for lack of memory: it takes up to 16 GB'
        fits = step.limit is None
        figures = Figures(
            images=images,
            flops=step.flops,
            bytes=step.bytes,
            memory=step.memory,
            available=topology.memory if fits else step.limit,
            loops=step.loops,
            largest=None if fits else step.largest,
            known_by=COMPILED,
        )
        return figures, ''

    def _on_the_cpu(self) -> Step:
        key = (chips.CPU.name, 0)
        if key not in self._steps:
            self._steps[key] = in_a_process(plan_steps.on_the_cpu, self._settings)
        return self._steps[key]


def four_chips(hardware: Hardware) -> chips.Topology:
    """The slice whose compiled step stands for all slices of the kind: the smallest of several chips."""
    known = [topology for topology in chips.table().values() if topology.name.startswith(f'{hardware.kind}-')]
    if hardware.devices == 1:
        return next(topology for topology in known if topology.devices == 1)
    return min((topology for topology in known if topology.devices > 1), key=lambda topology: topology.devices)


def roofline(hardware: Hardware, images: int, step: Step, precision: str, note: str) -> Figures:
    """Figures of a step from those of the program for the CPU, in float32 and with another number of images.

    Operations, and bytes and memory besides those of the weights, are proportional to the images. What the compiler for
    the device fuses otherwise is in the calibration (`cpu_bytes`).
    """
    factors, scale = tables.calibration()[hardware.family], images / step.images
    weights = _ACCESSES * step.fixed * 2**30
    of_weights = min(weights, step.bytes)
    width = 2.0 if precision == 'float32' else 1.0
    memory = step.fixed + (step.memory - step.fixed) * scale * width / 2
    available = hardware.facts.memory_gib * factors.usable_memory
    largest = None
    if memory > available:
        largest = max(0, math.floor((available - step.fixed) / (memory - step.fixed) * images))
    return Figures(
        images=images,
        flops=step.flops * scale,
        bytes=factors.cpu_bytes * width * (of_weights + (step.bytes - of_weights) * scale),
        memory=memory,
        available=available,
        loops=step.loops,
        largest=largest,
        known_by=ROOFLINE,
        note=note,
    )


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own: one process can have one engine, and the peak of its memory is its own.

    Raises:
      UserError: as the function does.
      EndedError: if the system ended the process.
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise EndedError(
                '--mode=plan: the process that built the training was ended by the system, probably for lack of '
                'memory. End other programs, or plan with a smaller batch.'
            ) from error


MODE = Plan
