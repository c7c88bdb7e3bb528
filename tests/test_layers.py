"""Imports within seg/ follow layers.bzl, and each outside library is imported in certain layers only.

The imports are read off the source, so that an import inside a function counts as well.
"""

import ast
import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

MAY_IMPORT = {name: set(allowed) for name, allowed in runpy.run_path(str(ROOT / 'layers.bzl'))['LAYERS'].items()}
MAY_IMPORT['__init__'] = set(MAY_IMPORT)  # In functions: see test_importing_the_package_loads_no_library.

# Where TensorFlow lives: its engine, what makes batches, and the kernels behind the door. JAX lives in its engine. All
# else runs on every backend of Keras, or without one, and so may not name any.
JAX = 'seg/engine/jax/'
TENSORFLOW = (
    'seg/augments/',
    'seg/datasets/',
    'seg/inspection/',
    'seg/engine/jax/devices.py',  # Hides the accelerators from it.
    'seg/engine/tensorflow/',
    'seg/inputs/',
    'seg/masks/ragged.py',
    'seg/ops/cpu_kernels.py',
    'seg/prediction/data_set.py',
    'seg/export/formats.py',
    'seg/export/heads.py',
    'seg/export/image_bytes.py',
    'seg/export/tracing.py',
    'seg/export/warmup.py',
)
BACKENDS = ('tensorflow', 'jax', 'torch')
GIN_USERS = {'config', 'gin_spelling', 'gin_statements', 'registry'}
GONE = ('tf_keras', 'tensorflow.compat.v1', 'tensorflow.estimator', 'tensorflow_estimator', 'tensorflow.keras')


def own(pattern):
    return sorted(path for path in ROOT.glob(pattern) if '__pycache__' not in path.parts)


def place(path, line):
    return f'{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}'


def layer(path):
    """The module or folder of seg/ that a file belongs to: 'ops' for seg/ops/boxes.py, 'config' for seg/config.py."""
    first = path.relative_to(ROOT / 'seg').parts[0]
    return first.removesuffix('.py')


def dotted(node):
    """'tf.compat.v1' for that attribute expression, None for anything but names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f'{left}.{node.attr}'
    return None


def imports(source, package=()):
    """Every module that a source text reaches for, as (line, full dotted name).

    Counts `import a.b`, `from a import b` (as a.b), relative imports (resolved against `package`), imports by a name
    that stands in the text (`importlib.import_module('a')`), and attributes of imported modules (`tf.compat.v1`).
    """
    found, aliases, tree = [], {}, ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found.append((node.lineno, name.name))
                aliases[name.asname or name.name.split('.')[0]] = name.name if name.asname else name.name.split('.')[0]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[: len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(filter(None, (base, node.module)))
            for name in node.names:
                found.append((node.lineno, f'{module}.{name.name}'))
                aliases[name.asname or name.name] = f'{module}.{name.name}'
        elif isinstance(node, ast.Call) and dotted(node.func) in (
            'importlib.import_module',
            'import_module',
            '__import__',
        ):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node)):
            first, _, rest = name.partition('.')
            if first in aliases:
                found.append((node.lineno, f'{aliases[first]}.{rest}'))
    return found


def file_imports(path):
    return imports(path.read_text(encoding='utf-8'), path.relative_to(ROOT).parts[:-1])


def within(name, modules):
    return any(name == module or name.startswith(module + '.') for module in modules)


def uses(path, module):
    """Whether a file imports the module, or something of it."""
    return any(within(target, (module,)) for _, target in file_imports(path))


def layer_faults(name, found):
    """Faults of the imports `found` of the layer `name`."""
    faults = []
    for line, target in found:
        top, *rest = target.split('.')
        if top == 'seg' and rest and rest[0] in MAY_IMPORT and rest[0] not in {name, *MAY_IMPORT[name]}:
            allowed = ', '.join(sorted(MAY_IMPORT[name])) or 'nothing'
            faults.append((line, f'seg.{name} imports {target}; of seg it may import: {allowed}'))
    return faults


def frameworks_of(path):
    """The frameworks that a file of seg/ may name."""
    path = str(path.relative_to(ROOT))
    return [framework for framework, places in (('tensorflow', TENSORFLOW), ('jax', JAX)) if path.startswith(places)]


def library_faults(name, found, frameworks=()):
    """Lines of complaint about outside libraries; `frameworks` are those that the file may name."""
    faults = []
    for line, target in found:
        if within(target, ('gin',)) and name not in GIN_USERS:
            faults.append((line, f'{target}: only seg/config.py, seg/gin_*.py and seg/registry import gin'))
        if within(target, BACKENDS) and not within(target, frameworks):
            message = 'use keras and keras.ops, which reach the backend through seg/ops/dispatch.py, or the engine'
            faults.append((line, f'{target}: {message}'))
        if within(target, GONE):
            faults.append((line, f'{target}: use Keras 3 (`import keras`) and TensorFlow 2'))
    return faults


def report(faults_by_path):
    lines = sorted({f'{place(path, line)}: {text}' for path, faults in faults_by_path for line, text in faults})
    assert not lines, 'imports against the layering of docs/design.md:\n  ' + '\n  '.join(lines)


def test_every_package_has_a_rule():
    layers = {layer(path) for path in own('seg/**/*.py')}
    unknown = sorted(layers - set(MAY_IMPORT))
    assert not unknown, f'new under seg/: {", ".join(unknown)}; say in layers.bzl what each may import'


def test_imports_point_one_way():
    paths = [path for path in own('seg/**/*.py') if layer(path) in MAY_IMPORT]
    report((path, layer_faults(layer(path), file_imports(path))) for path in paths)


def test_libraries_are_imported_where_allowed():
    report((path, library_faults(layer(path), file_imports(path), frameworks_of(path))) for path in own('seg/**/*.py'))


def test_the_kernels_have_one_user_which_imports_them_when_needed():
    users = [path for path in own('seg/**/*.py') if uses(path, 'seg.ops.cpu_kernels')]
    assert [str(path.relative_to(ROOT)) for path in users] == ['seg/ops/dispatch.py']
    header = ast.parse(users[0].read_text(encoding='utf-8')).body
    assert not [node for node in header if isinstance(node, ast.ImportFrom) and node.module == 'seg.ops']


@pytest.mark.parametrize('folder', ['tests', 'experiments', 'benchmarks'])
def test_no_retired_libraries_elsewhere(folder):
    report(
        (
            path,
            [
                (n, f'{target}: use Keras 3 and TensorFlow 2')
                for n, target in file_imports(path)
                if within(target, GONE)
            ],
        )
        for path in own(f'{folder}/**/*.py')
    )


def test_the_rules_have_no_cycle():
    """Each layer stands below all that it may import."""
    order = list(MAY_IMPORT)
    wrong = [(name, other) for name in order for other in MAY_IMPORT[name] if other not in order[: order.index(name)]]
    assert not wrong


def test_gin_folder_is_no_package():
    """An __init__.py there would shadow the gin library when working in the checkout."""
    assert not own('gin/**/*.py')


@pytest.mark.parametrize(
    ('name', 'source'),
    [
        ('losses', 'from seg.tasks import semantic'),
        ('losses', 'import seg.executor.executor'),
        ('losses', 'from ..tasks import semantic'),
        ('losses', 'def f():\n  from seg import models'),
        ('heads', 'from seg.backbones import resnet'),
        ('tasks', 'from seg.executor import run_config'),
        ('executor', 'from seg.tasks import semantic'),
        ('executor', 'import seg.config'),
        ('ops', 'from seg.registry import losses'),
        ('experiment', 'import seg\nseg.seg_main.main()'),
    ],
)
def test_layer_rule_catches(name, source):
    assert layer_faults(name, imports(source, ('seg', 'losses')))


@pytest.mark.parametrize(
    ('name', 'source'),
    [
        ('models', 'import tensorflow as tf'),
        ('layers', 'def f():\n  import jax.numpy as jnp'),
        ('ops', 'import importlib\nimportlib.import_module("tensorflow")'),
        ('tasks', 'import gin'),
        ('tasks', 'from gin import config'),
        ('executor', 'import tensorflow as tf\ntf.compat.v1.disable_eager_execution()'),
        ('executor', 'import tensorflow as tf\ntf.estimator.Estimator'),
        ('executor', 'import tensorflow.compat.v1 as tf'),
        ('executor', 'from tensorflow.compat import v1'),
        ('executor', 'import tf_keras'),
        ('metrics', 'from tensorflow import keras'),
    ],
)
def test_library_rule_catches(name, source):
    assert library_faults(name, imports(source))


def test_rules_leave_the_usual_alone():
    source = (
        'import keras\nimport seg.errors\nfrom seg.layers import norm\nfrom seg.registry import losses\nx = y.tasks'
    )
    assert not layer_faults('losses', imports(source)) and not library_faults('losses', imports(source))
