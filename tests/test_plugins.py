"""Loading built-in parts, entry points and the user's plugins."""

import importlib.metadata
import sys
import types

import pytest

from seg import config, plugins, registry
from seg.errors import UserError

PLUGIN = '''
from seg.registry import backbones


@backbones.register('{name}')
def {name}(*, output_stride, depth=1):
    """From a plugin."""
    return depth
'''


@pytest.fixture(autouse=True)
def _sandbox(tmp_path, monkeypatch):
    """Works in an empty directory and takes back registrations, modules and import paths."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(plugins, '_files', {})
    monkeypatch.setattr(plugins, '_entered', set())
    before = set(sys.modules)
    with registry.temporary():
        yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], '__file__', None) or ''
        if name.startswith('seg_plugin_') or file.startswith(str(tmp_path)):
            del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_module_from_the_working_directory(tmp_path):
    write(tmp_path / 'my_lab_a' / 'plugin.py', PLUGIN.format(name='net_a'))
    assert plugins.load(['my_lab_a.plugin']) == ['import my_lab_a.plugin']
    assert 'net_a' in registry.backbones.names()
    assert plugins.recorded == ['import my_lab_a.plugin']


def test_file_is_run_once_under_a_stable_name(tmp_path):
    path = write(tmp_path / 'my-lab' / 'plugin.py', PLUGIN.format(name='net_b'))
    assert plugins.load(['my-lab/plugin.py']) == [f'include {str(path)!r}']
    module = registry.backbones.get('net_b').builder.__module__
    assert module.startswith('seg_plugin_plugin_') and module in sys.modules
    builder = registry.backbones.get('net_b').builder
    plugins.load([str(path)])
    assert registry.backbones.get('net_b').builder is builder
    assert len(plugins.recorded) == 1


def test_file_and_then_the_same_module_by_name(tmp_path):
    write(tmp_path / 'my_lab_c' / 'plugin.py', PLUGIN.format(name='net_c'))
    plugins.load(['my_lab_c/plugin.py', 'my_lab_c.plugin'])
    assert registry.backbones.get('net_c').builder.__module__ == 'my_lab_c.plugin'


def test_module_and_then_the_same_file(tmp_path):
    write(tmp_path / 'my_lab_d.py', PLUGIN.format(name='net_d'))
    plugins.load(['my_lab_d', 'my_lab_d.py'])
    assert registry.backbones.get('net_d').builder.__module__ == 'my_lab_d'


def test_a_gin_import_line_loads_a_plugin(tmp_path):
    write(tmp_path / 'my_lab_e' / 'plugin.py', PLUGIN.format(name='net_e'))
    write(tmp_path / 'run.gin', 'import my_lab_e.plugin\nbackbones.net_e.depth = 4\n')
    config.parse(['run.gin'])
    assert 'import my_lab_e.plugin\n' in config.snapshot()


@pytest.mark.parametrize('spec', ['my_lab_f.plugin', 'my_lab_f/plugin.py'])
def test_the_snapshot_loads_plugins_again(tmp_path, monkeypatch, spec):
    write(tmp_path / 'my_lab_f' / 'plugin.py', PLUGIN.format(name='net_f'))
    with registry.temporary():
        plugins.load([spec])
        config.parse([], ['backbones.net_f.depth = 4'])
        text = config.snapshot()
    for name in [name for name in sys.modules if name.startswith(('seg_plugin_', 'my_lab_f'))]:
        del sys.modules[name]
    plugins._files.clear()
    config.clear()
    assert 'net_f' not in registry.backbones.names()
    write(tmp_path / 'config.gin', text)
    config.parse(['config.gin'])
    assert 'net_f' in registry.backbones.names()
    assert config.snapshot() == text


def test_a_moved_plugin_file_takes_the_place_of_the_recorded_one(tmp_path):
    new = write(tmp_path / 'new' / 'lab_plugin.py', PLUGIN.format(name='net_g'))
    write(tmp_path / 'config.gin', "include '/old/lab_plugin.py'\nbackbones.net_g.depth = 2\n")
    assert '--plugins=new/place/lab_plugin.py' in message(config.parse, ['config.gin'])
    config.clear()
    plugins.load([str(new)])
    config.parse(['config.gin'])
    assert plugins.recorded == [f'include {str(new)!r}']


def test_missing_ones_name_near_misses(tmp_path):
    write(tmp_path / 'my_lab_h' / 'plugin.py', '')
    said = message(plugins.load, ['my_lab_h.plugni'])
    assert said.startswith("--plugins: no module 'my_lab_h.plugni'") and 'Did you mean my_lab_h.plugin?' in said
    said = message(plugins.load, ['my_lab_g.plugin'])
    assert 'Did you mean my_lab_h?' in said and str(tmp_path) in said
    said = message(plugins.load, ['my_lab_h/plugn.py'])
    assert 'Did you mean my_lab_h/plugin.py?' in said and str(tmp_path) in said


@pytest.mark.parametrize('by_file', [True, False])
@pytest.mark.parametrize(
    'body, expected',
    [
        ('x = 1\ndef f(:\n', ['SyntaxError', ':2)']),
        ('\n\nimport no_such_library_x\n', ["No module named 'no_such_library_x'", ':3: import no_such_library_x']),
        ('import json\njson.loads("{")\n', ['JSONDecodeError', ':2: json.loads("{")', 'raised in']),
        (PLUGIN.format(name='net_i').replace('output_stride, ', ''), ["has to take 'output_stride'", ':5:']),
    ],
)
def test_failing_plugins_name_file_and_line(tmp_path, by_file, body, expected):
    name = f'failing_{abs(hash((by_file, body)))}'
    write(tmp_path / f'{name}.py', body)
    said = message(plugins.load, [f'{name}.py' if by_file else name])
    for text in ('failed on import', f'{name}.py', *expected):
        assert text in said
    assert name not in sys.modules


def test_a_failing_gin_import_names_the_line(tmp_path):
    write(tmp_path / 'failing_gin.py', 'raise ValueError("no licence")\n')
    write(tmp_path / 'run.gin', '# Header.\nimport failing_gin\n')
    said = message(config.parse, ['run.gin'])
    assert said.startswith("run.gin:2: the plugin 'failing_gin' failed") and 'ValueError: no licence' in said


class _Point:
    """Stands in for an installed entry point."""

    dist = types.SimpleNamespace(name='lab-parts')

    def __init__(self, name, value, loaded):
        self.name, self.value, self._loaded = name, value, loaded

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_entry_points(monkeypatch):
    calls = []

    def register_parts():
        calls.append(1)

    points = [_Point('a', 'lab.parts', types), _Point('b', 'lab.parts:register_parts', register_parts)]
    monkeypatch.setattr(importlib.metadata, 'entry_points', lambda group: points if group == 'seg.plugins' else [])
    plugins.load_entry_points()
    plugins.load_entry_points()
    assert calls == [1]
    points.append(_Point('c', 'lab.broken', ImportError('libfoo.so is missing')))
    said = message(plugins.load_entry_points)
    assert "'c' = 'lab.broken'" in said and "'lab-parts'" in said and 'libfoo.so is missing' in said


def test_a_failing_entry_point_function_names_its_line(monkeypatch):
    def register_parts():
        raise RuntimeError('no device')

    monkeypatch.setattr(importlib.metadata, 'entry_points', lambda group: [_Point('d', 'lab:d', register_parts)])
    said = message(plugins.load_entry_points)
    assert 'RuntimeError: no device' in said and 'test_plugins.py:' in said


def test_builtins_walk_every_part_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind in registry.KINDS:
        (tmp_path / 'fakeseg' / kind).mkdir(parents=True)
    write(tmp_path / 'fakeseg' / 'backbones' / 'one.py', PLUGIN.format(name='one'))
    write(tmp_path / 'fakeseg' / 'backbones' / 'family' / '__init__.py', '')
    write(tmp_path / 'fakeseg' / 'backbones' / 'family' / 'two.py', PLUGIN.format(name='two'))
    plugins.load_builtins('fakeseg')
    assert {'one', 'two'} <= set(registry.backbones.names())
