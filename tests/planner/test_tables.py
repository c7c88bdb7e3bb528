"""Hardware by name, and price files."""

import json
import math
import pathlib

import pytest

from seg.errors import UserError
from seg.planner import tables

FOLDER = pathlib.Path(tables.__file__).parent


@pytest.mark.parametrize(
    ('name', 'found', 'kind', 'devices'),
    [
        ('v2-8', 'v2-8', 'v2', 8),
        ('v4-16', 'v4-16', 'v4', 8),  # The name counts TensorCores, two of which are one device.
        ('v5litepod-8', 'v5e-8', 'v5e', 8),
        ('v5p-8', 'v5p-8', 'v5p', 4),
        ('h100', 'h100-1', 'h100', 1),
        ('a100-8', 'a100-8', 'a100', 8),
        ('cpu', 'cpu', 'cpu', 1),
    ],
)
def test_names(name, found, kind, devices):
    hardware = tables.hardware(name)
    assert (hardware.name, hardware.kind, hardware.devices) == (found, kind, devices)


@pytest.mark.parametrize('name', ['v3', 'v3-9', 'v9-8', 'h100-3', 'h100-x', 'tpu', '', 'cpu-2'])
def test_unknown_names(name):
    with pytest.raises(UserError, match=f'--hardware={name}: expected cpu'):
        tables.hardware(name)


def test_precision_that_a_device_has():
    assert [tables.hardware(name).precision for name in ('v2-8', 'h100-1', 'v100-1')] == [
        'bfloat16', 'bfloat16', 'float32',
    ]  # fmt: skip


def test_every_fact_has_its_source():
    for facts in tables.kinds().values():
        assert facts.source and facts.peak_tflops.keys() == {'bfloat16', 'float32'}
    for factors in tables.calibration().values():
        assert factors.source
    for path in FOLDER.glob('prices*.json'):
        assert all(price['source'] for price in tables.prices(str(path)).prices.values())


def test_the_memory_is_that_of_the_slices():
    for name in ('v2-8', 'v3-8', 'v4-8', 'v5e-8', 'v6e-8'):
        hardware = tables.hardware(name)
        assert hardware.facts.memory_gib == tables.chips.find(name).memory


def test_a_price_of_a_slice_comes_before_that_of_its_devices():
    prices = tables.prices()
    assert prices.per_hour(tables.hardware('v2-8')) == pytest.approx((4.5, 1.35))
    assert prices.per_hour(tables.hardware('v2-128')) == (96.0, 24.48)
    assert prices.per_hour(tables.hardware('v3-8')) == (8.0, 2.04)
    assert prices.of('cpu', 2) == pytest.approx((0.067006, 0.020102))
    assert tables.prices(str(FOLDER / 'prices_2019_04.json')).per_hour(tables.hardware('h100-1')) == (None, None)


def test_your_own_prices(tmp_path):
    path = tmp_path / 'mine.json'
    price = {'on_demand': 2, 'spot': None, 'source': 'contract'}
    path.write_text(json.dumps({'date': '2027-01', 'currency': 'USD', 'prices': {'h100': price}}))
    prices = tables.prices(str(path))
    assert prices.date == '2027-01' and prices.per_hour(tables.hardware('h100-8')) == (16, None)


@pytest.mark.parametrize(
    ('changes', 'place'),
    [
        ({'date': None}, 'date is None'),
        ({'currency': 'EUR'}, "currency is 'EUR'"),
        ({'prices': []}, 'prices is '),
        ({'prices': {'h1000': {'on_demand': 1, 'spot': 1, 'source': 's'}}}, "'h1000'"),
        ({'prices': {'v3-9': {'on_demand': 1, 'spot': 1, 'source': 's'}}}, "'v3-9'"),
        ({'prices': {'h100': {'on_demand': '1', 'spot': 1, 'source': 's'}}}, r"prices\['h100'\].on_demand is '1'"),
        ({'prices': {'h100': {'on_demand': 1, 'source': 's'}}}, r"prices\['h100'\].spot"),
        ({'prices': {'h100': {'on_demand': 1, 'spot': None}}}, r"prices\['h100'\].source"),
        ({'prices': {'h100': 3}}, r"prices\['h100'\] is 3"),
        ({'date': 'yesterday'}, "date is 'yesterday'"),
        ({'price': {}}, "'price'"),
        ({'prices': {'v5litepod-8': {'on_demand': 1, 'spot': 1, 'source': 's'}}}, "'v5litepod-8'"),
        ({'prices': {'h100': {'ondemand': 1, 'spot': 1, 'source': 's'}}}, "'ondemand'"),
        ({'prices': {'h100': {'on_demand': math.inf, 'spot': 1, 'source': 's'}}}, r"prices\['h100'\].on_demand is inf"),
        ({'prices': {'h100': {'on_demand': 1, 'spot': math.nan, 'source': 's'}}}, r"prices\['h100'\].spot is nan"),
        ({'prices': {'h100': {'on_demand': 1, 'source': 's'}}}, r"prices\['h100'\].spot is missing"),
    ],
)
def test_wrong_price_files(tmp_path, changes, place):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps({'date': '2027-01', 'currency': 'USD', 'prices': {}} | changes))
    with pytest.raises(UserError, match=f'--prices={path}: .*{place}'):
        tables.prices(str(path))


def test_a_missing_price_file(tmp_path):
    with pytest.raises(UserError, match=f'--prices={tmp_path / "no.json"}'):
        tables.prices(str(tmp_path / 'no.json'))


def test_factors_of_gpus_are_those_of_two_measurements():
    """On one H100 (docs/speed.md): DeepLab v3+ at 384 images/s; Mask R-CNN, whose loops take time, at 86.5 in fours."""
    factors, bandwidth = tables.calibration()['gpu'], tables.kinds()['h100'].bandwidth_gbs
    assert bandwidth * factors.efficiency / 8.2 == pytest.approx(384, rel=0.01)
    assert 4 / (4 * 22.8 / (bandwidth * factors.efficiency) + factors.loops_seconds) == pytest.approx(86.5, rel=0.01)
