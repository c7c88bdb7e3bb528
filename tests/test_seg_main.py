"""The command line: one readable message for every mistake, help, lists, and only our lines on stderr."""

import errno
import importlib
import json
import os
import pathlib
import pty
import re
import subprocess
import sys
import tempfile
import time

import pytest

from seg import engine, gin_statements, log_level, modes, registry, seg_main
from seg.backbones.bridge import names
from seg.errors import UnsavedError, UserError
from seg.executor.progress import Progress
from tests.executor import runs
from tests.report import made

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHAPES = '--gin_file=gin/deeplab_shapes.gin'
VOC = '--gin_file=gin/deeplab_voc.gin'
CAMVID = '--gin_file=gin/deeplab_camvid.gin'
LOG_LINE = re.compile(r'\d\d:\d\d:\d\d ')


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Runs the command line in this process and in an empty directory: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        status = seg_main.main(['seg_main', *args])
        return status, *capsys.readouterr()

    return run


def refused(outcome):
    """The message of a user's mistake: status 2, and nothing but log lines and one message on stderr."""
    status, out, err = outcome
    assert status == 2 and out == '' and 'Traceback' not in err, (status, out, err)
    head, _, message = err.partition('seg_main: ')
    assert all(LOG_LINE.match(line) for line in head.splitlines()), head
    assert 'seg_main: ' not in message and 'bug of seg' not in message
    return message


# Arguments, and what the message has to hold: place, value, near miss or choices, next step. {tmp} is the working
# directory of the call.
MISTAKES = {
    'unknown flag': (['--gin_fil=x'], ['gin_fil', 'Did you mean: gin_file', '--help']),
    'flag without value': (['--mode'], ['mode', '--help']),
    'unknown mode': ([SHAPES, '--mode=trian'], ['--mode=trian', 'train_and_eval', 'predict', 'Did you mean train?']),
    'unknown mode, validate': ([SHAPES, '--mode=evall', '--validate'], ['--mode=evall', 'Did you mean eval?']),
    'unknown mode, near report': ([SHAPES, '--mode=reprot'], ['--mode=reprot', 'Did you mean report?']),
    'report without a run': (['--mode=report', '--model_dir=empty'], ['--model_dir=empty', 'no run was made there']),
    'report without model_dir': (['--mode=report'], ['--mode=report', '--model_dir', 'runs/deeplab_shapes']),
    'report of a folder that is not there': (['--mode=report', '--model_dir=nowhere'], ['nowhere', 'no such folder']),
    'report with settings': (
        ['--mode=report', '--model_dir=damaged', SHAPES],
        [SHAPES, '--mode=report', 'train_and_eval', 'Leave it out'],
    ),
    'report, validated': (['--mode=report', '--model_dir=damaged', '--validate'], ['--validate', '--mode=report']),
    'report on devices': (['--mode=report', '--strategy=one'], ['--strategy=one', '--mode=report', 'predict']),
    'output of a training': (
        [SHAPES, '--output=there'],
        ['--output=there', 'convert, export, plan, predict, report or show_data', 'train_and_eval'],
    ),
    'input of an evaluation': (
        ['--mode=eval', '--input=a.png,b'],
        ['--input=a.png,b', '--mode=check_data or predict', '--mode=eval'],
    ),
    'probabilities of an overfit': (
        ['--mode=overfit', '--probabilities'],
        ['--probabilities', '--mode=export or predict', '--mode=overfit'],
    ),
    'strategy': ([SHAPES, '--strategy=mirored'], ['--strategy=mirored', 'mirrored:N']),
    'no devices': ([SHAPES, '--strategy=mirrored:0'], ['--strategy=mirrored:0', 'mirrored:N']),
    'precision': ([SHAPES, '--precision=float31'], ['--precision=float31', 'float32', 'bfloat16']),
    'jit': ([SHAPES, '--jit=of'], ['--jit=of', 'auto, on or off']),
    'positional argument': (['gin/deeplab_shapes.gin'], ['gin/deeplab_shapes.gin', '--gin_param', '--help']),
    'no gin file': ([], ['--gin_file=gin/deeplab_shapes.gin']),
    'no gin file, but a run': (['--model_dir=damaged'], ['--gin_file=…', 'damaged/config.gin']),
    'misspelled run': (['--mode=predict', '--model_dir=damagd', '--input=.'], ['--model_dir=damagd', 'mean damaged?']),
    'gin file not found': (
        ['--gin_file=gin/deeplab_shape.gin'],
        ['--gin_file', 'gin/deeplab_shape.gin', 'Did you mean gin/deeplab_shapes.gin?'],
    ),
    'gin syntax': (['--gin_file=syntax.gin'], ['syntax.gin:2', 'TRAIN_STEPS == 3']),
    'unknown configurable': (
        ['--gin_file=unknown.gin'],
        ['unknown.gin:1', 'backbones.resnet05', 'Did you mean backbones.resnet50?', '--plugins'],
    ),
    'unknown parameter': (
        [SHAPES, '--gin_param=backbones.resnet18.wdith=2'],
        ['--gin_param="backbones.resnet18.wdith=2"', 'Did you mean width?', 'resnet.py:'],
    ),
    'supplied parameter': (
        [SHAPES, '--gin_param=backbones.resnet18.output_stride=8'],
        ['output_stride', 'supplied by the framework', 'width'],
    ),
    'missing quotes': (
        [VOC, '--gin_param=DATA_DIR=/data/voc'],
        ['--gin_param="DATA_DIR=/data/voc"', 'strings need quotes', "DATA_DIR='/data/voc'"],
    ),
    'unused binding': (
        [SHAPES, '--gin_param=backbones.resnet50.width=0.5', *(f'--gin_param={p}' for p in runs.SMALL)],
        ['backbones.resnet50.width', '--gin_param'],
    ),
    'wrong kind': (
        [SHAPES, '--gin_param=BACKBONE=@heads.semantic'],
        ['deeplab_v3plus.backbone', '@heads.semantic', '@backbones.<name>', 'resnet50'],
    ),
    'string for a reference': (
        [SHAPES, "--gin_param=BACKBONE='resnet50'"],
        ["'resnet50'", '@backbones.resnet50', 'without quotes'],
    ),
    'called reference': (
        [SHAPES, '--gin_param=BACKBONE=@backbones.resnet50()'],
        ['@backbones.resnet50', 'without ()'],
    ),
    'macro of the data set': ([CAMVID], ['deeplab_camvid.gin', 'DATA_DIR', '--gin_param="DATA_DIR=']),
    'data set not there': (
        [VOC, "--gin_param=DATA_DIR='/nowhere/voc'"],
        ["'/nowhere/voc'", 'There is no such folder', 'DATA_DIR'],
    ),
    'plugin not found': (
        [SHAPES, '--plugins=my_netz.py'],
        ['--plugins', 'my_netz.py', 'Did you mean my_nets.py?'],
    ),
    'plugin module not found': ([SHAPES, '--plugins=my_netz'], ['--plugins', 'my_netz', 'Did you mean my_nets?']),
    'plugin fails': (['--plugins=my_nets.py', '--list'], ['my_nets.py', 'ZeroDivisionError', 'my_nets.py:2']),
    'list nothing': (['--list=nothing_like_it'], ['--list=nothing_like_it', 'nothing matches']),
    'list near miss': (['--list=backbnes'], ['--list=backbnes', 'nothing matches']),
    'describe unknown': (
        ['--describe', '@backbones.resnet05'],
        ['@backbones.resnet05', 'Did you mean backbones.resnet50?'],
    ),
    'eval of nothing': (['--mode=eval'], ['--gin_file', '--model_dir']),
    'eval without a training': (['--mode=eval', '--model_dir=empty'], ['--model_dir=empty', 'config.gin']),
    'eval without a training, gin file': (
        [SHAPES, '--mode=eval', '--model_dir=empty'],
        ['empty', 'dataset_info.json', 'train there first'],
    ),
    'damaged dataset_info.json': (
        ['--mode=eval', '--model_dir=damaged'],
        ['damaged/dataset_info.json', 'is not JSON', 'Remove the file'],
    ),
    'incomplete dataset_info.json': (
        ['--mode=predict', '--model_dir=incomplete'],
        ['incomplete/dataset_info.json', "'num_examples'", 'Remove the file'],
    ),
    'model_dir is a file': ([SHAPES, '--model_dir=unknown.gin'], ['--model_dir=unknown.gin', 'it is a file']),
    'model_dir cannot be made': (
        [SHAPES, '--model_dir=unknown.gin/run'],
        ['--model_dir=unknown.gin/run', 'cannot write', 'another directory'],
    ),
    'fresh eval': (
        [SHAPES, '--mode=eval', '--fresh', '--model_dir=damaged'],
        ['--fresh', '--mode=eval', 'remove the run'],
    ),
    'training from the best': ([SHAPES, '--checkpoint=best'], ['--checkpoint=best', 'init.weights']),
    'batch size': (
        [SHAPES, '--gin_param=BATCH_SIZE=0'],
        ['RunConfig.batch_size = 0', 'at least 1', '%BATCH_SIZE, set at --gin_param="BATCH_SIZE=0"'],
    ),
}


@pytest.fixture
def broken_files(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'syntax.gin').write_text('BATCH_SIZE = 2\nTRAIN_STEPS == 3\n')
    (tmp_path / 'unknown.gin').write_text('backbones.resnet05.width = 2\n')
    (tmp_path / 'my_nets.py').write_text('"""Mine."""\n1 / 0\n')
    known = {'name': 'shapes/train', 'class_names': ['a', 'b']}
    for folder, text in (('damaged', '{"name": "sha'), ('incomplete', json.dumps(known))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'config.gin').write_text("include 'gin/deeplab_shapes.gin'\n")
        (tmp_path / folder / 'dataset_info.json').write_text(text)


@pytest.mark.parametrize('name', MISTAKES)
def test_mistake(call, broken_files, name):
    args, expected = MISTAKES[name]
    message = refused(call(*args))
    assert all(part in message for part in expected), message
    assert len(message) < 2000
    assert os.path.exists('damaged/dataset_info.json')


# Those that need neither a framework nor the registered parts.
EARLY = (
    'unknown flag', 'unknown mode', 'strategy', 'precision', 'jit', 'no gin file', 'gin file not found', 'gin syntax',
    'missing quotes', 'plugin not found', 'eval of nothing', 'eval without a training',
)  # fmt: skip


@pytest.mark.parametrize('name', EARLY)
def test_a_mistake_that_needs_no_framework_is_told_before_one_is_loaded(call, broken_files, monkeypatch, name):
    def start(*args, **kwargs):
        raise AssertionError('the engine was started')

    monkeypatch.setattr(engine, 'start', start)
    args, expected = MISTAKES[name]
    message = refused(call(*args))
    assert all(part in message for part in expected), message


def test_words_before_parts_are_loaded(monkeypatch):
    """They may be strings or references."""
    monkeypatch.setattr(registry, 'ENTRIES', {})
    for value, reference in (('resnet50', '@backbones.resnet50'), ('losses.dice', '@losses.dice')):
        with pytest.raises(UserError) as error:
            gin_statements.check_syntax([], [f'NAME={value}'])
        assert f"NAME='{value}'" in str(error.value) and reference in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_model_dir_without_permission(call, tmp_path):
    (tmp_path / 'locked').mkdir(mode=0o500)
    assert 'cannot write there' in refused(call(SHAPES, '--model_dir=locked/run'))


def test_a_flag_of_one_call_does_not_leak_into_the_next(call):
    assert call('--list', 'schedules')[0] == 0
    status, out, _ = call('--version')
    assert status == 0 and 'poly' not in out
    status, _, err = call(SHAPES, '--mode=overfit', '--gin_param=NOWHERE=1', '--strategy=mirored')
    status, _, err = call('--mode=eval')
    assert '--mode=eval' in err and 'unparse' not in err


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help_shows_our_flags_only(call, flag):
    status, out, err = call(flag, '--mode=nonsense')
    assert status == 0 and err == ''
    named = re.findall(r'^  --(\w+)', out, re.MULTILINE)
    assert set(named) == {flag.name for flag in map(seg_main.parser().__getitem__, seg_main.parser())}
    assert {'gin_file', 'gin_param', 'model_dir', 'mode', 'list', 'validate', 'help'} <= set(named)
    assert not {'logtostderr', 'verbosity', 'helpfull', 'pdb'} & set(named)
    assert 'repeat this option' not in out and '--gin_file=gin/deeplab_shapes.gin' in out


def test_list_everything(call):
    status, out, _ = call('--list')
    assert status == 0
    kinds = re.findall(r'^\w+$', out, re.MULTILINE)
    assert {'backbones', 'losses', 'datasets', 'tasks', 'schedules'} <= set(kinds)
    assert re.search(r'^  softmax_cross_entropy +\w', out, re.MULTILINE)


def test_list_a_kind_and_a_glob(call):
    status, out, _ = call('--list', 'backbones')
    assert status == 0 and out.startswith('backbones\n') and 'resnet18' in out and 'semantic' not in out
    for pattern in ('*resnet*', 'backbones.resnet*'):
        status, out, _ = call('--list', pattern)
        assert status == 0 and {'resnet18', 'resnet50', 'resnet101'} <= set(out.split())


@pytest.mark.parametrize('library', ['keras_applications', 'keras_hub', 'zeromodels'])
def test_list_the_models_of_a_library(call, library):
    """All by name, and those that were measured with parameters in millions and output strides."""
    status, out, _ = call('--list', f'backbones.{library}')
    assert status == 0 and {'resnet50', 'resnet152', 'densenet121'} <= set(out.split())
    for row in names.measured(library):
        strides = ' '.join(map(str, row['strides']))
        assert re.search(rf'^  {row["name"]} +{row["parameters"] / 1e6:.1f}  {strides} ', out, re.MULTILINE)


def test_list_the_settings_of_runs(call):
    status, out, _ = call('--list', 'settings')
    assert status == 0 and out.startswith('settings\n')
    lines = {line.split(' = ')[0].strip(): line.split(' = ')[1] for line in out.splitlines() if ' = ' in line}
    ours = {'RunConfig', 'OptimizerStep', 'init', 'predict', 'overfit'}  # Other tests may have registered more here.
    assert {name.partition('.')[0] for name in lines} >= ours
    lines = {name: text for name, text in lines.items() if name.partition('.')[0] in ours}
    assert re.fullmatch(r'\.\.\.  \(required\) +optimizer steps .*', lines['RunConfig.train_steps'])
    assert re.fullmatch(r'{} +\w.*', lines['OptimizerStep.part_rates'])
    assert all(re.search(r'  +\S.*[a-z]', text) for name, text in lines.items()), 'a line on each'
    assert call('--list', 'RunConfig')[1].count('RunConfig.') == len([n for n in lines if n.startswith('RunConfig.')])


def test_list_the_macros_of_a_gin_file(call, monkeypatch):
    """Without a framework, and without values for those that have to be set."""
    monkeypatch.setattr(engine, 'start', lambda *args: 1 / 0)
    status, out, _ = call('--list', 'macros', CAMVID, '--gin_param=CROP=(120, 160)')
    lines = out.splitlines()
    assert status == 0 and lines[0] == 'macros'
    assert any(re.fullmatch(r'  DATA_DIR = %gin.REQUIRED +\S*gin/deeplab_camvid.gin:\d+', line) for line in lines)
    assert any(re.fullmatch(r'  BACKBONE = @backbones.efficientnet_lite0 +\S+:\d+', line) for line in lines)
    assert [line for line in lines if 'CROP' in line] == [line for line in lines if '(120, 160)' in line]
    assert '--gin_file' in refused(call('--list', 'macros'))


def test_list_with_another_flag_after_it(call):
    status, out, _ = call('--list', f'--plugins={ROOT}/experiments/tiny_backbone/plugin.py')
    assert status == 0 and re.search(r'^  tiny +', out, re.MULTILINE) and '\nlosses\n' in out


@pytest.mark.parametrize('reference', ['@backbones.resnet50', 'backbones.resnet50', 'resnet50'])
def test_describe(call, reference):
    status, out, _ = call('--describe', reference)
    assert status == 0 and out.startswith('@backbones.resnet50') and 'resnet.py:' in out
    assert 'backbones.resnet50.width = 1.0' in out and 'Supplied by the framework: output_stride' in out


def test_version(call):
    status, out, _ = call('--version')
    lines = dict(line.split(': ', 1) for line in out.splitlines())
    assert status == 0 and {'seg', 'tensorflow', 'onednn', 'keras', 'devices', 'memory_gib'} <= set(lines)
    assert lines['tensorflow'].startswith('2.') and 'CPU' in lines['devices'] and float(lines['memory_gib']) > 0


@pytest.mark.parametrize('balanced', [False, True])
def test_validate_runs_nothing_and_leaves_no_file(call, tmp_path, balanced):
    """From another working directory than the checkout, which has no gin/ folder."""
    weights = "losses.softmax_cross_entropy.class_weights = 'auto'"
    extra = [f'--gin_param={weights}', '--gin_param=datasets.shapes.num_examples=4'] if balanced else []
    status, out, _ = call(SHAPES, '--model_dir=run', '--validate', *extra)
    assert status == 0 and 'Valid: shapes/train, 8 classes' in out and 'nothing was run' in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('args', 'folder'),
    [
        ([SHAPES, '--model_dir=mine'], 'mine'),
        ([SHAPES], 'runs/deeplab_shapes'),
        ([SHAPES, '--mode=overfit'], 'runs/deeplab_shapes/overfit'),
        (['--gin_file=experiments/tiny_backbone/run.gin'], 'runs/tiny_backbone'),
    ],
)
def test_a_bug_leaves_its_traceback_in_model_dir(call, tmp_path, monkeypatch, args, folder):
    def fail(*args, **kwargs):
        raise RuntimeError('the wheel came off\nand rolled away')

    monkeypatch.setattr(modes, 'run', fail)
    status, out, err = call(*args)
    log = (tmp_path / folder / 'error.log').read_text()
    assert status == 1 and out == '' and 'Traceback (most recent' not in err and 'rolled away' not in err
    assert 'RuntimeError: the wheel came off' in err and f'Traceback: {folder}/error.log' in err
    assert 'Traceback (most recent call last)' in log and 'in fail' in log and f'seg_main {args[0]}' in log


def test_an_exception_in_a_plugin_names_the_line(call, monkeypatch):
    from seg import registry

    def fail(*args, **kwargs):
        raise RuntimeError('the wheel came off')

    monkeypatch.setattr(modes, 'run', fail)
    with registry.temporary():

        @registry.losses.register('mine')
        def mine():
            """Mine."""

        status, _, err = call(SHAPES)
    line = fail.__code__.co_firstlineno + 1
    assert status == 1 and 'the wheel came off' in err and f'test_seg_main.py:{line}' in err and 'bug of seg' not in err


def test_an_exception_in_another_file_of_a_plugin_is_no_bug_of_seg(call, tmp_path, monkeypatch):
    lab = tmp_path / 'lab_with_a_helper'
    lab.mkdir()
    (lab / 'helper.py').write_text('def fail(*args, **kwargs):\n    return 1 / 0\n')
    (lab / 'losses.py').write_text(
        'from seg.registry import losses\n\n@losses.register("helped")\ndef helped():\n    """Helped."""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with registry.temporary():
        importlib.import_module('lab_with_a_helper.losses')
        monkeypatch.setattr(modes, 'run', importlib.import_module('lab_with_a_helper.helper').fail)
        status, _, err = call(SHAPES)
    assert status == 1 and 'helper.py:2' in err and 'bug of seg' not in err


def test_a_bug_without_a_run_shows_its_traceback(call, tmp_path, monkeypatch):
    monkeypatch.setattr(modes, 'load_parts', lambda specs: 1 / 0)
    status, _, err = call('--list')
    assert status == 1 and 'Traceback (most recent' in err and 'ZeroDivisionError' in err and 'Traceback: above' in err
    assert not list(tmp_path.iterdir())


def test_interrupted(call, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(modes, 'run', interrupt)
    status, _, err = call(SHAPES)
    assert status == 130 and 'No step was taken. The same command starts again.' in err


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_what_the_system_refuses_is_no_bug(call, monkeypatch, number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), '/some/place')

    monkeypatch.setattr(modes, 'run', fail)
    message = refused(call(SHAPES, '--model_dir=run'))
    assert '/some/place' in message and os.strerror(number) in message


def test_results_that_cannot_be_written_are_printed(call, monkeypatch):
    def fail(*args, **kwargs):
        raise UnsavedError("cannot write 'run/results.json': No space left on device.", {'step': 3})

    monkeypatch.setattr(modes, 'run', fail)
    status, out, err = call(SHAPES)
    assert status == 2 and json.loads(out) == {'step': 3} and 'run/results.json' in err


def test_no_error_log_where_none_can_be_made(call, monkeypatch, tmp_path):
    """The message names a place only if the traceback is there."""
    monkeypatch.setattr(modes, 'run', lambda *args, **kwargs: 1 / 0)
    (tmp_path / 'run' / 'error.log').mkdir(parents=True)
    status, _, err = call(SHAPES, '--model_dir=run')
    assert status == 1 and 'Traceback (most recent' in err and err.endswith('Traceback: above\n')


def test_a_start_without_room_for_temporary_files(monkeypatch):
    def full(*args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, 'No usable temporary directory found')

    monkeypatch.setattr(tempfile, 'TemporaryFile', full)
    with log_level.quiet_start():
        pass


def test_progress_in_a_log(monkeypatch, caplog):
    """Plain lines, and not one per step."""
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: False, raising=False)
    with caplog.at_level('INFO', logger='absl'):
        progress = Progress('step', 20, '', quiet=0.05)
        progress.update(1, 'loss 2.0')
        time.sleep(0.06)
        progress.update(10, 'loss 1.0')
        progress.update(11, 'loss 0.9')
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r'step: 10/20 ?, loss 1\.0, 0:00 left', line) and '\r' not in line


def test_time_left_without_the_compilation(monkeypatch, caplog):
    """A minute before the first update, then a step a second; after a quarter of an hour the speed of then counts."""
    now = [0.0]
    monkeypatch.setattr('seg.executor.progress.time.perf_counter', lambda: now[0])
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: False, raising=False)
    with caplog.at_level('INFO', logger='absl'):
        progress = Progress('training', 10_000, 'steps', quiet=0.0)
        for now[0], step in ((60.0, 1), (70.0, 11)):
            progress.update(step)
        for now[0], step in ((5000.0, 500), (6000.0, 1000), (6500.0, 1250)):
            progress.update(step)
    left = [record.getMessage().partition('steps')[2] for record in caplog.records]
    assert left[:2] == ['', ', 2:46:29 left'] and left[-1] == ', 4:51:40 left'


# In processes of their own: what TensorFlow says when it starts.


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith('TF_CPP')}
    return kept | {'PYTHONPATH': str(ROOT)}


def test_nothing_but_our_lines_at_the_start():
    done = subprocess.run(
        [sys.executable, '-m', 'seg.seg_main', '--list', 'backbones'],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ''
    assert done.stdout.startswith('backbones\n  ')


def test_a_report_needs_no_tensorflow(tmp_path):
    """Nor anything else that is slow to load, and it works in a folder that is not the checkout."""
    made.run(tmp_path / 'run')
    program = (
        'import sys; from seg import seg_main\n'
        'status = seg_main.main(["seg_main", "--mode=report", "--model_dir=run", "--output=pages/mine.html"])\n'
        'print(status, [m for m in ("tensorflow", "keras", "jax", "gin", "scipy") if m in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == '0 []\n', done.stderr
    assert re.fullmatch(r'\d\d:\d\d:\d\d Wrote pages/mine.html \(\d\.\d MB\)\.\n', done.stderr)
    assert (tmp_path / 'pages' / 'mine.html').read_text().startswith('<!DOCTYPE html>')


def test_a_run_on_a_terminal(tmp_path):
    """The experiment with a backbone of its own, three steps: a living line with the time left, and no noise."""
    params = [param for param in runs.SMALL if not param.startswith(('TRAIN_STEPS', 'RunConfig'))]
    params += ['TRAIN_STEPS=3', 'RunConfig.iterations_per_loop=1', 'backbones.tiny.channels=8']
    params += runs.SMALL_PARTS[runs.SHAPES]
    command = [sys.executable, '-m', 'seg.seg_main', '--gin_file=experiments/tiny_backbone/run.gin']
    terminal, slave = pty.openpty()
    process = subprocess.Popen(
        [*command, f'--model_dir={tmp_path}/run', *(f'--gin_param={param}' for param in params)],
        cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = b''
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # The other end is closed.
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    out = process.stdout.read()
    lines = [line for line in re.split(r'[\r\n]+', shown.decode()) if line.strip()]
    assert process.wait() == 0, lines
    assert json.loads(out)['step'] == 3
    living = [line for line in lines if line.startswith('training: ')]
    assert len(living) > 1, lines
    loss = r'training: \d/3 steps, loss \d+\.\d+'
    assert re.fullmatch(f'{loss} *', living[0]), living  # The first step has no speed, because it is compiled.
    pattern = re.compile(rf'{loss}, \d+\.\d images/s, \d+:\d\d left *')
    assert all(pattern.fullmatch(line) for line in living[1:]), living  # No log line runs into it.
    log = (tmp_path / 'run' / 'train.log').read_text()
    assert log.startswith('$ seg_main --gin_file=experiments/tiny_backbone/run.gin') and log.endswith(out.decode())
    shown_in_log = [line for line in lines if LOG_LINE.match(line)]
    assert all(line in log for line in shown_in_log) and any('Building the model' in line for line in shown_in_log)
    note = 'Bindings without effect in this run:'
    others = [line for line in lines if not LOG_LINE.match(line) and not line.startswith(('training: ', 'evaluating '))]
    assert any(note in line for line in lines)
    assert len(others) == 1 and 'backbones.resnet18.width' in others[0], others
