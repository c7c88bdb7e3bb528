"""A plugin package of somebody else's, installed by pip: its parts are there without a flag or an import line."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYPROJECT = """
[build-system]
requires = ['setuptools>=64']
build-backend = 'setuptools.build_meta'

[project]
name = 'lab-nets'
version = '1.2'

[project.entry-points.'seg.plugins']
lab_nets = 'lab_nets.parts'

[tool.setuptools]
packages = ['lab_nets']
"""
# The calls share one process, since its start takes longest.
PROGRAM = """
import sys
from seg.seg_main import main
for line in sys.stdin.read().splitlines():
    status = main(['seg_main', *line.split()])
    print('status', status, flush=True)
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder with the installed package. Its plugin is that of the shipped experiment under another name."""
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('site')
    (source / 'lab_nets').mkdir()
    (source / 'pyproject.toml').write_text(PYPROJECT)
    (source / 'lab_nets' / '__init__.py').touch()
    plugin = (ROOT / 'experiments' / 'tiny_backbone' / 'plugin.py').read_text(encoding='utf-8')
    (source / 'lab_nets' / 'parts.py').write_text(plugin.replace("register('tiny')", "register('lab_net')"))
    command = [sys.executable, '-m', 'pip', 'install', '--no-index', '--no-deps', '--no-build-isolation']
    done = subprocess.run(
        [*command, '--no-warn-script-location', '--target', target, source],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return target


def seg_main(*commands, path=()):
    """Standard output of each command, run one after another in an empty-handed process."""
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, [ROOT, *path]))}
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], input='\n'.join(commands), env=environment, cwd=path[0],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs = re.split(r'^status \d+\n', done.stdout, flags=re.MULTILINE)[:-1]
    assert re.findall(r'^status (\d+)', done.stdout, re.MULTILINE) == ['0'] * len(commands), done.stderr
    return outputs


def test_an_installed_package_brings_its_parts(site):
    listed, described, validated = seg_main(
        '--list backbones',
        '--describe @backbones.lab_net',
        '--gin_file=gin/deeplab_shapes.gin --gin_param=BACKBONE=@backbones.lab_net --model_dir=run --validate',
        path=[site],
    )
    assert re.search(r'^  lab_net +Five stages', listed, re.MULTILINE) and '  resnet50' in listed
    assert described.startswith('@backbones.lab_net') and str(pathlib.Path('lab_nets', 'parts.py')) in described
    assert 'backbones.lab_net.channels = 24' in described
    assert validated.startswith('Valid: ')
    assert not (site / 'run').exists()


def test_the_build_backend_is_locked():
    """So that a plugin package can be installed beside this one without a network."""
    lock = (ROOT / 'third_party' / 'requirements.lock').read_text(encoding='utf-8')
    assert re.search(r'^setuptools==\d', lock, re.MULTILINE)
