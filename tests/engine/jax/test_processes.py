"""A run of two processes with two devices each: one is asked to stop, one is killed, and one process resumes alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from seg import engine, modes
from seg.errors import UserError
from tests.engine.jax.both import unused_port

SETTINGS = (
    'BACKBONE=@backbones.tiny',
    'backbones.tiny.channels=4',
    'decoders.deeplab_v3plus.aspp_channels=8',
    'decoders.deeplab_v3plus.decoder_channels=8',
    'decoders.deeplab_v3plus.low_level_channels=4',
    'CROP=(64,64)',
    'BATCH_SIZE=4',
    'TRAIN_STEPS=24',
    'datasets.shapes.num_examples=6',
    'datasets.shapes.min_object_size=12',
    'RunConfig.iterations_per_loop=2',
    'RunConfig.save_checkpoints_steps=4',
    'RunConfig.eval_every=8',
    'RunConfig.eval_batch_size=4',
    'RunConfig.num_pictures=1',
)
PLUGIN = '--plugins=experiments/tiny_backbone/plugin.py'
WITHIN = 60  # Seconds until all processes have ended that lost one.


class Processes:
    """Processes that share a run."""

    def __init__(self, folder, count, *flags):
        self.folder, port = folder, unused_port()
        devices = f'--xla_force_host_platform_device_count={4 // count} --xla_backend_optimization_level=0'
        environment = {
            **{name: value for name, value in os.environ.items() if name != 'KERAS_BACKEND'},
            'XLA_FLAGS': f'{devices} --xla_llvm_disable_expensive_passes=true',
            'JAX_PLATFORMS': 'cpu',
            'JAX_COMPILATION_CACHE_DIR': str(folder.parent / 'compiled'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        command = [sys.executable, '-m', 'seg.seg_main', f'--model_dir={folder}', PLUGIN, *flags]
        self.running = [
            subprocess.Popen(
                [*command, f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}', f'--process_id={i}'],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(count)
        ]

    def wait_for_step(self, step):
        """Waits until a step is in metrics.jsonl."""
        end = time.monotonic() + 400
        while step > max((line['step'] for line in lines(self.folder, 'train')), default=0):
            assert time.monotonic() < end and self.running[0].poll() is None, self.end()
            time.sleep(0.05)

    def end(self, timeout=400):
        """Statuses and what was printed to standard error."""
        told = [process.communicate(timeout=timeout)[1] for process in self.running]
        return [process.returncode for process in self.running], told


def lines(folder, kind):
    path = folder / 'metrics.jsonl'
    text = path.read_text() if path.exists() else ''
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]
    return [line for line in found if line['kind'] == kind]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The last output of the processes, and the folder of the run."""
    folder = tmp_path_factory.mktemp('processes') / 'run'
    training = ['--gin_file=gin/deeplab_shapes.gin', *(f'--gin_param={setting}' for setting in SETTINGS)]
    found = {}

    processes = Processes(folder, 2, *training, '--engine=jax')
    processes.wait_for_step(2)
    processes.running[1].send_signal(signal.SIGTERM)
    found['stopped'] = processes.end()
    found['about'], found['step'] = json.loads((folder / 'run.json').read_text()), lines(folder, 'train')[-1]['step']

    processes = Processes(folder, 2, *training)
    processes.wait_for_step(10)
    processes.running[1].send_signal(signal.SIGKILL)
    found['killed'] = processes.end(WITHIN)

    found['alone'] = Processes(folder, 1, *training).end()
    return folder, found


def test_all_stop_at_one_step(run):
    _, found = run
    statuses, told = found['stopped']
    assert statuses == [0, 0], told[0][-3000:]
    assert 2 <= found['step'] < 24
    assert all(f'Step {found["step"]} is saved' in text.splitlines()[-1] for text in told)
    assert (found['about']['processes'], found['about']['replicas']) == (2, 4)


def test_a_lost_process_ends_the_others(run):
    _, found = run
    statuses, told = found['killed']
    assert f'Continuing from step {found["step"]}' in told[0]
    # JAX's own service may see the loss before a step does.
    ours = 75, 'seg_main: Another process of this run has ended'
    first_seen_by_jax = -signal.SIGABRT, 'Terminating process because the JAX distributed service detected fatal errors'
    assert any(
        statuses == [status, -signal.SIGKILL] and text in told[0] for status, text in (ours, first_seen_by_jax)
    ), f'{statuses} {told[0][-3000:]}'


def test_another_number_of_processes_resumes(run):
    folder, found = run
    statuses, told = found['alone']
    assert statuses == [0] and 'Continuing from step 8' in told[0], told[0][-3000:]
    assert [line['step'] for line in lines(folder, 'train')] == list(range(2, 26, 2))
    assert json.loads((folder / 'results.json').read_text())['examples'] == 6


def test_an_evaluation_is_that_of_one_process(run):
    """Of the step before the kill: two batches, the second with two images and padding."""
    folder, _ = run
    line = next(line for line in lines(folder, 'eval') if line['step'] == 8)
    checkpoint = str(folder / 'ckpt-00000008.safetensors')
    plugins = [PLUGIN.partition('=')[2]]
    found = modes.run(model_dir=str(folder), mode='eval', checkpoint=checkpoint, plugin_specs=plugins)
    assert line['examples'] == found['examples'] == 6
    assert line['loss'] == pytest.approx(found['metrics']['loss'], rel=1e-4)
    assert line['miou'] == pytest.approx(found['metrics']['miou'], abs=1e-3)


@pytest.mark.slow
def test_process_0_predicts(run):
    folder, _ = run
    statuses, told = Processes(folder, 2, '--mode=predict').end()
    assert statuses == [0, 0], told[0][-3000:]
    assert len(list((folder / 'predictions' / 'val').glob('*.png'))) == 6


@pytest.mark.parametrize(
    'given, words',
    [
        ({'coordinator': '10.0.0.1'}, '--num_processes and --process_id missing'),
        ({'coordinator': '10.0.0.1', 'num_processes': 2, 'process_id': 0}, '--coordinator=10.0.0.1'),
        ({'coordinator': '10.0.0.1:80', 'num_processes': 2, 'process_id': 2}, '--process_id=2'),
        ({'coordinator': '10.0.0.1:80', 'num_processes': 2, 'process_id': 1, 'engine': 'tensorflow'}, 'tensorflow'),
    ],
)
def test_messages(given, words):
    with pytest.raises(UserError, match=words):
        engine.join(**given)
