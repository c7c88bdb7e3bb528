"""Fixtures for all tests."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # TensorFlow reads it once, at its first import.

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _clean_config():
    """Gives every test an empty, unlocked configuration, and leaves one behind."""
    from seg import config

    config.clear()
    yield
    config.clear()
