"""Fixtures for all tests."""

import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # TensorFlow reads it once, at its first import.

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _clean_config():
    """Gives every test an empty, unlocked configuration, and leaves one behind."""
    from seg import config

    config.clear()
    yield
    config.clear()


@pytest.fixture(autouse=True)
def _float32_afterwards():
    """Takes back the precision that a test has set: it is global in Keras."""
    yield
    if 'keras' in sys.modules:
        from seg.executor import hardware

        hardware.set_precision('float32')
