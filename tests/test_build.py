"""BUILD covers the tree, and the layer table of layers.bzl is that of BUILD and of docs/design.md."""

import pathlib
import re
import runpy
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLE = runpy.run_path(str(ROOT / 'layers.bzl'))
LAYERS = TABLE['LAYERS']
COVERED = ('seg', 'tests', 'gin', 'experiments', 'benchmarks', 'tools')


def source_files():
    """The .py and .gin files that belong to the project, relative to ROOT: git's list, or all where there is no git."""
    if (ROOT / '.git').exists():
        command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', *COVERED]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split('\0')
        files = {name for name in listed if (ROOT / name).is_file()}
    else:
        files = {str(path.relative_to(ROOT)) for folder in COVERED for path in (ROOT / folder).rglob('*')}
    return {name for name in files if name.endswith(('.py', '.gin')) and '__pycache__' not in name}


def pattern(glob):
    """A Bazel glob as a regular expression: `**` is any number of folders, `*` stays within one."""
    pieces = {'**/': '(?:.*/)?', '**': '.*', '*': '[^/]*'}
    return re.compile(''.join(pieces.get(piece, re.escape(piece)) for piece in re.split(r'(\*\*/|\*\*|\*)', glob)))


class Build:
    """The targets of a BUILD file, read by running it with these rules in place of Bazel's."""

    RULES = ('py_library', 'py_binary', 'py_test', 'filegroup')

    def __init__(self, text, root=ROOT):
        self.root = root
        self.targets = {}
        rules = {rule: self._adder(rule) for rule in self.RULES}
        nothing = dict.fromkeys(('package', 'licenses', 'exports_files'), lambda *args, **settings: None)
        names = {**rules, **nothing, 'glob': self._glob}
        names['load'] = lambda label, *wanted: names.update(
            {name: runpy.run_path(str(self.root / label.removeprefix('//:')))[name] for name in wanted}
        )
        exec(compile(text, 'BUILD', 'exec'), names)

    def _adder(self, rule):
        def add(*, name, **settings):
            assert name not in self.targets, f'BUILD: two targets are called {name}'
            self.targets[name] = {'rule': rule, **settings}

        return add

    def _glob(self, include, exclude=(), allow_empty=False):
        files = [str(path.relative_to(self.root)) for path in self._folders(include) if path.is_file()]
        wanted, unwanted = [pattern(g) for g in include], [pattern(g) for g in exclude]
        return sorted(
            name
            for name in files
            if any(w.fullmatch(name) for w in wanted) and not any(u.fullmatch(name) for u in unwanted)
        )

    def _folders(self, include):
        tops = {glob.split('/')[0] for glob in include}
        return {p for top in tops for p in (self.root / top).rglob('*') if '__pycache__' not in p.parts}

    def files(self, *rules):
        """(target, file) pairs of the srcs and data of the targets of these rules, labels left out."""
        return [
            (name, file)
            for name, target in self.targets.items()
            if target['rule'] in (rules or self.RULES)
            for file in [*target.get('srcs', ()), *target.get('data', ())]
            if not file.startswith(':')
        ]


@pytest.fixture(scope='module')
def build():
    return Build((ROOT / 'BUILD').read_text(encoding='utf-8'))


def test_every_source_file_belongs_to_a_target(build):
    orphans = sorted(source_files() - {file for _, file in build.files()})
    assert not orphans, f'in no target of BUILD: {", ".join(orphans)}'


def test_every_file_of_a_target_exists(build):
    missing = sorted(f'{file} (of :{name})' for name, file in build.files() if not (ROOT / file).is_file())
    assert not missing, f'named in BUILD but not there: {", ".join(missing)}'


def test_every_dependency_is_a_target(build):
    for name, target in build.targets.items():
        labels = [
            *target.get('deps', ()),
            *(f for f in [*target.get('srcs', ()), *target.get('data', ())] if f[0] == ':'),
        ]
        unknown = [label for label in labels if label.removeprefix(':') not in build.targets]
        assert not unknown, f'BUILD: :{name} names {unknown}, which is no target'


def test_no_file_belongs_to_two_libraries(build):
    owner = {}
    for name, file in build.files('py_library', 'py_binary'):
        if file.endswith('.py'):
            assert file not in owner, f'{file} belongs to :{owner[file]} and to :{name}'
            owner[file] = name


def test_every_test_file_is_a_test_target(build):
    tests = {file for name, file in build.files('py_test')}
    assert {name for name in source_files() if re.search(r'^tests/(.*/)?test_[^/]*\.py$', name)} <= tests


def test_nothing_runs_with_gin_as_a_package(build):
    """Bazel puts an __init__.py into every folder unless told not to; one in gin/ would shadow the gin library."""
    runnable = {name: t for name, t in build.targets.items() if t['rule'] in ('py_binary', 'py_test')}
    assert runnable and all(target.get('legacy_create_init') is False for target in runnable.values())


def test_targets_are_the_layers(build):
    layers = {name: set(allowed) for name, allowed in LAYERS.items()}
    targets = {name: target for name, target in build.targets.items() if name in layers}
    deps = {name: {label.removeprefix(':') for label in target['deps']} for name, target in targets.items()}
    assert deps == layers
    wrong = [
        (name, file)
        for name, file in build.files('py_library', 'py_binary')
        if file.startswith('seg/') and file.split('/')[1].removesuffix('.py').replace('__init__', 'errors') != name
    ]
    assert not wrong


def documented():
    """What each layer may import according to the table of docs/design.md."""
    groups = {'base': TABLE['BASE'], 'parts': TABLE['PARTS']}
    rows = re.findall(r'^\| (`seg/.*?) \|.*\| ?(.*?) ?\|$', (ROOT / 'docs/design.md').read_text(encoding='utf-8'), re.M)
    found = {}
    for places, names in rows:
        allowed = set(found) if names == 'everything above' else set()
        for name in names.split(', ') if names not in ('', 'everything above') else ():
            allowed.update(groups.get(name, [name]))
        found.update(dict.fromkeys(re.findall(r'`seg/(\w+)(?:\.py)?`', places), allowed))
    return found


def test_the_documented_layers_are_the_layers():
    assert documented() == {name: set(allowed) for name, allowed in LAYERS.items()}


def test_an_orphan_is_found(tmp_path):
    """The check itself: a file outside every glob, and one that a glob must not reach across folders."""
    for name in ('a/x.py', 'a/deep/y.py', 'b/z.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    flat = Build('py_library(name = "a", srcs = glob(["a/*.py"]))', tmp_path)
    assert flat.files() == [('a', 'a/x.py')]
    deep = Build('py_library(name = "a", srcs = glob(["a/**/*.py"], exclude = ["**/x.py"]))', tmp_path)
    assert deep.files() == [('a', 'a/deep/y.py')]
