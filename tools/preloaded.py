"""Starts `seg_main` in forks of a process that has imported TensorFlow, which saves about 5 s each time.

Each fork makes its own TensorFlow runtime and has its own settings and plugins, like a process started by the command
line. Forking is safe while the process has one thread; the import starts none.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['OPENBLAS_NUM_THREADS'] = '1'  # numpy's import would start threads.

import seg  # isort: skip  Before TensorFlow: turns on oneDNN.
import tensorflow as tf

import seg.experiment  # noqa: F401  The modules of a run are imported before the fork.
import seg.plugins
import seg.prediction.pipeline  # noqa: F401
import seg.report.page  # noqa: F401
from seg import seg_main

seg.plugins.load_builtins()
# Optimising the graphs takes a third of the rest of a start, and pays for long runs only.
tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})


def start(args: Sequence[str], output: str, folder: str = '.') -> int:
    """Starts `seg_main` in a fork, which leads a session of its own. Returns its process id.

    Args:
      args: its flags.
      output: file to which standard output and error are appended.
      folder: working directory.
    """
    if (threads := len(os.listdir('/proc/self/task'))) != 1:
        raise RuntimeError(f'a process of {threads} threads cannot be forked safely')
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job of a shell ignores it.
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.chdir(folder)
        sys.argv = ['seg_main', *args]
        seg_main.run()
    finally:
        os._exit(70)  # `run` does not return; no code of the parent may run in the fork.
