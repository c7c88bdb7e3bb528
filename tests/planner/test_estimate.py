"""The arithmetic of a row, against numbers by hand."""

import pytest

from seg.planner import estimate, tables
from seg.planner.estimate import Facts, Figures

FACTS = Facts(batch=64, steps=22_500, rate=0.08, exchanged=160e6, input_seconds=0.01)
STEP = Figures(images=8, flops=8e12, bytes=30e9, memory=9.0, available=15.48, loops=False)


def row(name='v3-8', figures=STEP, facts=FACTS, precision='bfloat16'):
    return estimate.row(tables.hardware(name), figures, facts, precision, tables.prices())


def parts(name='v3-8', figures=STEP, facts=FACTS, precision='bfloat16'):
    hardware = tables.hardware(name)
    return estimate.parts(hardware, figures, facts, precision, tables.calibration()[hardware.family])


def test_the_parts_of_a_step():
    factors, found = tables.calibration()['tpu'], parts()
    assert found['matrix units'] == pytest.approx(8e12 / 61.5e12 / factors.efficiency)
    assert found['memory bandwidth'] == pytest.approx(30e9 / 450e9 / factors.efficiency)
    # A ring: each device sends 7/8 of the gradients twice.
    assert found['all-reduce'] == pytest.approx(2 * 7 / 8 * 160e6 / (41e9 * factors.link_efficiency))
    assert found['loops'] == 0
    assert found['input'] == pytest.approx(64 * 0.01 / (12 * 8 * 0.5))  # 96 vCPUs are 48 cores.
    assert parts(figures=STEP._replace(loops=True))['loops'] == factors.loops_seconds > 0


def test_one_device_exchanges_nothing():
    assert parts('h100-1')['all-reduce'] == 0


def test_float32_takes_longer():
    assert parts(precision='float32')['matrix units'] > 3 * parts()['matrix units']


@pytest.mark.parametrize(
    ('figures', 'facts', 'limit'),
    [
        (STEP, FACTS, 'matrix units'),
        (STEP._replace(bytes=90e9), FACTS, 'memory bandwidth'),
        (STEP._replace(flops=1e9, bytes=1e6), FACTS._replace(exchanged=60e9), 'all-reduce'),
        (STEP, FACTS._replace(input_seconds=1.0), 'input'),
        (STEP._replace(flops=1e9, bytes=1e6, loops=True), FACTS, 'loops'),
    ],
)
def test_the_limit_that_binds(figures, facts, limit):
    assert row(figures=figures, facts=facts).limit == limit


def test_hours_and_cost_follow_from_the_step():
    found = row()
    seconds = estimate.step_seconds(parts())
    assert found.step_seconds == seconds and found.images_per_second == pytest.approx(64 / seconds)
    assert found.hours == pytest.approx(22_500 * seconds / 3600)
    assert found.usd == pytest.approx(8.0 * found.hours) and found.usd_spot == pytest.approx(2.04 * found.hours)
    assert (found.devices, found.batch, found.per_device, found.learning_rate) == (8, 64, 8, 0.08)
    assert (found.memory_gib, found.memory_available_gib, found.known_by) == (9.0, 15.48, 'compiled')


def test_a_step_that_does_not_fit():
    found = row(figures=STEP._replace(memory=23.1, largest=5))
    assert (found.step_seconds, found.hours, found.usd, found.limit) == (None,) * 4
    assert found.memory_gib == 23.1 and '40 = 8 x 5' in found.message
    assert 'no batch fits' in row(figures=STEP._replace(memory=23.1, largest=0)).message


def test_a_batch_that_does_not_divide():
    facts = FACTS._replace(batch=80)
    message = estimate.undivided(tables.hardware('v3-32'), facts)
    assert '80' in message and '64 or 96' in message
    assert estimate.undivided(tables.hardware('v3-8'), facts) == ''
    refused = estimate.refused_row(tables.hardware('v3-32'), facts, 'bfloat16', message)
    assert refused.per_device is None and refused.step_seconds is None and refused.message == message
