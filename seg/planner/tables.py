"""The facts that a plan rests on, from JSON files: hardware, prices, and calibration. Each has its source."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from seg import cores, files
from seg.engine.jax import chips
from seg.errors import UserError, did_you_mean, shown

_FOLDER = os.path.dirname(os.path.abspath(__file__))
CPU = 'cpu'
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of device, as hardware.json describes it."""

    family: str
    peak_tflops: Mapping[str, float]
    bandwidth_gbs: float
    memory_gib: float
    link_gbs: float
    vcpus: float
    source: str
    sizes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


class Hardware(NamedTuple):
    """Devices that train together.

    Attributes:
      name: the value of `--hardware`, such as `v3-8`, `h100-1` or `cpu`.
      kind: key of hardware.json; `cpu` for the CPU of this machine.
      devices: their number.
      facts: facts of a device; None for the CPU of this machine.
    """

    name: str
    kind: str
    devices: int
    facts: Kind | None

    @property
    def family(self) -> str:
        """`tpu`, `gpu` or `cpu`."""
        return self.facts.family if self.facts else CPU

    @property
    def precision(self) -> str:
        """The precision that `auto` selects on these devices."""
        if self.facts is None:
            return 'auto'
        peak = self.facts.peak_tflops
        return 'bfloat16' if peak['bfloat16'] > peak['float32'] else 'float32'


class Factors(NamedTuple):
    """The calibration of a family of devices, see calibration.json."""

    efficiency: float
    loops_seconds: float
    link_efficiency: float
    cpu_bytes: float
    usable_memory: float
    source: str


@dataclasses.dataclass(frozen=True)
class Prices:
    """A price file.

    Attributes:
      path: the file.
      date: the date that the table prints.
      prices: {slice or kind: {'on_demand': USD per hour, 'spot': USD per hour or None, 'source': text}}.
    """

    path: str
    date: str
    prices: Mapping[str, Mapping[str, Any]]

    def per_hour(self, hardware: Hardware) -> tuple[float | None, float | None]:
        """USD per hour of all devices, on demand and spot; None for what the file does not have."""
        if (found := self.prices.get(hardware.name)) and hardware.facts is not None:
            return found['on_demand'], found['spot']
        return self.of(hardware.kind, hardware.devices if hardware.facts else cores.usable())

    def of(self, kind: str, number: int) -> tuple[float | None, float | None]:
        """USD per hour of a number of devices of a kind, or of cores of a CPU, as `per_hour`."""
        found = self.prices.get(kind, {'on_demand': None, 'spot': None})
        return tuple(None if found[how] is None else found[how] * number for how in ('on_demand', 'spot'))


@functools.cache
def kinds() -> dict[str, Kind]:
    """The kinds of devices by name."""
    found = files.read_object(os.path.join(_FOLDER, 'hardware.json'), '')['kinds']
    lists = ('sizes', 'names')
    return {
        name: Kind(**{key: tuple(value) if key in lists else value for key, value in facts.items()})
        for name, facts in found.items()
    }


def hardware(name: str) -> Hardware:
    """Finds hardware by its name.

    Raises:
      UserError: for an unknown name, with all names.
    """
    if name == CPU:
        return Hardware(name, CPU, 1, None)
    kind, _, count = name.replace('v5litepod-', 'v5e-').partition('-')
    facts = kinds().get(kind)
    if facts is not None and facts.family == 'tpu' and count:
        topology = chips.find(f'{kind}-{count}', '--hardware')
        return Hardware(topology.name, kind, topology.devices, facts)
    if facts is not None and facts.family == 'gpu' and (count or '1').isdigit() and int(count or 1) in facts.sizes:
        return Hardware(f'{kind}-{count or 1}', kind, int(count or 1), facts)
    gpus = [f'{other}-{"/".join(map(str, known.sizes))}' for other, known in kinds().items() if known.family == 'gpu']
    raise UserError(
        f'--hardware={name}: expected {CPU}, {", ".join(gpus)}, or a slice of TPUs, such as v3-32 or v5e-8.'
    )


@functools.cache
def calibration() -> dict[str, Factors]:
    """The factors by family."""
    found = files.read_object(os.path.join(_FOLDER, 'calibration.json'), '')['families']
    return {family: Factors(**factors) for family, factors in found.items()}


@functools.cache
def cores_per_vcpu() -> float:
    return files.read_object(os.path.join(_FOLDER, 'calibration.json'), '')['input']['cores_per_vcpu']


def prices(path: str = '') -> Prices:
    """Reads a price file; empty for the one of this package.

    Raises:
      UserError: with file, key and value, if it cannot be read or is not as expected.
    """
    path = os.path.expanduser(path) or os.path.join(_FOLDER, 'prices.json')
    if not os.path.exists(path):
        raise UserError(f'--prices={path}: there is no such file.{did_you_mean(path)} docs/planning.md describes it.')
    remedy = 'docs/planning.md describes price files.'
    found = files.read_object(path, remedy)

    def check(right: bool, key: str, value: Any, expected: str) -> None:
        if not right:
            fault = 'is missing' if value is _MISSING else f'is {shown(value)}'
            raise UserError(f'--prices={path}: {key} {fault}, expected {expected}. {remedy}')

    def check_fields(place: str, value: dict[str, Any], fields: tuple[str, ...]) -> None:
        unknown = [key for key in value if key not in fields]
        check(not unknown, f'a field of {place}', ''.join(unknown[:1]), ' or '.join(fields))

    check_fields('the file', found, ('date', 'currency', 'about', 'prices'))
    date = found.get('date', _MISSING)
    check(isinstance(date, str) and re.match(r'\d{4}-\d\d', date), 'date', date, "a date, such as '2026-11'")
    check(found.get('currency') == 'USD', 'currency', found.get('currency'), "'USD'")
    check(isinstance(found.get('prices'), dict), 'prices', found.get('prices'), 'an object by slice or kind')
    for name, price in found['prices'].items():
        place = f'prices[{name!r}]'
        check(_is_known(name), 'a key of prices', name, 'a kind, such as v5e, or a slice, such as v5e-8')
        check(isinstance(price, dict), place, price, 'an object with on_demand, spot and source')
        check_fields(place, price, ('on_demand', 'spot', 'source'))
        for how in ('on_demand', 'spot'):
            value = price.get(how, _MISSING)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            right = value is None or (number and 0 <= value < math.inf)
            check(right, f'{place}.{how}', value, 'USD per hour, or null')
        source = price.get('source', _MISSING)
        check(isinstance(source, str) and source != '', f'{place}.source', source, "a text; 'no readable source' if so")
    return Prices(path, found['date'], found['prices'])


def _is_known(name: str) -> bool:
    """Whether a price can have this key: one that a plan looks for."""
    try:
        return name in kinds() or hardware(name).name == name
    except UserError:
        return False
