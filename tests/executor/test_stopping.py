"""Ctrl-C while TensorFlow runs a long loop, in which Python calls no signal handler."""

import signal
import subprocess
import sys
import time

# As the command line does it: a training that listens to signals for the whole process.
TRAINING = """
import sys
from seg.engine.precision import set_precision
from seg.executor import stopping
from tests.executor.linear import Table, executor, training_input

set_precision('float64')
with stopping.listening(command=True) as signals:
    save_first = signals.save_first
    signals.save_first = lambda: (save_first(), print('steps begin', flush=True))
    periods = ('train_steps', 'iterations_per_loop', 'save_checkpoints_steps', 'eval_every')
    executor(sys.argv[1], **dict.fromkeys(periods, 100_000)).train(training_input(Table()))
"""


def test_the_second_interrupt_leaves_a_long_loop_at_once(tmp_path):
    command = [sys.executable, '-c', TRAINING, str(tmp_path)]
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
