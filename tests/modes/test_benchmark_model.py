"""`--mode=benchmark_model`: its figures, the processes of files, and what it refuses."""

import json
import math

import numpy as np
import pytest

from seg import modes
from seg.engine import set_up
from seg.errors import UserError
from seg.modes import benchmark_model
from seg.serving import latency


def test_figures_of_a_call():
    calls = []
    found = latency.measured(lambda: calls.append(bytearray(30_000_000)) or calls.clear(), batch=3, rounds=7)
    assert 0 < found['p50_ms'] <= found['p90_ms'] <= found['p99_ms'] and found['peak_memory_mb'] > 30
    assert math.isfinite(found['images_per_second']) and set(found) >= set(benchmark_model._COLUMNS)


def test_warm_up_is_not_measured():
    calls = []
    latency.measured(lambda: calls.append(1), batch=1, rounds=5)
    assert len(calls) == 8


def test_images_fill_the_canvas_and_are_always_the_same():
    first, second = latency.images(2, (33, 50)), latency.images(2, (33, 50))
    assert first.shape == (2, 33, 50, 3) and first.dtype == np.uint8 and np.array_equal(first, second)
    assert len(np.unique(first)) > 10


def run(**settings):
    return modes.run(mode='benchmark_model', engine=set_up('one', 'float32', 'off'), **settings)


def test_files_that_cannot_be_measured_are_told(tmp_path):
    """Each is opened in a process of its own."""
    broken = tmp_path / 'a.onnx'
    broken.write_bytes(b'nothing')
    results = run(model=str(broken), batch_sizes=['2'], rounds=1)
    (model,) = results['models']
    assert model['model'] == str(broken) and model['batch'] == 2 and str(broken) in model['error']
    assert str(broken) in benchmark_model.MODE.failure(results) and json.dumps(results)
    assert str(broken) in modes.validate(
        mode='benchmark_model', model=str(broken), engine=set_up('one', 'float32', 'off')
    )


def test_files_side_by_side(tmp_path, monkeypatch):
    """A file with a fixed batch of 1 appears once."""
    for name in 'ab':
        (tmp_path / f'{name}.onnx').write_bytes(b'-')
    figures = {name: 1.0 for name in benchmark_model._COLUMNS}

    def of_file(path, batch, rounds):
        return {'format': 'onnx', 'quantize': 'none', 'batch': 1 if 'a.onnx' in path else batch, **figures}

    monkeypatch.setattr(latency, 'of_file', of_file)
    results = run(model=f'{tmp_path}/a.onnx,{tmp_path}/b.onnx', batch_sizes=['1', '4'], rounds=1)
    assert [(model['model'][-6:], model['batch']) for model in results['models']] == [
        ('a.onnx', 1), ('b.onnx', 1), ('b.onnx', 4),
    ]  # fmt: skip
    table = benchmark_model._table(results['models']).splitlines()
    assert len(table) == 4 and len({line.index('  ' + str(tmp_path)) for line in table[1:]}) == 1


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'batch_sizes': ['0']}, '--batch_sizes=0'),
        ({'batch_sizes': ['two']}, '--batch_sizes=two'),
        ({'rounds': -1}, '--rounds=-1'),
        ({}, 'missing.onnx'),
    ],
)
def test_refusals(settings, named):
    with pytest.raises(UserError, match=named):
        run(model='missing.onnx', **settings)
