"""Whether this machine has a TPU. Loads no framework."""

from __future__ import annotations

import glob
import importlib.util
import os

from absl import logging

_BUS = '/sys/bus/pci/devices'
_GOOGLE = '0x1ae0'
# v2 and v3, a version without a public name, v4, v5p, v5e, v6e, 7x.
_TPUS = {'0x0027', '0x0056', '0x005e', '0x0062', '0x0063', '0x006f', '0x0076'}


def is_usable() -> bool:
    """Whether JAX can use a TPU here. Logs a warning if there is one, but not JAX's package for it."""
    platforms = os.environ.get('JAX_PLATFORMS')
    if not any(map(_is_tpu, glob.glob(os.path.join(_BUS, '*')))) or (platforms and 'tpu' not in platforms.split(',')):
        return False
    missing = [name for name in ('jax', 'libtpu') if importlib.util.find_spec(name) is None]
    if missing:
        logging.warning(
            "This machine has a TPU, but no %s, so TensorFlow uses the CPU. pip install -e '.[tpu]' installs what "
            'the engine jax needs.',
            ' and '.join(missing),
        )
    return not missing


def _is_tpu(device: str) -> bool:
    return _read(os.path.join(device, 'vendor')) == _GOOGLE and _read(os.path.join(device, 'device')) in _TPUS


def _read(path: str) -> str:
    try:
        with open(path, encoding='utf-8') as file:
            return file.read().strip()
    except OSError:
        return ''
