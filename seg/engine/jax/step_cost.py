"""The cost of a compiled step on a device, parsed from XLA's texts. Loads no framework."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_COLLECTIVE = re.compile(
    r'= (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast)(-start)?\('
)
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+)[a-z0-9]*\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?')
_COMPUTATION = re.compile(r'(?:ENTRY )?%([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)')
_CALLED = re.compile(r'(?:to_apply|calls)=%([\w.\-]+)')
# They access no memory, or what they access counts at the instructions that they call or begin.
_NO_ACCESS = frozenset(
    'parameter constant bitcast tuple get-tuple-element while conditional call after-all copy-done slice-done '
    'all-reduce-done async-done async-update'.split()
)
_SIZE = r'([\d.]+)([KMGT]?)'
_TOO_LARGE = (
    re.compile(rf'\({_SIZE}\) exceeds available HBM \({_SIZE}\)'),
    re.compile(rf'Used {_SIZE} of {_SIZE} hbm'),
)
_GIB = {'': 2**-30, 'K': 2**-20, 'M': 2**-10, 'G': 1, 'T': 2**10}


class Compiled(NamedTuple):
    """One program. All numbers are of one device.

    Attributes:
      memory: GiB that it needs: arguments, results, temporary arrays and code.
      limit: GiB that are available to it; None if it fits.
      flops: floating-point operations. The body of a loop counts once, here and below.
      bytes_accessed: bytes read and written in the main memory.
      collectives: number and bytes of the exchanges between devices, by kind.
      seconds: duration of the compilation.
      cpu_seconds: its CPU time.
      loops: number of loops in the program as it was given to the compiler.
      on_chip: part of all accesses that XLA counts which are to memory on the chip, and not in `bytes_accessed`.
    """

    memory: float
    limit: float | None = None
    flops: float = 0.0
    bytes_accessed: float = 0.0
    collectives: dict[str, tuple[int, int]] = {}  # Never changed.
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loops: int = 0
    on_chip: float = 0.0

    @property
    def gflop(self) -> str:
        """10^9 floating-point operations, with four digits."""
        return f'{float(f"{self.flops / 1e9:.4g}"):,.15g}'

    def text(self) -> str:
        """The cost of a program that fits."""
        exchanges = [f'{count} {kind} ({size / 1e6:.3g} MB)' for kind, (count, size) in self.collectives.items()]
        return (
            f'{self.gflop} GFLOP, {self.bytes_accessed / 1e9:.3g} GB accessed, '
            f'{", ".join(exchanges) or "no exchange"}; compiled in {self.seconds:.0f} s ({self.cpu_seconds:.0f} s of '
            'CPU time)'
        )


class StepCost(NamedTuple):
    """A step with the batch size of the settings and, if that does not fit, with the largest batch that does.

    Attributes:
      step: `training` or `evaluation`.
      devices: number of devices.
      memory: GiB of a device.
      batch: global batch size of the settings.
      program: the step with it.
      largest: global batch size of `fitting`; None if there is none.
      fitting: the step with the largest batch, if `program` does not fit.
      fixed: GiB of the arguments that do not depend on the batch.
    """

    step: str
    devices: int
    memory: float
    batch: int
    program: Compiled
    largest: int | None = None
    fitting: Compiled | None = None
    fixed: float = 0.0

    def text(self) -> str:
        """One line."""
        needs = f'memory {self.program.memory:.3g} of {self.memory:g} GiB'
        start = f'{self.step} step, {self._batch(self.batch)}: '
        if self.program.limit is None:
            return f'{start}{needs}, {self.program.text()}'
        start += f'does not fit, {needs}, of which {self.program.limit:.4g} are available. '
        if self.fitting is None:
            return f'{start}No batch fits.'
        return (
            f'{start}The largest that fits, {self._batch(self.largest)}: memory {self.fitting.memory:.3g} of '
            f'{self.memory:g} GiB, {self.fitting.text()}'
        )

    def _batch(self, size: int) -> str:
        return f'batch {size} = {self.devices} x {size // self.devices}'


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """The exchanges between devices in a compiled program: number and bytes of their results by kind.

    Args:
      text: the program, as `Compiled.as_text` of JAX returns it.
    """
    found: dict[str, tuple[int, int]] = {}
    for match in _COLLECTIVE.finditer(text):
        result, kind, starts = match.groups()
        arrays = _ARRAY.findall(result)
        if starts and kind in ('all-gather', 'collective-permute'):  # Their results begin with the operand.
            arrays = arrays[1:2]
        count, size = found.get(kind, (0, 0))
        found[kind] = count + 1, size + sum(_bytes(dtype, _dims(sides)) for dtype, sides, *_ in arrays)
    return found


def on_chip(text: str) -> float:
    """The part of a program's accesses that are to memory on the chip (VMEM, CMEM), which XLA's analysis counts too.

    Instructions access their operands and results, each once, tiles with their padding; those within a fusion nothing.
    On v3, where all is in the main memory, the sum is that of XLA's analysis but for 1 %.

    Args:
      text: the program, as `Compiled.as_text` of JAX returns it: results have layouts, `S(1)` on the chip.
    """
    within = set(_CALLED.findall(text))
    main = chip = 0
    results: dict[str, str] = {}
    skipped = False
    for line in text.splitlines():
        if computation := _COMPUTATION.match(line):
            skipped, results = computation[1] in within, {}
        elif instruction := _INSTRUCTION.match(line):
            name, result, kind, rest = instruction.groups()
            results[name] = result
            if skipped or kind in _NO_ACCESS:
                continue
            operands = [results.get(each, '') for each in re.findall(r'%([\w.\-]+)', rest.partition('), ')[0])]
            for size, away in _accesses(kind, result, operands):
                main, chip = (main, chip + size) if away else (main + size, chip)
    return chip / max(main + chip, 1)


def _accesses(kind: str, result: str, operands: Sequence[str]) -> list[tuple[int, bool]]:
    """Bytes of each access of an instruction, and whether it is on the chip."""
    results = [_stored(*array) for array in _ARRAY.findall(result)]
    read = [_stored(*array) for operand in operands for array in _ARRAY.findall(operand)]
    if kind in ('copy-start', 'slice-start') and read:
        # Their results hold the operand and a semaphore too, and a slice reads no more than it writes.
        size, away = results[0] if kind == 'copy-start' else results[-2]
        return [(size, away), (size, read[0][1])]
    return results + read


def _stored(dtype: str, sides: str, order: str, layout: str) -> tuple[int, bool]:
    """Bytes of an array with the padding of its tiles, and whether it is on the chip."""
    dims = _dims(sides)
    if (tile := re.match(r'T\(([\d,]+)\)', layout)) and dims:
        for size, axis in zip(reversed(tile[1].split(',')), order.split(','), strict=False):  # From the minor axis on.
            dims[int(axis)] = -(-dims[int(axis)] // int(size)) * int(size)
    return _bytes(dtype, dims), re.search(r'S\([1-9]', layout) is not None


def _dims(sides: str) -> list[int]:
    return [int(side) for side in filter(None, sides.split(','))]


def _bytes(dtype: str, dims: Sequence[int]) -> int:
    bits = 8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype))
    return bits * math.prod(dims) // 8


def excess(message: str) -> tuple[float, float] | None:
    """GiB that a program needs and GiB that are available, parsed from XLA's message that it does not fit.

    None for any other message.
    """
    for pattern in _TOO_LARGE:
        if match := pattern.search(message):
            needed, unit, available, other = match.groups()
            return float(needed) * _GIB[unit], float(available) * _GIB[other]
    return None
