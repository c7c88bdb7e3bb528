"""Signals while TensorFlow runs a long loop, in which Python calls no signal handler."""

import signal
import subprocess
import sys
import time

import pytest

# As the command line does it: a training that listens to signals for the whole process.
TRAINING = """
import sys
from seg.engine.precision import set_precision
from seg.executor import stopping
from seg.executor.timed_loop import TimedLoop
from tests.executor.linear import Table, executor, training_input

set_precision('float64')
with stopping.listening(command=True) as signals:
    name = sys.argv[2]
    begin = getattr(signals, name)
    setattr(signals, name, lambda: (begin(), print('steps begin', flush=True)))
    if name == 'begin_first_step':
        TimedLoop.__call__ = lambda self, steps: self._loop(steps)  # A first step that takes long.
    periods = ('train_steps', 'iterations_per_loop', 'save_checkpoints_steps', 'eval_every')
    executor(sys.argv[1], **dict.fromkeys(periods, 100_000)).train(training_input(Table()))
"""


def test_the_second_interrupt_leaves_a_long_loop_at_once(tmp_path):
    command = [sys.executable, '-c', TRAINING, str(tmp_path), 'save_first']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == 'steps begin\n', process.stderr.read()
            time.sleep(0.5)  # The graph is compiled, and the steps run.
            process.send_signal(signal.SIGINT)
            while 'Asked to stop' not in (line := process.stderr.readline()):
                assert line, 'it ended without an answer'
            assert 'Ctrl-C' in line
            time.sleep(0.5)
            assert process.poll() is None, 'the current steps continue'
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130 and time.monotonic() - start < 15
            told = process.stderr.read()
        finally:
            process.kill()
    assert told.startswith('seg_main: Interrupted again. Nothing was saved') and len(told.splitlines()) == 1
    assert not list(tmp_path.glob('ckpt-*'))


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_first_signal_ends_a_long_first_step(tmp_path, number, status):
    command = [sys.executable, '-c', TRAINING, str(tmp_path), 'begin_first_step']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == 'steps begin\n', process.stderr.read()
            time.sleep(0.5)  # The steps run.
            process.send_signal(number)
            assert process.wait(15) == status
            told = process.stderr.read()
        finally:
            process.kill()
    assert 'Nothing was saved' in told and not list(tmp_path.glob('ckpt-*'))
