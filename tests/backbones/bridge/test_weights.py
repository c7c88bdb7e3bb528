"""init.weights of other libraries' models, from a server that stands for theirs."""

import json

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet
from keras.src.legacy.saving import legacy_h5_format
from safetensors.numpy import save

from seg.backbones.bridge import keras_applications, keras_hub, zeromodels
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.weights import tensor_file
from seg.weights.warm_start import Init
from tests.backbones.bridge import timm_reference
from tests.http_files import closed_url, served
from tests.models import small_deeplab

NAME = 'mobilenetv3_small_050'


@pytest.fixture(autouse=True)
def _downloads(tmp_path, monkeypatch):
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')


def keras_backbone():
    return keras_applications.keras_applications(output_stride=16, norm=NormFactory(), name='mobilenet', alpha=0.25)


def zoo_backbone():
    return zeromodels.zeromodels(output_stride=16, norm=NormFactory(), name=NAME)


def hub_backbone():
    return keras_hub.keras_hub(output_stride=16, norm=NormFactory(), name=NAME)


def message(net, weights):
    with pytest.raises(UserError) as info:
        Init(weights=weights).apply({'backbone': net})
    return str(info.value)


def test_keras_applications(tmp_path, monkeypatch):
    """Loaded once, by Keras' own code, from the file that Keras names."""
    source = keras_applications.source_model('mobilenet', None, alpha=0.25)
    small_deeplab.randomize(source)
    with h5py.File(tmp_path / 'file.h5', 'w') as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, source)
    name = 'mobilenet_2_5_224_tf_no_top.h5'
    net = keras_backbone()
    with served({f'/{name}': (tmp_path / 'file.h5').read_bytes()}) as server:
        monkeypatch.setattr(mobilenet, 'BASE_WEIGHT_PATH', f'{server.url}/')
        report = Init(weights='imagenet').apply({'backbone': net})
        assert Init(weights='imagenet').apply({'backbone': net}) == report and len(server.requests) == 1
    assert_complete(report, net)
    assert list(report.files) == [name] and report.files[name].startswith('sha256:')
    expected = {variable.path: variable.numpy() for variable in source.variables}
    assert len(expected) == len(net.variables)
    for variable in net.variables:
        np.testing.assert_array_equal(variable, expected[variable.path])


def test_without_network(tmp_path, monkeypatch):
    """One message: the address, and where to put the file by hand."""
    url = closed_url()
    monkeypatch.setattr(mobilenet, 'BASE_WEIGHT_PATH', f'{url}/')
    text = message(keras_backbone(), 'imagenet')
    assert f'{url}/mobilenet_2_5_224_tf_no_top.h5' in text and f'{tmp_path}/models/mobilenet_2_5' in text


def test_weights_of_another_library_are_refused():
    assert "'timm:resnet50.a1_in1k'" in message(keras_backbone(), 'timm:resnet50.a1_in1k')


def test_files_of_keras_applications(tmp_path):
    """A path is read by Keras as well."""
    source = keras_applications.source_model('mobilenet', None, alpha=0.25)
    small_deeplab.randomize(source)
    path = str(tmp_path / 'net.weights.h5')
    source.save_weights(path)
    net = keras_backbone()
    report = Init(weights=path).apply({'backbone': net})
    assert_complete(report, net)
    assert list(report.files) == ['net.weights.h5']
    np.testing.assert_array_equal(net.variables[0], source.variables[0])
    for content in (b'no file', (tmp_path / 'net.weights.h5').read_bytes()[:1000]):
        (tmp_path / 'bad.h5').write_bytes(content)
        assert 'bad.h5' in message(net, str(tmp_path / 'bad.h5'))


@pytest.mark.parametrize('name', ['net.pth', 'missing.h5'])
def test_files_that_keras_applications_do_not_read(name, tmp_path):
    (tmp_path / 'net.pth').write_bytes(b'')
    assert name in message(keras_backbone(), str(tmp_path / name))


@pytest.mark.parametrize('backbone', ['zeromodels', 'keras_hub'])
def test_files_of_timm(backbone, tmp_path):
    """A file that was downloaded by hand, under any name; a checkpoint of this project remains one."""
    pytest.importorskip(backbone)
    net = {'zeromodels': zoo_backbone, 'keras_hub': hub_backbone}[backbone]()
    path = tmp_path / 'mine.safetensors'
    path.write_bytes(save(tensors()))
    report = Init(weights=str(path)).apply({'backbone': net})
    assert_complete(report, net)
    assert list(report.files) == ['mine.safetensors']
    assert_stem(net, tensors()['conv_stem.weight'].transpose(2, 3, 1, 0))
    path.write_bytes(path.read_bytes()[:-9])
    assert 'mine.safetensors' in message(net, str(path))
    ours = {f'model/backbone/{variable.path}': np.full(variable.shape, 2.0, 'float32') for variable in net.variables}
    tensor_file.write(str(path), ours, {})
    Init(weights=str(path)).apply({'backbone': net})
    assert_stem(net, 2.0)


@pytest.mark.parametrize('backbone', ['zeromodels', 'keras_hub'])
def test_files_of_larger_networks_are_refused(backbone, tmp_path):
    """Neither library asks for tensors that its model does not have."""
    pytest.importorskip(backbone)
    net = {'zeromodels': zoo_backbone, 'keras_hub': hub_backbone}[backbone]()
    own = tensors()
    more = {f'blocks.9.{i}.conv.weight': np.zeros((1, 1, 1, 1), 'float32') for i in range(len(own) // 4)}
    path = tmp_path / 'large.safetensors'
    path.write_bytes(save(own | more))
    text = message(net, str(path))
    assert str(path) in text and NAME in text and 'larger' in text


@pytest.mark.parametrize('weights', ['timm:', 'hf:net', 'hf:../../etc', 'timm:résnet', 'hf:a\0b/c', 'timm:net.h5/x'])
def test_malformed_names(weights):
    pytest.importorskip('zeromodels')
    text = message(zoo_backbone(), weights)
    assert f'init.weights = {weights!r}' in text and "'hf:ORG/NAME'" in text


def test_endpoint_without_scheme(monkeypatch):
    pytest.importorskip('zeromodels')
    monkeypatch.setenv('HF_ENDPOINT', 'huggingface.co')
    assert "HF_ENDPOINT is 'huggingface.co'" in message(zoo_backbone(), 'timm:net')


def test_other_parts_than_the_backbone(tmp_path):
    net = keras_backbone()
    net.save_weights(tmp_path / 'net.weights.h5')
    init = Init(weights=str(tmp_path / 'net.weights.h5'), parts=('backbone', 'rpn'))
    rpn = keras.Sequential()
    rpn.published = net.published
    with pytest.raises(UserError, match=r"init.parts = \('backbone', 'rpn'\)"):
        init.apply({'backbone': net, 'rpn': rpn})


def assert_complete(report, net):
    assert f': loaded {len(net.variables)} of {len(net.variables)} variables' in report


def assert_stem(net, expected):
    stem = next(variable for variable in net.variables if variable.shape == (3, 3, 3, 16))
    np.testing.assert_array_equal(stem, expected)


def tensors():
    shapes = json.loads(str(np.load(timm_reference.FILE)[f'{NAME}/shapes']))
    return timm_reference.weights(shapes)


@pytest.mark.parametrize(('weights', 'repository'), [('timm:net.x', 'timm/net.x'), ('hf:some/net', 'some/net')])
def test_timm(weights, repository, tmp_path, monkeypatch):
    pytest.importorskip('zeromodels')
    net = zoo_backbone()
    with served({f'/{repository}/resolve/main/model.safetensors': save(tensors())}) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        report = Init(weights=weights).apply({'backbone': net})
        assert Init(weights=weights).apply({'backbone': net}) == report and len(server.requests) == 1
    assert_complete(report, net)
    (name,) = report.files
    assert name == f'{repository.replace("/", "--")}--model.safetensors'
    assert_stem(net, tensors()['conv_stem.weight'].transpose(2, 3, 1, 0))


def test_timm_through_keras_hub(monkeypatch, capfd):
    """The library's conversion prints nothing."""
    pytest.importorskip('keras_hub')
    net = hub_backbone()
    with served({'/timm/net/resolve/main/model.safetensors': save(tensors())}) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        report = Init(weights='timm:net').apply({'backbone': net})
    assert_complete(report, net)
    assert_stem(net, tensors()['conv_stem.weight'].transpose(2, 3, 1, 0))
    assert capfd.readouterr().out == ''


def test_keras_hub(tmp_path, monkeypatch):
    """The library's own file of ImageNet, which has the layers within their blocks."""
    pytest.importorskip('keras_hub')
    whole = keras_hub.library_model(NAME)
    small_deeplab.randomize(whole)
    whole.save_weights(tmp_path / 'net.weights.h5')
    content = (tmp_path / 'net.weights.h5').read_bytes()
    net = hub_backbone()
    with served({'/keras/mobilenet_v3_small_050_imagenet/resolve/main/model.weights.h5': content}) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        report = Init(weights='imagenet').apply({'backbone': net})
    assert_complete(report, net)
    ours, theirs = (
        {float(np.sum(variable.numpy(), dtype=np.float64)) for variable in model.variables} for model in (net, whole)
    )
    assert ours < theirs  # Without the convolution in front of the classifier.


def test_weights_that_keras_hub_lacks_are_refused():
    pytest.importorskip('keras_hub')
    assert "'timm:NAME'" in message(hub_backbone(), 'zeromodels:resnet50_a1_in1k')
    net = keras_hub.keras_hub(output_stride=32, norm=NormFactory(), name='resnet34')
    assert "init.weights = 'imagenet': resnet34" in message(net, 'imagenet')


def test_zeromodels(tmp_path, monkeypatch):
    """A file of the library is that of the classifier."""
    pytest.importorskip('zeromodels')
    whole = zeromodels.source_model(NAME, kind='MobileNetV3ImageClassify')
    small_deeplab.randomize(whole)
    whole.save_weights(tmp_path / 'net.weights.h5')
    content = (tmp_path / 'net.weights.h5').read_bytes()
    net = zoo_backbone()
    with served({'/zeromodels/mobilenetv3_small_050_lamb_in1k/resolve/main/model.weights.h5': content}) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        report = Init(weights='imagenet').apply({'backbone': net})
    assert_complete(report, net)
    expected = {tuple(variable.shape): variable.numpy() for variable in whole.variables}
    assert_stem(net, expected[3, 3, 3, 16])


def test_file_of_another_model(tmp_path, monkeypatch):
    pytest.importorskip('zeromodels')
    other = {name: value for name, value in tensors().items() if not name.startswith('blocks.2')}
    contents = {
        '/timm/other/resolve/main/model.safetensors': save(other),
        '/timm/broken/resolve/main/model.safetensors': b'no tensors',
    }
    with served(contents) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        for name in ('other', 'broken'):
            text = message(zoo_backbone(), f'timm:{name}')
            assert f"'timm:{name}'" in text and f'models/timm--{name}--model.safetensors' in text
        text = message(zoo_backbone(), 'timm:absent')
    assert f'{server.url}/timm/absent/resolve/main/model.safetensors' in text and '404' in text


def test_group_normalisation_has_too_few(tmp_path, monkeypatch):
    """Without the moving statistics, less than 90 % of the arrays fit."""
    pytest.importorskip('zeromodels')
    net = zeromodels.zeromodels(output_stride=16, norm=NormFactory('group'), name=NAME)
    with served({'/timm/net/resolve/main/model.safetensors': save(tensors())}) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        text = message(net, 'timm:net')
    assert 'At least 90% must fit' in text and 'moving_mean' in text
