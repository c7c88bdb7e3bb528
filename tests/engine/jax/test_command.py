"""`--engine=jax` on the command line: a run on two devices, predictions, and an evaluation by the other engine."""

import json
import os
import subprocess
import sys

import pytest

from seg import modes
from tests.executor import runs

PARAMS = (*runs.SMALL, *runs.SMALL_PARTS[runs.SHAPES], runs.BACKBONE)
# Several commands in one process, which imports and compiles once; the status of each is printed.
PROGRAM = """
import sys
from seg import seg_main
for command in sys.argv[1].split(';'):
    print('status', seg_main.main(['seg_main', *command.split()]), flush=True)
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A training with JAX and predictions with it. Returns its folder and what was printed."""
    folder = tmp_path_factory.mktemp('jax')
    commands = [
        f'--gin_file={runs.SHAPES} --model_dir={folder} --engine=jax --strategy=mirrored:2',
        f'--gin_file={runs.SHAPES} --model_dir={folder} --engine=jax --jit=off',
        f'--gin_file={runs.SHAPES} --model_dir={folder} --engine=jax --plugins={runs.BACKBONE_PLUGIN} '
        + ' '.join(f'--gin_param={param}'.replace(' ', '') for param in PARAMS),
        f'--mode=predict --model_dir={folder}',
        '--version',
        f'--mode=eval --model_dir={folder} --engine=tensorflow',
    ]
    devices = '--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0'
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, ';'.join(commands)],
        env={
            **{name: value for name, value in os.environ.items() if name != 'KERAS_BACKEND'},
            'XLA_FLAGS': f'{devices} --xla_llvm_disable_expensive_passes=true',
            'JAX_PLATFORMS': 'cpu',
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    return folder, done.stdout, done.stderr


def test_status_and_messages(run):
    """Refused: a strategy of TensorFlow, a step without XLA, and at the end the other engine in the same process."""
    _, out, err = run
    assert [line for line in out.splitlines() if line.startswith('status')] == [
        f'status {status}' for status in (2, 2, 0, 0, 0, 2)
    ], err[-4000:]
    assert 'engine: jax' in out and 'jaxlib: ' in out
    told = [line for line in err.splitlines() if line.startswith('seg_main: ')]
    for line, words in zip(told, ('--strategy=mirrored:2', '--jit=off', '--engine=tensorflow'), strict=True):
        assert words in line


def test_records(run):
    folder, _, _ = run
    about, results = (json.loads((folder / name).read_text()) for name in ('run.json', 'results.json'))
    assert (about['engine'], about['replicas'], about['versions']['engine']) == ('jax', 2, 'jax')
    assert results['step'] == 4 and results['examples'] == 6
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    train = [line for line in lines if line['kind'] == 'train']
    assert [line['step'] for line in train] == [2, 4] and all(0 <= line['data_wait'] <= 1 for line in train)
    assert len(list((folder / 'predictions' / 'val').rglob('*.png'))) >= 6


def test_tensorflow_evaluates_it(run):
    folder, _, _ = run
    found = modes.run(model_dir=str(folder), mode='eval')['metrics']
    results = json.loads((folder / 'results.json').read_text())['metrics']
    assert found['loss'] == pytest.approx(results['loss'], rel=1e-4)
    assert found['miou'] == pytest.approx(results['miou'], abs=1e-2)
