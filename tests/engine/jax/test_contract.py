"""Tests of the executor and of the step, which name no engine, on JAX: in a process whose Keras runs on it."""

import os
import subprocess
import sys

# One of each kind, as each test compiles its own step.
STEP = (
    'test_formulas and ((momentum and l2) or (adamw and constant)) or test_shares or test_names or without_any_image '
    'or averages_change_places or (velocity_with and True and 2)'
)
EXECUTOR = (
    'test_files or test_metrics_log or test_results or uses_averages or test_predictor or test_tensorboard '
    'or as_if_nothing_had_happened or not_finite or count_nowhere or of_another_model or a_signal_saves_first'
)


def test_on_jax():
    """In one process, which imports once."""
    chosen = f'(test_train_step and ({STEP})) or (test_executor and ({EXECUTOR}))'
    files = ('tests/engine/test_train_step.py', 'tests/executor/test_executor.py')
    command = [sys.executable, '-m', 'pytest', '-q', '-n', '0', '-p', 'tests.engine.jax.float64', *files, '-k', chosen]
    environment = {**os.environ, 'PYTHONPATH': os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:]
