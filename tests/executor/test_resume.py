"""A killed run resumes with the same command and ends with the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from seg import modes
from seg.errors import UserError
from seg.executor.checkpoints import Checkpoints
from seg.run.folder import RunFolder
from seg.run.lock import locked
from tests.executor import runs

SETTINGS = (
    *runs.SMALL,
    *runs.SMALL_PARTS[runs.SHAPES],
    runs.BACKBONE,
    'TRAIN_STEPS=10',
    'BATCH_SIZE=2',
    'RunConfig.iterations_per_loop=1',
    'RunConfig.keep_checkpoint_max=9',
    'RunConfig.num_pictures=1',
)
GIN_FILE = 'gin/deeplab_shapes.gin'
# The command line, killed as soon as the fifth step is on disk.
KILLED = """
import os, signal, sys
from seg import seg_main
from seg.run.metrics_log import MetricsLog

add = MetricsLog.add

def adding(self, kind, step, values):
    add(self, kind, step, values)
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

MetricsLog.add = adding
seg_main.main(sys.argv)
"""


def start(model_dir, *program) -> subprocess.Popen:
    command = [sys.executable, *(program or ('-m', 'seg.seg_main'))]
    command += [
        f'--gin_file={GIN_FILE}',
        f'--plugins={runs.BACKBONE_PLUGIN}',
        f'--model_dir={model_dir}',
        '--deterministic',
        '--strategy=one',
        '--precision=float32',
        *(f'--gin_param={setting}' for setting in SETTINGS),
    ]
    with open(f'{model_dir}.log', 'a') as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def finish(process: subprocess.Popen, model_dir) -> None:
    status = process.wait(timeout=300)
    with open(f'{model_dir}.log') as log:
        assert status == 0, log.read()[-4000:]


def lines(model_dir):
    path = os.path.join(model_dir, 'metrics.jsonl')
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as file:
        return [json.loads(line) for line in file if line.endswith('\n')]


@pytest.fixture(scope='module')
def two_runs(tmp_path_factory):
    """A run in one piece, and one that was killed between two checkpoints and started again."""
    folder = tmp_path_factory.mktemp('resume')
    whole, killed = str(folder / 'whole'), str(folder / 'killed')
    finish(start(whole), whole)
    assert start(killed, '-c', KILLED).wait(timeout=300) == -signal.SIGKILL, open(f'{killed}.log').read()[-4000:]
    reached = lines(killed)[-1]['step']
    assert 4 < reached < 10 and Checkpoints(RunFolder(killed), 9).steps()[0] == 4, 'killed at the wrong time'
    assert not os.path.exists(os.path.join(killed, 'results.json'))
    finish(start(killed), killed)
    return whole, killed


def test_weights_are_bit_equal(two_runs):
    whole, killed = (Checkpoints(RunFolder(folder), 9) for folder in two_runs)
    assert whole.steps() == killed.steps() == [4, 8, 10]
    one, other = whole.find('latest').tensors, killed.find('latest').tensors
    assert one.keys() == other.keys()
    assert {name.split('/')[0] for name in one} == {'model', 'ema', 'optimizer'}
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, name)
    early = whole.read(whole.path(4)).tensors
    assert any(not np.array_equal(one[name], early[name]) for name in one if name.endswith('kernel'))


def test_best_is_the_same(two_runs):
    one, other = (Checkpoints(RunFolder(folder), 9).find('best') for folder in two_runs)
    assert one.step == other.step
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(other.tensors[name], value, name)
    for folder in two_runs:
        assert sorted(os.listdir(os.path.join(folder, 'best'))) == [f'ckpt-{one.step:08d}.safetensors', 'metrics.json']


def test_metrics_are_the_same(two_runs):
    one, other = map(lines, two_runs)
    assert [(line['kind'], line['step']) for line in one] == [(line['kind'], line['step']) for line in other]
    assert [line['step'] for line in one if line['kind'] == 'train'] == list(range(1, 11))
    assert [line['step'] for line in one if line['kind'] == 'eval'] == [4, 8, 10]
    for line, twin in zip(one, other, strict=True):
        for name, value in line.items():
            if name.startswith(('loss', 'miou', 'iou/', 'gradient_norm', 'learning_rate', 'pixel', 'examples')):
                assert twin[name] == value, (line['kind'], line['step'], name)


def test_results_are_the_same(two_runs):
    results = []
    for folder in two_runs:
        with open(os.path.join(folder, 'results.json'), encoding='utf-8') as file:
            results.append(json.load(file))
    one, other = results
    for name in ('step', 'metrics', 'examples', 'weights'):
        assert one[name] == other[name], name
    assert one['best']['step'] == other['best']['step'] and one['best']['miou'] == other['best']['miou']
    assert other['train_seconds'] > 0


def run(model_dir, *params, **options):
    plugins = [runs.BACKBONE_PLUGIN]
    return modes.run([GIN_FILE], model_dir=model_dir, plugin_specs=plugins, gin_params=[*SETTINGS, *params], **options)


def times(folder):
    return {name: os.path.getmtime(os.path.join(folder, name)) for name in os.listdir(folder) if name != '.lock'}


def test_other_training_settings_are_refused_with_the_difference(two_runs):
    _, folder = two_runs
    before = times(folder)
    with pytest.raises(UserError) as info:
        run(folder, 'OptimizerStep.l2=0.125')
    message = str(info.value)
    assert 'OptimizerStep.l2' in message and '0.125' in message
    assert 'batch_size' not in message, 'only what differs'
    assert folder in message and '--fresh' in message
    assert before == times(folder), 'nothing was written'


def test_evaluation_settings_may_change(two_runs):
    """The run is complete: nothing is trained, its results are returned."""
    _, folder = two_runs
    results = run(folder, 'RunConfig.eval_batch_size=3', 'RunConfig.eval_every=6', 'tasks.semantic.eval_flip=True')
    assert results['step'] == 10 and [line['step'] for line in lines(folder) if line['kind'] == 'eval'] == [4, 8, 10]


def test_fresh_starts_over(two_runs, tmp_path):
    """With other settings, which would be refused without it; files that a run does not write stay."""
    folder = str(tmp_path / 'run')
    shutil.copytree(two_runs[0], folder)
    (tmp_path / 'run' / 'notes.txt').write_text('mine')
    results = run(folder, 'TRAIN_STEPS=1', 'OptimizerStep.l2=0.125', fresh=True)
    assert results['step'] == 1 and [line['step'] for line in lines(folder)] == [1, 1]
    assert Checkpoints(RunFolder(folder), 9).steps() == [1] and (tmp_path / 'run' / 'notes.txt').read_text() == 'mine'
    with open(os.path.join(folder, 'config.gin'), encoding='utf-8') as file:
        assert '0.125' in file.read()


def test_one_process_at_a_time(tmp_path):
    """The lock is another process' while that lives, and free afterwards, however it ended."""
    folder = str(tmp_path / 'run')
    holder = (
        'import sys; from seg.run.folder import RunFolder; from seg.run.lock import locked\n'
        'with locked(RunFolder(sys.argv[1])): print(1, flush=True); input()'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', holder, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {'PYTHONPATH': os.getcwd()},
    )
    try:
        assert process.stdout.readline() == b'1\n'
        with pytest.raises(UserError, match=f'process {process.pid} is training there'):
            run(folder)
        assert os.listdir(folder) == ['.lock']
    finally:
        process.kill()
        process.wait()
    with locked(RunFolder(folder)), pytest.raises(UserError, match=f'process {os.getpid()} is training'):
        with locked(RunFolder(folder)):
            pass


def test_clear_removes_only_what_a_run_writes(tmp_path):
    for name in ('ckpt-00000004.safetensors', 'metrics.jsonl', 'config.gin', 'notes.txt', 'mine.gin'):
        (tmp_path / name).write_text('x')
    (tmp_path / 'best').mkdir()
    (tmp_path / 'best' / 'ckpt-00000004.safetensors').write_text('x')
    RunFolder(str(tmp_path)).clear()
    assert sorted(os.listdir(tmp_path)) == ['mine.gin', 'notes.txt']
