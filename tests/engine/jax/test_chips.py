"""Names of slices of TPUs."""

import math

import pytest

from seg.engine.jax import chips
from seg.errors import UserError


@pytest.mark.parametrize(
    ('name', 'devices', 'memory', 'layout'),
    [
        ('v2-8', 8, 8, 'v2:2x2'),
        ('v2-256', 256, 8, 'v2:8x16'),
        ('v3-8', 8, 16, 'v3:2x2'),
        ('v3-32', 32, 16, 'v3:4x4'),
        ('v4-8', 4, 32, 'v4:2x2x1'),
        ('v5e-1', 1, 16, 'v5e:1x1'),
        ('v5e-8', 8, 16, 'v5e:2x4'),
        ('v5litepod-256', 256, 16, 'v5e:16x16'),
        ('v5p-8', 4, 96, 'v5p:2x2x1'),
        ('v6e-8', 8, 32, 'v6e:2x4'),
    ],
)
def test_devices_and_memory(name, devices, memory, layout):
    """The numbers count TensorCores up to v4 and in v5p, where two are a chip; the devices of JAX do so up to v3."""
    found = chips.find(name)
    assert (found.devices, found.memory, found.layout) == (devices, memory, layout)
    assert found.name == name.replace('v5litepod', 'v5e')


def test_the_cpu_is_one_device():
    assert chips.find('cpu').devices == 1 and 'cpu' not in chips.table()


def test_every_name_stands_for_one_slice():
    table = chips.table()
    assert all(found.name == name for name, found in table.items())
    for found in table.values():
        count = math.prod(map(int, found.layout.partition(':')[2].split('x')))
        assert found.devices in (count, 2 * count)


@pytest.mark.parametrize('name', ['v3-7', 'v3', 'v9-8', 'V3-8', 'v5-8', ''])
def test_a_wrong_name(name):
    with pytest.raises(UserError) as info:
        chips.find(name)
    message = str(info.value)
    assert message.startswith(f'--topology={name}: ') and 'v3-8/32/' in message and 'v6e-1/4/8/' in message
