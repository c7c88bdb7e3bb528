"""`--validate --topology`: what is refused, the search for the largest batch, and one real compilation."""

import importlib.util
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from seg import engine, modes
from seg.engine.jax import topology
from seg.engine.jax.step_cost import Compiled
from seg.errors import UserError
from tests.executor import runs


@pytest.mark.parametrize(
    ('flags', 'named'),
    [
        ({'topology': 'v3-9'}, '--topology=v3-9'),
        ({'topology': 'v3-8', 'engine': 'tensorflow'}, '--engine=tensorflow'),
        ({'topology': 'v3-8'}, "--topology=v3-8 requests .*Keras runs on 'tensorflow'"),  # In this process.
    ],
)
def test_refused_before_a_framework_is_loaded(flags, named):
    for ask in (engine.set_up, lambda **flags: engine.start(flags.get('engine', 'auto'), flags['topology'])):
        with pytest.raises(UserError, match=named):
            ask(**flags)


@pytest.mark.parametrize(
    ('strategy', 'jit', 'named'), [('one', 'auto', '--strategy=one'), ('auto', 'off', '--jit=off')]
)
def test_flags_that_it_excludes(strategy, jit, named):
    with pytest.raises(UserError, match=f'{named}: with --topology=v3-8 expected auto'):
        topology.set_up('v3-8', strategy, 'auto', jit)


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'--topology=v5e-8 needs libtpu.*\[tpu\]'):
        topology.set_up('v5e-8', 'auto', 'auto', 'auto')


def test_without_validate_and_in_other_modes():
    with pytest.raises(UserError, match='--topology=v3-8 .*--validate'):
        modes.run([runs.SHAPES], topology='v3-8')
    with pytest.raises(UserError, match='--coordinator=a:1: '):
        modes.check_flags(modes.find('train'), {'topology': 'v3-8', 'validate': True, 'coordinator': 'a:1'})
    with pytest.raises(UserError, match='--topology=v3-8 is for --mode=train_and_eval or train; .*--mode=eval'):
        modes.validate([runs.SHAPES], mode='eval', topology='v3-8')


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason="pip install -e '.[tpu]' installs libtpu")
def test_a_slice_of_several_hosts_has_one_process_here():
    program = (
        "import os; os.environ['JAX_PLATFORMS'] = 'cpu'\n"
        'from seg import engine\n'
        "made = engine.set_up(engine='jax', topology='v3-32')\n"
        'print(made.num_devices, made.devices.processes, *made.process, made.agree(True), made.agree(False))'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ['32', '4', '0', '1', 'True', 'False'], done.stderr[-3000:]


@pytest.mark.parametrize('fitting', [0, 1, 2, 5, 14, 15])
@pytest.mark.parametrize('saved', [0, 1.5])
def test_the_largest_batch(fitting, saved):
    """Memory is 1 GiB and 2 for each image; of nearly full memory XLA saves some."""
    limit, tried = 1 + 2 * fitting + 0.5, []

    def compiled(images):
        tried.append(images)
        return Compiled(1 + 2 * images, None if images <= fitting else limit)

    found, program = topology.largest(compiled, 16, Compiled(33 - saved, limit), 1)
    assert found == fitting and (program.memory == 1 + 2 * fitting if fitting else program is None)
    assert len(set(tried)) == len(tried) <= 4


def test_the_key_of_a_step_is_without_its_constants():
    def text(rate, limit=2.5):
        return topology.without_constants(jax.jit(lambda x: jnp.minimum(x, limit) * rate).lower(1.0).as_text())

    assert text(0.1) == text(0.02) == text(-3e-5) == text(1e30, 5e-8)
    assert len({text(0.1), text(0.0), text(1.0), text(0.1, math.inf)}) == 4


# Two commands in one process: the second one finds the program in the cache.
PROGRAM = """
import sys
from seg import seg_main
for _ in range(2):
    print('status', seg_main.main(['seg_main', *sys.argv[1:]]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason="needs libtpu: pip install -e '.[tpu]'")
def test_a_step_is_compiled(tmp_path):
    settings = ('BATCH_SIZE=8', 'CROP=(33, 33)', *runs.SMALL_PARTS[runs.SHAPES], 'backbones.resnet18.width=0.125')
    done = subprocess.run(
        [
            *(sys.executable, '-c', PROGRAM, f'--gin_file={runs.SHAPES}', '--validate', '--topology=v5e-8'),
            *('--mode=train', *(f'--gin_param={setting}' for setting in settings), f'--model_dir={tmp_path / "run"}'),
        ],
        env={
            **{name: value for name, value in os.environ.items() if name != 'KERAS_BACKEND'},
            'XDG_CACHE_HOME': str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    first, last, status, *again = done.stdout.splitlines()
    assert status == 'status 0' and again == [first, last, status], done.stdout + done.stderr
    assert first.startswith('training step, batch 8 = 8 x 1: memory 0.') and ' of 16 GiB, ' in first
    assert 'all-reduce' in first and 'all-gather' not in first
    assert last == 'Compiled for v5e-8, bfloat16: shapes/train, 8 classes; nothing was run.'
    assert len(list((tmp_path / 'seg' / 'topologies').iterdir())) == 1 and not (tmp_path / 'run').exists()
    told = [line for line in done.stderr.splitlines() if 'the training step' not in line]
    assert not told, told
