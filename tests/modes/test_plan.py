"""`--mode=plan`: rows of the shipped recipes from given steps, refusals, JSON and report; one plan of real steps."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from seg import modes
from seg.errors import UserError
from seg.modes import plan, plan_steps
from seg.modes.plan_steps import Known, Step
from seg.planner import tables
from seg.planner.estimate import Facts, Measured
from tests.executor import runs

started = plan.in_a_process  # Before the tests replace it.
ROOT = pathlib.Path(__file__).resolve().parents[2]
COCO = 'gin/maskrcnn_coco.gin'
KNOWN = Known(Facts(batch=8, steps=100, rate=0.1, exchanged=1e6, input_seconds=1e-4), 'TRAIN_STEPS = 100\n', ('Z80', 2))


def step(images=2, **changes):
    made = Step(images, 1e12 * images, 20e9 * images, 0.5 + images, None, 0, 0.5, True)
    return made._replace(**changes)


@pytest.fixture(name='asked')
def _asked(monkeypatch):
    """What was asked of the processes; their answers are given here."""
    asked = []

    def in_a_process(function, settings, *arguments):
        asked.append((function.__name__, *arguments))
        if function is plan_steps.known:
            return KNOWN
        if function is plan_steps.compiled:
            return step(arguments[2])
        if function is plan_steps.measured:
            return Measured(0.5, 1.5, 24.0, ''), 'float32'
        return step()

    monkeypatch.setattr(plan, 'in_a_process', in_a_process)
    monkeypatch.setattr(plan.importlib.util, 'find_spec', lambda name: name)  # As if libtpu was installed.
    return asked


def planned(hardware, gin_file=runs.SHAPES, **flags):
    return modes.run([gin_file], mode='plan', hardware=hardware, **flags)


def test_a_row_for_each_hardware(asked, tmp_path):
    found = planned('v3-8,h100-2,cpu', output=str(tmp_path / 'made' / 'plan.json'))
    assert [row['hardware'] for row in found['rows']] == ['v3-8', 'h100-2', 'cpu']
    assert [row['known_by'] for row in found['rows']] == ['compiled', 'roofline', 'measured']
    assert json.loads((tmp_path / 'made' / 'plan.json').read_text()) == found
    assert found['rows'][2]['step_seconds'] == 0.5 and found['rows'][2]['images_per_second'] == 16
    assert asked == [('known',), ('compiled', 'v3-8', 8, 1), ('on_the_cpu',), ('measured',)]


def test_a_row_once_for_several_spellings(asked):
    assert [row['hardware'] for row in planned('h100,v5e-4,h100-1,v5litepod-4')['rows']] == ['h100-1', 'v5e-4']


@pytest.mark.parametrize('flag', ['output', 'model_dir'])
def test_an_output_that_cannot_be_written(asked, tmp_path, flag):
    """It is told before anything is compiled."""
    (tmp_path / 'file').write_text('')
    for path in ('file/deep/plan.json', *(['.'] if flag == 'output' else [])):
        with pytest.raises(UserError, match=f'--{flag}: .*{tmp_path}'):
            planned('h100-1', **{flag: str(tmp_path / path)})
    assert asked == []


def test_slices_of_a_kind_share_a_compilation(asked):
    rows = planned('v5e-8,v5e-4,v5p-16')['rows']
    assert [row['per_device'] for row in rows] == [1, 2, 1]
    assert asked[1:] == [
        ('compiled', 'v5e-4', 4, 1), ('compiled', 'v5e-4', 4, 2), ('compiled', 'v5p-8', 4, 1),
    ]  # fmt: skip
    planned('v3-8,v3-8')
    assert asked[4:] == [('known',), ('compiled', 'v3-8', 8, 1)]


def test_without_libtpu(asked, monkeypatch):
    monkeypatch.setattr(plan.importlib.util, 'find_spec', lambda name: None)
    (row,) = planned('v3-8')['rows']
    assert row['known_by'] == 'roofline' and "'.[tpu]'" in row['message']


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_compiler_that_is_killed(asked, monkeypatch):
    """Its row is a roofline, as without the compiler, and the other rows are made."""
    answer = plan.in_a_process

    def in_a_process(function, *arguments):
        return started(killed) if function is plan_steps.compiled else answer(function, *arguments)

    monkeypatch.setattr(plan, 'in_a_process', in_a_process)
    v4, cpu = planned('v4-8,cpu')['rows']
    assert v4['known_by'] == 'roofline' and 'memory' in v4['message']
    assert cpu['known_by'] == 'measured'


def test_a_process_that_is_killed():
    with pytest.raises(UserError, match='memory'):
        started(killed)


def test_a_step_that_does_not_fit_a_tpu(asked, monkeypatch):
    monkeypatch.setattr(plan, 'in_a_process', lambda function, *arguments: (
        KNOWN if function is plan_steps.known else step(4, memory=20.0, limit=15.48, largest=3)
    ))  # fmt: skip
    (row,) = planned('v3-8')['rows']
    assert row['hours'] is None and row['memory_available_gib'] == 15.48 and '24 = 8 x 3' in row['message']


def test_a_step_that_does_not_fit_a_gpu(asked):
    """Memory is 0.5 GiB and, in bfloat16, half a GiB for each image of the program for the CPU."""
    figures = plan.roofline(tables.hardware('v100-1'), 64, step(), 'float32', '')
    usable = 16 * tables.calibration()['gpu'].usable_memory
    assert figures.memory == pytest.approx(0.5 + 64) and figures.largest == int(usable - 0.5)
    assert plan.roofline(tables.hardware('h100-1'), 64, step(), 'bfloat16', '').largest is None


def test_a_batch_that_does_not_divide(asked):
    (row,) = planned('v3-32')['rows']
    assert row['step_seconds'] is None and '32' in row['message'] and asked == [('known',)]


@pytest.mark.parametrize(
    ('flags', 'named'),
    [
        ({'hardware': ''}, '--hardware'),
        ({'hardware': 'v3-9'}, '--hardware=v3-9'),
        ({'hardware': 'cpu', 'prices': 'no.json'}, '--prices=no.json'),
    ],
)
def test_refused_before_any_process(asked, flags, named):
    with pytest.raises(UserError, match=named):
        modes.run([runs.SHAPES], mode='plan', **flags)
    assert not asked


def test_it_builds_nothing_here(asked):
    with pytest.raises(UserError, match='--mode=plan'):
        modes.build([runs.SHAPES], mode='plan', hardware='cpu')


def test_flags_that_it_does_not_take():
    with pytest.raises(UserError, match='--strategy=one is for .*--mode=plan'):
        modes.check_flags(modes.find('plan'), {'strategy': 'one'})
    with pytest.raises(UserError, match='--hardware=v3-8 is for --mode=plan'):
        modes.check_flags(modes.find('train'), {'hardware': ['v3-8']})


def test_a_record_of_the_same_configuration_counts_as_measured(asked, tmp_path):
    versions = {'devices': ['NVIDIA H100 80GB HBM3']}
    (tmp_path / 'config.gin').write_text(KNOWN.config)
    (tmp_path / 'run.json').write_text(json.dumps({'replicas': 1, 'global_batch': 8, 'versions': versions}))
    (tmp_path / 'results.json').write_text(json.dumps({'step': 1, 'metrics': {}, 'train_images_per_second': 32.0}))
    rows = planned('h100-1,h100-8', model_dir=str(tmp_path))['rows']
    assert [row['known_by'] for row in rows] == ['measured', 'roofline'] and rows[0]['step_seconds'] == 0.25
    assert len(json.loads((tmp_path / 'plan.json').read_text())['rows']) == 2


FRAGMENTS = sorted(
    path.relative_to(ROOT).as_posix() for kind in ('hardware', 'schedules') for path in ROOT.glob(f'gin/{kind}/*.gin')
)
SMALL = (
    *runs.SMALL_PARTS[runs.INSTANCES], runs.BACKBONE, 'CROP=(64, 64)', 'tasks.instance.max_objects=4',
    'tasks.instance.mask_size=14', 'init.weights=None',
)  # fmt: skip
# Batch, steps and learning rate of the published presets: the Cloud TPU models (tensorflow/tpu,
# models/official/mask_rcnn/configs/cloud).
PRESETS = {
    'v2-8': (32, 45_000, 0.04), 'v3-8': (64, 22_500, 0.08), 'v2-32': (128, 11_250, 0.16), 'v3-32': (128, 11_250, 0.16),
    'v2-128': (512, 11_250, 0.24), 'v3-128': (512, 11_250, 0.24),
}  # fmt: skip


@pytest.mark.parametrize('fragment', FRAGMENTS)
def test_fragments_are_planned(fragment, monkeypatch):
    """Built with a small network, without data; the steps are given."""
    monkeypatch.setattr(plan_steps, '_input_seconds', lambda source: 1e-3)
    name = pathlib.Path(fragment).stem
    hardware = name if fragment.startswith('gin/hardware') else 'v3-8'

    def in_a_process(function, settings, *arguments):
        if function is plan_steps.known:
            return plan_steps.known(settings)
        return step(arguments[2]) if function is plan_steps.compiled else step()

    monkeypatch.setattr(plan, 'in_a_process', in_a_process)
    found = modes.run([COCO, fragment], mode='plan', hardware=hardware, gin_params=SMALL, precision='float32')
    (row,) = found['rows']
    assert row['hours'] > 0 and row['usd'] > 0 and row['per_device'] >= 4 and not row['message'].startswith('batch')
    epochs = row['batch'] * found['train_steps'] / 117_266  # Images of train2017 with annotations of objects.
    expected = {'coco_24': 24, 'coco_48': 48, 'v2-128': 48, 'v3-128': 48}.get(name, 12)
    assert epochs == pytest.approx(expected, rel=0.03)
    if name in PRESETS:
        assert (row['batch'], found['train_steps'], row['learning_rate']) == pytest.approx(PRESETS[name])


def test_every_hardware_fragment_names_hardware():
    for path in (ROOT / 'gin' / 'hardware').glob('*.gin'):
        assert tables.hardware(path.stem).name == path.stem


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason="needs JAX: pip install -e '.[jax]'")
def test_a_plan_of_real_steps(tmp_path):
    params = ('BATCH_SIZE=8', 'CROP=(33, 33)', *runs.SMALL_PARTS[runs.SHAPES], 'backbones.resnet18.width=0.125')
    output = tmp_path / 'plan.json'
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'seg.seg_main', '--mode=plan', f'--gin_file={runs.SHAPES}', f'--output={output}'),
            *('--hardware=v5e-4,h100-1,cpu', *(f'--gin_param={param}' for param in params)),
        ],
        env={name: value for name, value in os.environ.items() if name != 'KERAS_BACKEND'},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tpu, gpu, cpu = json.loads(output.read_text())['rows']
    compiled = importlib.util.find_spec('libtpu') is not None
    assert (tpu['known_by'], gpu['known_by'], cpu['known_by']) == (
        'compiled' if compiled else 'roofline', 'roofline', 'measured',
    )  # fmt: skip
    for row in (tpu, gpu, cpu):
        assert row['hours'] > 0 and row['memory_gib'] > 0
    assert 'v5e-4' in done.stdout and 'Prices' in done.stdout
