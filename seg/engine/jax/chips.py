"""The slices of TPUs that Cloud TPU offers, by their names, and the memory of a device. Loads no framework.

`cpu` stands for one device that is the CPU of this machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from seg.errors import UserError

_FLAT = '1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16'
_CUBES = '2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16'


class _Chip(NamedTuple):
    """One version of a TPU.

    Attributes:
      memory: GiB of a device of JAX.
      devices: devices of a chip: each TensorCore is one in v2 and v3; both together are one from v4 on.
      counted: contribution of a chip to the number in a slice's name: 2 if it counts TensorCores, 1 if it counts chips.
      layouts: arrangements of the chips in slices.
      options: options of libtpu besides the layout.
    """

    memory: float
    devices: int
    counted: int
    layouts: str
    options: Mapping[str, Any] = {}


# From the page of each version, such as https://cloud.google.com/tpu/docs/v3: "HBM capacity" (of a chip) and
# "Configurations". v5p's page says 95 GB, and libtpu gives a program 95.74 GiB. On the others libtpu leaves 7.48 (v2),
# 15.48 (v3), 30.75 (v4), 15.75 (v5e) and 31.25 GiB (v6e).
_CHIPS = {
    'v2': _Chip(8, 2, 2, '2x2 4x4 8x8 8x16 16x16'),
    'v3': _Chip(16, 2, 2, '2x2 4x4 4x8 8x8 8x16 16x16 16x32 32x32'),
    'v4': _Chip(32, 1, 2, _CUBES, {'chip_config_name': 'megacore'}),
    'v5e': _Chip(16, 1, 1, _FLAT),
    'v5p': _Chip(96, 1, 2, f'{_CUBES} 16x16x16 16x16x24'),
    'v6e': _Chip(32, 1, 1, _FLAT),
}


class Topology(NamedTuple):
    """A slice of TPUs.

    Attributes:
      name: Cloud TPU's name, such as `v3-8`.
      memory: GiB of each device.
      devices: number of devices of JAX.
      layout: libtpu's name, such as `v3:2x2`.
      options: options of libtpu besides the layout.
    """

    name: str
    memory: float
    devices: int
    layout: str
    options: Mapping[str, Any]


CPU = Topology('cpu', math.inf, 1, 'cpu', {})


def table() -> dict[str, Topology]:
    """All slices by name."""
    found = {}
    for version, chip in _CHIPS.items():
        for layout in chip.layouts.split():
            chips = math.prod(map(int, layout.split('x')))
            name = f'{version}-{chips * chip.counted}'
            one = {'chips_per_host_bounds': (1, 1, 1)} if chips == 1 else {}
            options = {**chip.options, **one}
            found[name] = Topology(name, chip.memory, chips * chip.devices, f'{version}:{layout}', options)
    return found


def find(name: str, flag: str = '--topology') -> Topology:
    """Returns a slice, or `cpu`; `v5litepod-8` means the same as `v5e-8`. Messages begin with the flag.

    Raises:
      UserError: for an unknown name, with all names.
    """
    if name == CPU.name:
        return CPU
    known = table()
    found = known.get(name.replace('v5litepod-', 'v5e-'))
    if found is None:
        names = ', '.join(
            f'{version}-' + '/'.join(other.partition('-')[2] for other in known if other.startswith(f'{version}-'))
            for version in _CHIPS
        )
        raise UserError(
            f'{flag}={name}: expected cpu, or one of {names}. The number counts TensorCores for v2, v3, v4 and v5p, '
            'and chips for v5e and v6e.'
        )
    return found
