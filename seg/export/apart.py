"""Programs of this package in processes of their own: a runtime that crashes there ends nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import seg
from seg.errors import UserError

_PATIENCE = 3600.0  # Seconds for a process.


def run(module: str, *arguments: str) -> str:
    """Runs `python -m <module>`, with the package of this process wherever it is installed.

    Args:
      module: name of the module.
      arguments: of its command line.

    Returns:
      Its standard output.

    Raises:
      UserError: if the process fails, crashes or does not end; a sentence without its period.
    """
    place = os.path.dirname(os.path.dirname(os.path.abspath(seg.__file__)))
    paths = [place, *filter(None, [os.environ.get('PYTHONPATH')])]
    try:
        done = subprocess.run(
            [sys.executable, '-m', module, *arguments],
            env=os.environ | {'PYTHONPATH': os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f'its runtime gave no result within {_PATIENCE:g} s') from None
    if done.returncode < 0:
        raise UserError(f'its runtime crashed ({signal.Signals(-done.returncode).name})')
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        raise UserError(f'its runtime failed: {lines[-1].rstrip(".")}')
    return done.stdout
