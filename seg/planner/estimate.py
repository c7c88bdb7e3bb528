"""From the figures of a step to a row of the plan: time, memory and cost. Arithmetic only."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from seg.planner import tables
from seg.planner.tables import Factors, Hardware, Prices

MEASURED, COMPILED, ROOFLINE = 'measured', 'compiled', 'roofline'


class Facts(NamedTuple):
    """What the settings say of a training, the same for all hardware.

    Attributes:
      batch: global batch size.
      steps: `TRAIN_STEPS`.
      rate: peak of the learning rate.
      exchanged: bytes of the gradients, which the devices sum.
      input_seconds: seconds of one core for one image of the input, decoding and augmentation included.
    """

    batch: int
    steps: int
    rate: float
    exchanged: float
    input_seconds: float


class Figures(NamedTuple):
    """A step on one device.

    Attributes:
      images: of the device.
      flops: floating-point operations.
      bytes: that it reads and writes.
      memory: GiB that it needs.
      available: GiB that the device leaves to a program.
      loops: whether it holds loops whose length the compiler does not know.
      largest: images of the largest step that fits; None if this one does.
      known_by: `COMPILED` or `ROOFLINE`.
      note: a remark for the row.
    """

    images: int
    flops: float
    bytes: float
    memory: float
    available: float
    loops: bool
    largest: int | None = None
    known_by: str = COMPILED
    note: str = ''


class Measured(NamedTuple):
    """Steps that ran: seconds of one, GiB of the process at its peak (None: unknown), and of the machine, a remark."""

    step_seconds: float
    memory: float | None
    available: float | None
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the plan. None: unknown; of a step that does not fit, all but the memory is."""

    hardware: str
    devices: int
    batch: int
    per_device: int | None = None
    learning_rate: float
    precision: str
    memory_gib: float | None = None
    memory_available_gib: float | None = None
    images_per_second: float | None = None
    step_seconds: float | None = None
    hours: float | None = None
    usd: float | None = None
    usd_spot: float | None = None
    limit: str | None = None
    known_by: str | None = None
    message: str = ''


def parts(hardware: Hardware, figures: Figures, facts: Facts, precision: str, factors: Factors) -> dict[str, float]:
    """Seconds of a step by what takes them. Matrix units and memory work at the same time, and so does the input."""
    kind, devices = hardware.facts, hardware.devices
    ring = 2 * (devices - 1) / devices * facts.exchanged
    cores = kind.vcpus * devices * tables.cores_per_vcpu()
    return {
        'matrix units': figures.flops / (kind.peak_tflops[precision] * 1e12 * factors.efficiency),
        'memory bandwidth': figures.bytes / (kind.bandwidth_gbs * 1e9 * factors.efficiency),
        'all-reduce': ring / (kind.link_gbs * 1e9 * factors.link_efficiency),
        'loops': factors.loops_seconds if figures.loops else 0.0,
        'input': facts.batch * facts.input_seconds / cores,
    }


def step_seconds(found: dict[str, float]) -> float:
    """Seconds of a step from its `parts`."""
    device = max(found['matrix units'], found['memory bandwidth']) + found['all-reduce'] + found['loops']
    return max(device, found['input'])


def _limit(found: dict[str, float]) -> str:
    """The part that binds."""
    if found['input'] >= step_seconds(found):
        return 'input'
    return max((name for name in found if name != 'input'), key=found.get)


def row(hardware: Hardware, figures: Figures, facts: Facts, precision: str, prices: Prices) -> Row:
    """The row of devices whose step was compiled or estimated."""
    memory = {'memory_gib': figures.memory, 'memory_available_gib': figures.available}
    start = _start(hardware, facts, precision) | memory | {'known_by': figures.known_by}
    if figures.largest is not None:
        return Row(**start, message=_too_large(hardware, figures, facts))
    found = parts(hardware, figures, facts, precision, tables.calibration()[hardware.family])
    return Row(
        **start, **_times(hardware, step_seconds(found), facts, prices), limit=_limit(found), message=figures.note
    )


def measured_row(hardware: Hardware, found: Measured, facts: Facts, precision: str, prices: Prices) -> Row:
    """The row of a configuration that has been measured."""
    memory = {'memory_gib': found.memory, 'memory_available_gib': found.available}
    times = _times(hardware, found.step_seconds, facts, prices)
    start = _start(hardware, facts, precision)
    return Row(**start, **memory, **times, known_by=MEASURED, message=found.note)


def refused_row(hardware: Hardware, facts: Facts, precision: str, message: str) -> Row:
    """The row of hardware on which the training cannot start."""
    return Row(**_start(hardware, facts, precision), message=message)


def undivided(hardware: Hardware, facts: Facts) -> str:
    """Why the batch does not divide among the devices; empty if it does."""
    if facts.batch % hardware.devices == 0:
        return ''
    below = facts.batch // hardware.devices * hardware.devices
    choices = ' or '.join(str(size) for size in (below, below + hardware.devices) if size)
    return f'batch {facts.batch} does not divide among {hardware.devices} devices; use {choices}'


def _start(hardware: Hardware, facts: Facts, precision: str) -> dict[str, Any]:
    divides = facts.batch % hardware.devices == 0
    return {
        'hardware': hardware.name,
        'devices': hardware.devices,
        'batch': facts.batch,
        'per_device': facts.batch // hardware.devices if divides else None,
        'learning_rate': facts.rate,
        'precision': precision,
    }


def _times(hardware: Hardware, seconds: float, facts: Facts, prices: Prices) -> dict[str, float | None]:
    hours = facts.steps * seconds / 3600
    usd, spot = prices.per_hour(hardware)
    return {
        'images_per_second': facts.batch / seconds,
        'step_seconds': seconds,
        'hours': hours,
        'usd': None if usd is None else usd * hours,
        'usd_spot': None if spot is None else spot * hours,
    }


def _too_large(hardware: Hardware, figures: Figures, facts: Facts) -> str:
    needs = f'batch {facts.batch} does not fit: {figures.memory:.3g} of {figures.available:.4g} GiB'
    if not figures.largest:
        return f'{needs}; no batch fits'
    about = 'about ' if figures.known_by == ROOFLINE else ''
    return f'{needs}; {about}{figures.largest * hardware.devices} = {hardware.devices} x {figures.largest} does'
