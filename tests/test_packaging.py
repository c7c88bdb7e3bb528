"""What is installed: the declared packages and libraries, the gin files, the lock file and its licence table."""

import ast
import configparser
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

import seg

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCK = ROOT / 'third_party' / 'requirements.lock'
FORMATS_LOCK = ROOT / 'third_party' / 'formats.lock'  # With the extra that needs other versions of some packages.
EXPORT_LOCK = ROOT / 'third_party' / 'export.lock'
SERVE_LOCK = ROOT / 'third_party' / 'serve.lock'
NOTEBOOKS_LOCK = ROOT / 'third_party' / 'notebooks.lock'
ZOO_LOCK = ROOT / 'third_party' / 'zoo.lock'
LICENCES = ROOT / 'third_party' / 'README.md'
# Modules that are not called like the distribution that brings them.
DISTRIBUTIONS = {'PIL': 'pillow', 'absl': 'absl-py', 'gin': 'gin-config', 'xdist': 'pytest-xdist', 'yaml': 'pyyaml'}


@pytest.fixture(scope='module')
def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    return config


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith('#')]


def requirements(setup_cfg, *extras):
    """{distribution: version pattern, '*' if any} of the runtime and of the named extras."""
    texts = [
        setup_cfg['options']['install_requires'],
        *(setup_cfg['options.extras_require'][extra] for extra in extras),
    ]
    parts = [line.partition('==') for text in texts for line in lines(text)]
    return {name: version or '*' for name, _, version in parts}


def locked(lock=LOCK):
    """{distribution: version} of a lock file."""
    return dict(re.findall(r'^([a-z0-9-]+)==(\S+)', lock.read_text(encoding='utf-8'), re.MULTILINE))


def licence_rows(heading='Packages'):
    """{distribution: (version, licence, what for)} of the table under a heading."""
    section = LICENCES.read_text(encoding='utf-8').split(f'## {heading}\n')[1].split('\n## ')[0]
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')] for line in section.splitlines() if line.startswith('|')
    ]
    return {name: tuple(rest) for name, *rest in rows[2:]}


def outside_imports(folder):
    """{distribution: a file that imports it} for the Python files under a folder, own modules and Python's left out."""
    found = {}
    for path in sorted((ROOT / folder).rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                modules = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            else:
                continue
            for top in {module.split('.')[0] for module in modules}:
                if top not in sys.stdlib_module_names and top not in ('seg', 'tests', 'tools', '__future__'):
                    found.setdefault(DISTRIBUTIONS.get(top, top).replace('_', '-'), path.relative_to(ROOT))
    return found


def test_listed_packages_are_those_of_the_tree(setup_cfg):
    listed = lines(setup_cfg['options']['packages'])
    there = {'.'.join(path.parent.relative_to(ROOT).parts) for path in (ROOT / 'seg').rglob('*.py')}
    differing = sorted((set(listed) - {'seg._files.gin'}) ^ there)
    assert not differing, f'either in setup.cfg (packages) or under seg/, not in both: {", ".join(differing)}'


def test_every_package_has_an_init():
    """A folder without one is a namespace package, which an installed copy may mix with another one's."""
    bare = {str(path.parent.relative_to(ROOT)) for path in (ROOT / 'seg').rglob('*.py')}
    bare = sorted(folder for folder in bare if not (ROOT / folder / '__init__.py').is_file())
    assert not bare, f'__init__.py is missing in: {", ".join(bare)}'


# What slow tests compare with, and small stored references are made by. Too large to be installed for every run.
REFERENCES = {'timm', 'torch', 'torchvision', 'efficientnet-lite-pytorch'}


def test_what_is_imported_is_declared(setup_cfg):
    optional = set(setup_cfg['options.extras_require']) - {'test', 'dev'}
    for folder, extras in (('seg', optional), ('tests', {*optional, 'test'}), ('experiments', optional)):
        known = {*requirements(setup_cfg, *extras), *(REFERENCES if folder == 'tests' else ())}
        unknown = {d: str(path) for d, path in outside_imports(folder).items() if d not in known}
        assert not unknown, f'imported under {folder}/ but not declared in setup.cfg: {unknown}'


def test_what_is_declared_is_locked(setup_cfg):
    locks = (FORMATS_LOCK, EXPORT_LOCK, SERVE_LOCK, NOTEBOOKS_LOCK, ZOO_LOCK, LOCK)
    versions = {name: version for lock in locks for name, version in locked(lock).items()}
    for name, wanted in requirements(setup_cfg, *setup_cfg['options.extras_require']).items():
        assert fnmatch.fnmatch(versions.get(name, 'absent'), wanted), (
            f'{name}=={wanted} in setup.cfg; make the lock again'
        )


def test_pythons_are_the_same_everywhere(setup_cfg):
    """Those that pip admits, that the locks are checked for, that CI tries, and that README names."""
    names = ['3.11', '3.12', '3.13']
    assert setup_cfg['options']['python_requires'] == '>=3.11,<3.14'
    assert re.findall(r'Python :: (\S+)', setup_cfg['metadata']['classifiers']) == names
    for script in ('.ci/run', 'tools/locks.sh'):
        assert f'in {" ".join(names)};' in (ROOT / script).read_text(encoding='utf-8')
    for page in (ROOT / 'README.md', LICENCES):
        assert re.search(r'Python 3\.11, 3\.12 (?:and|or) 3\.13', page.read_text(encoding='utf-8'))


@pytest.mark.parametrize(
    'lock', [LOCK, FORMATS_LOCK, EXPORT_LOCK, SERVE_LOCK, NOTEBOOKS_LOCK, ZOO_LOCK], ids=lambda lock: lock.name
)
def test_lock_is_hashed_and_names_no_host(lock):
    text = lock.read_text(encoding='utf-8')
    assert '://' not in text and ' @ ' not in text
    assert not re.findall(r'^-+(?:index|extra|find|trusted)\S*', text, re.MULTILINE)
    entries = re.split(r'^(?=[a-z0-9-]+==)', text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(lock)) and all('--hash=sha256:' in entry for entry in entries)


def test_licence_tables_list_what_is_locked():
    versions = locked()
    assert {name: row[0] for name, row in licence_rows().items()} == versions, (
        'third_party/README.md and the lock differ'
    )
    for lock, heading in (
        (FORMATS_LOCK, 'Packages for formats'),
        (EXPORT_LOCK, 'Packages for export'),
        (SERVE_LOCK, 'Packages for serving'),
        (NOTEBOOKS_LOCK, 'Packages for notebooks'),
        (ZOO_LOCK, 'Packages for backbones of other libraries'),
    ):
        others = {name: version for name, version in locked(lock).items() if versions.get(name) != version}
        assert {name: row[0] for name, row in licence_rows(heading).items()} == others


def test_licence_table_has_licence_and_purpose(setup_cfg):
    direct = requirements(setup_cfg, *setup_cfg['options.extras_require'])
    for name, (_, licence, purpose) in licence_rows().items():
        assert licence and purpose.startswith('via ') == (name not in direct), f'third_party/README.md, row {name}'


def test_licence_file():
    text = (ROOT / 'LICENSE').read_text(encoding='utf-8')
    assert 'Apache License' in text and 'Version 2.0, January 2004' in text and 'END OF TERMS AND CONDITIONS' in text


def test_importing_the_package_loads_no_library():
    program = 'import sys, seg; print([m for m in ("gin", "keras", "numpy", "tensorflow") if m in sys.modules])'
    printed = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == '[]'


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what goes into a distribution (a build leaves files behind), with gin files on two levels."""
    copy = tmp_path_factory.mktemp('source')
    ignore = shutil.ignore_patterns('__pycache__')
    for name in ('seg', 'gin'):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    (copy / 'gin' / 'trial' / 'deep').mkdir(parents=True)
    for name in ('trial.gin', 'trial/trial.gin', 'trial/deep/trial.gin'):
        (copy / 'gin' / name).touch()
    return copy


def pip(python, *arguments):
    # pip asks for nothing, and a failure shows what it printed.
    done = subprocess.run(
        [python, '-m', 'pip', *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def relative_files(folder, suffix):
    return {path.relative_to(folder).as_posix() for path in folder.rglob(f'*{suffix}')}


def test_wheel_holds_modules_gin_files_and_the_command(source, tmp_path):
    pip(sys.executable, 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', tmp_path, source)
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(archive.read(name).decode() for name in names if name.endswith('/entry_points.txt'))
    assert {name for name in names if name.endswith('.py')} == {
        f'seg/{n}' for n in relative_files(source / 'seg', '.py')
    }
    assert {f'seg/report/{name}' for name in ('layout.css', 'layout.html', 'page.html', 'page.js')} <= names
    gin_files = {f'seg/_files/gin/{n}' for n in relative_files(source / 'gin', '.gin')}
    assert {name for name in names if name.startswith('seg/_files/')} == gin_files
    assert wheel.name.startswith(f'seg_framework-{seg.__version__}-')
    assert re.search(r'^seg_main\s*=\s*seg\.seg_main:run$', entry_points, re.MULTILINE)


# Looks for a gin file as an installed program does: inside the package, else beside it. (By path: an editable install
# of setuptools has no module seg._files, so importlib.resources finds these files in a wheel only.)
PROBE = """
import pathlib, seg
package = pathlib.Path(seg.__file__).parent
found = [p for p in (package / '_files', package.parent) if (p / 'gin' / 'trial' / 'deep' / 'trial.gin').is_file()]
print(*(p.name for p in found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(('how', 'expected'), [((), '_files'), (('-e',), 'source')])
def test_gin_files_are_found_when_installed(source, tmp_path, how, expected):
    """Needs a package index, from which pip takes setuptools."""
    checkout = tmp_path / 'source'
    shutil.copytree(source, checkout)
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    pip(python, 'install', '--no-deps', *how, checkout)
    (tmp_path / 'elsewhere').mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHONHOME')}
    printed = subprocess.run(
        [python, '-c', PROBE], cwd=tmp_path / 'elsewhere', env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == expected


def test_ci_script_is_a_program():
    assert os.access(ROOT / '.ci' / 'run', os.X_OK)
    for script in ('.ci/run', 'tools/locks.sh'):
        subprocess.run(['bash', '-n', ROOT / script], check=True)
