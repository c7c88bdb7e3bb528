"""Fixtures for all tests."""

import ctypes
import gc
import importlib.util
import os
import sys
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # TensorFlow reads it once, at its first import.
# XLA compiles without LLVM's optimizations, which take most of its time; numbers are the same but for rounding.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true')
# For the processes that run the tests: with an arena for each thread, the C library returns little memory.
os.environ.setdefault('MALLOC_ARENA_MAX', '2')

# Nothing is remembered from one run of the tests to the next, nor left in the user's own cache.
_CACHE = tempfile.TemporaryDirectory(prefix='seg-tests-cache-')
os.environ['XDG_CACHE_HOME'] = _CACHE.name
# Where TensorFlow's modules were installed without bytecode and Python may not write it, each process would compile
# them anew, which is half of its start. The processes of one run of the tests share it instead.
_TENSORFLOW = importlib.util.find_spec('tensorflow')
if os.environ.get('PYTHONDONTWRITEBYTECODE') and not os.path.exists(_TENSORFLOW.cached):
    os.environ |= {'PYTHONDONTWRITEBYTECODE': '', 'PYTHONPYCACHEPREFIX': os.path.join(_CACHE.name, 'bytecode')}

import pytest  # noqa: E402

import seg  # noqa: E402, F401  Before TensorFlow: it sets what TensorFlow reads at its import.
from tests.workers import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler  # noqa: E402, F401

_C = ctypes.CDLL(None)
# Files that take minutes, mostly in processes of their own. They come first: while a worker is small, and because at
# the end one of them would run alone on one core. Those that start several processes are not beside one another.
_LONG = (
    'tests/engine/tensorflow/test_equality.py',
    'tests/test_docs.py',
    'tests/engine/jax/test_processes.py',
    'tests/executor/test_resume.py',
    'tests/test_golden_losses.py',
    'tests/engine/jax/test_contract.py',
    'tests/engine/tensorflow/test_jit.py',
    'tests/tasks/test_backends.py',
    'tests/engine/jax/test_equality.py',
)


def pytest_collection_modifyitems(items) -> None:
    place = {file: number for number, file in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.nodeid.partition('::')[0], len(_LONG)))


def pytest_runtest_setup(item) -> None:
    """Skips tests with bfloat16 in their names, or the mark, where TensorFlow cannot compute in it."""
    if 'bfloat16' in item.keywords or 'bfloat16' in item.name:
        from seg.engine import precision

        if precision.onednn_fails_in_bfloat16():
            pytest.skip('TensorFlow cannot compute in bfloat16 while ONEDNN_MAX_CPU_ISA leaves out AVX-512')


@pytest.fixture(scope='session', autouse=True)
def _imported_modules_stay():
    """The collector need not look at what is imported by now, which takes longer than a short test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def _graphs_as_they_are():
    """Lets TensorFlow run graphs as they were traced: to optimize them takes longer than a few steps save.

    Processes that tests start do optimize them.
    """
    if 'tensorflow' in sys.modules:
        sys.modules['tensorflow'].config.optimizer.set_experimental_options({'disable_meta_optimizer': True})


@pytest.fixture(scope='module', autouse=True)
def _memory_is_returned():
    """Frees the models and graphs of a module, which are cycles: Python looks for old ones too rarely."""
    yield
    gc.collect()
    if hasattr(_C, 'malloc_trim'):
        _C.malloc_trim(0)


@pytest.fixture(scope='module', autouse=True)
def _seeded_module():
    """Gives what a module's fixtures draw, and the tests below, the same initial weights in every run."""
    _seed()


@pytest.fixture(autouse=True)
def _seeded():
    _seed()


def _seed():
    if 'keras' in sys.modules:
        sys.modules['keras'].utils.set_random_seed(0)


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
        from seg.engine import precision

        precision.set_precision('float32')
