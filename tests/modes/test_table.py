"""The table of modes: its names and flags, and that one file adds a mode."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import pytest

from seg import modes, seg_main
from seg.errors import UserError
from tests.executor import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = [
    'train_and_eval', 'overfit', 'train', 'benchmark_model', 'check_data', 'convert', 'eval', 'export', 'plan',
    'predict', 'report', 'serve', 'show_data',
]  # fmt: skip

TOY = '''
"""`--mode=count`."""

import dataclasses

from absl import flags

from seg.modes.base import ExperimentMode, Flag


@dataclasses.dataclass(kw_only=True)
class CountSettings:
    """What `--mode=count` counts."""

    first: int = 1


class Count(ExperimentMode):
    """Counts the pixels of each class in the training data."""

    name = 'count'
    aliases = ('histogram',)
    flags = (Flag('most', flags.DEFINE_integer, 3, 'At most so many classes.'),)
    needs_train_data = True
    settings_type = CountSettings
    scope = 'count'

    def execute(self):
        pixels = [int(number) for number in self.experiment.train_data.class_histogram().pixels]
        first = self.settings.first
        trains = self.experiment.optimizer is not None
        return {'pixels': pixels[first : first + self.call.flags['most']], 'trains': trains}


MODE = Count
'''


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Adds a mode by one file, in a folder that stands for `seg/modes`."""
    folder, added = tmp_path / 'more_modes', []
    folder.mkdir()
    monkeypatch.setattr(modes, '__path__', [*modes.__path__, str(folder)])
    monkeypatch.chdir(tmp_path)

    def add(name, text):
        (folder / f'{name}.py').write_text(text)
        added.append(name)

    yield add
    for name in added:
        sys.modules.pop(f'seg.modes.{name}', None)
        delattr(modes, name)


@pytest.fixture
def toy(add):
    add('count', TOY)


def test_the_mode_of_the_page(add, capsys):
    """docs/adding.md shows a mode that runs."""
    page = (ROOT / 'docs' / 'adding.md').read_text(encoding='utf-8')
    add('count_images', re.search(r'^```python\n(.*?)^```', page, re.MULTILINE | re.DOTALL)[1])
    assert seg_main.main(['seg_main', '--gin_file=gin/deeplab_shapes.gin', '--mode=count_images']) == 0
    assert json.loads(capsys.readouterr().out) == {'images': 128}


def test_a_mode_is_one_file(toy, capsys, caplog):
    """Its flag, its settings, its scope, its line of help, and the messages of others know of it."""

    def call(*args):
        status = seg_main.main(['seg_main', *args])
        return status, *capsys.readouterr()

    assert call('--help')[1].count('--mode=count: Counts the pixels') == 1 and '--most=3' in call('--help')[1]
    params = [f'--gin_param={param}' for param in (*runs.SMALL, 'count.first=0', 'count/RunConfig.seed=2')]
    status, out, err = call('--gin_file=gin/deeplab_shapes.gin', '--mode=count', '--most=8', *params)
    assert status == 0, err
    results = json.loads(out)
    assert len(results['pixels']) == 8 and sum(results['pixels']) == 6 * 64 * 64 and results['trains'] is False
    assert 'count.first' not in caplog.text and 'count/' not in caplog.text
    assert not pathlib.Path('runs').exists()

    # Another mode refuses the flag, and does without the settings.
    status, out, err = call('--gin_file=gin/deeplab_shapes.gin', '--most=5')
    assert status == 2 and all(part in err for part in ('--most=5', '--mode=count', '--mode=train_and_eval'))
    caplog.clear()
    assert call('--gin_file=gin/deeplab_shapes.gin', '--validate', *params)[0] == 0
    assert 'count.first' in caplog.text and 'count/RunConfig.seed' in caplog.text
    with pytest.raises(UserError, match='Did you mean count?'):
        modes.find('histogram')


def test_names():
    assert list(modes.table()) == NAMES
    for mode in modes.table().values():
        assert mode.__module__ == f'seg.modes.{mode.name}'
        assert re.fullmatch(r'[A-Z].*[^.]\.', mode.summary())


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('evaluate', 'eval'), ('evaluation', 'eval'), ('test', 'eval'), ('Eval', 'eval'), ('evall', 'eval'),
        ('training', 'train'), ('trian', 'train'), ('train_and_evaluate', 'train_and_eval'),
        ('inference', 'predict'), ('predicted', 'predict'), ('reprot', 'report'), ('over_fit', 'overfit'),
    ],
)  # fmt: skip
def test_near_misses_of_an_unknown_mode(name, meant):
    with pytest.raises(UserError) as caught:
        modes.find(name)
    assert str(caught.value).startswith(f'--mode={name}: ') and f'Did you mean {meant}?' in str(caught.value)
    assert ', '.join(NAMES) in str(caught.value)


def test_a_mode_without_near_misses():
    with pytest.raises(UserError) as caught:
        modes.find('xyz')
    assert 'Did you mean' not in str(caught.value) and ', '.join(NAMES) in str(caught.value)


def test_flags_of_one_name_are_alike():
    """The command line defines each once."""
    flags = [flag for mode in modes.table().values() for flag in (*mode.common_flags, *mode.flags)]
    for flag in flags:
        assert {(other.define, str(other.default)) for other in flags if other.name == flag.name} == {
            (flag.define, str(flag.default))
        }


def test_flags_in_python():
    with pytest.raises(UserError, match='--fresh .*--mode=eval'):
        modes.run(mode='eval', model_dir='nowhere', fresh=True)
    with pytest.raises(UserError, match='--gin_param=A=1 .*--mode=report'):
        modes.run(mode='report', model_dir='nowhere', gin_params=['A=1'])
    with pytest.raises(UserError, match='--validate .*--mode=report'):
        modes.validate(mode='report', model_dir='nowhere')
    with pytest.raises(UserError, match='--mode=report'):
        modes.build(mode='report', model_dir='nowhere')
    with pytest.raises(TypeError, match='inptu'):
        modes.run(mode='predict', model_dir='nowhere', inptu='a.png')


def test_the_table_loads_no_framework():
    program = (
        'import sys; from seg import modes, seg_main\n'
        'seg_main.main(["seg_main", "--help"]); modes.table()\n'
        'print([m for m in ("tensorflow", "keras", "jax", "gin", "numpy", "matplotlib") if m in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith('\n[]\n') and done.returncode == 0, done.stdout + done.stderr


def test_no_comparison_with_the_name_of_a_mode():
    """What depends on the mode is in its class."""
    found = []
    for path in sorted(ROOT.glob('seg/**/*.py')):
        source = path.read_text(encoding='utf-8')
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Compare) and 'mode' in ast.get_source_segment(source, node):
                texts = {child.value for child in ast.walk(node) if isinstance(child, ast.Constant)}
                found += [f'{path}:{node.lineno}'] if texts & set(NAMES) else []
    assert not found
