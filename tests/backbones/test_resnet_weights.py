"""ImageNet weights of ResNets: Keras Applications' network to the last figure, torchvision's by its names."""

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import resnet as keras_resnet
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from seg.backbones import resnet_weights
from seg.backbones.resnet import resnet18, resnet50, resnet101
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.registry import backbones
from seg.structures import PAD_PIXEL
from seg.weights.warm_start import Init
from tests.backbones.test_resnet import randomize
from tests.weights.torch_files import write_zip

NORM = NormFactory('sync')
SIZES = [(64, 96), (65, 71)]


@pytest.mark.parametrize(
    ('builder', 'theirs', 'variables'),
    [
        (resnet50, keras.applications.ResNet50, 265),
        pytest.param(resnet101, keras.applications.ResNet101, 520, marks=pytest.mark.slow),
    ],
)
def test_equals_keras_applications(tmp_path, builder, theirs, variables):
    """Every map, on even and odd sizes, after loading a file as Keras writes it: within 1e-4 of the largest value."""
    reference = theirs(weights=None, include_top=False, input_shape=(None, None, 3))
    randomize(reference)
    path = str(tmp_path / 'resnet_notop.h5')
    with h5py.File(path, 'w') as file:
        save_weights_to_hdf5_group(file, reference)
    names = ['conv1_relu', *(f'conv{i}_block{n}_out' for i, n in zip((2, 3, 4, 5), DEPTHS[builder], strict=True))]
    reference = keras.Model(reference.input, [reference.get_layer(name).output for name in names])

    model = builder(output_stride=32, norm=NORM, variant='keras')
    report = Init(weights=path).apply({'backbone': model, 'head': keras.layers.Dense(2)})
    assert report.endswith(
        f'resnet_notop.h5 ({len(h5_names(path))} tensors): loaded {variables} of {variables} variables'
    )
    for size in SIZES:
        image = np.random.default_rng(1).uniform(0, 255, (1, *size, 3)).astype('float32')
        expected = reference(keras.applications.resnet.preprocess_input(image.copy()), training=False)
        for (name, got), value in zip(model(image, training=False).items(), expected, strict=True):
            value = np.asarray(value)
            assert got.shape == value.shape
            assert np.abs(got - value).max() < 1e-4 * np.abs(value).max(), (size, name)


DEPTHS = {resnet18: (2, 2, 2, 2), resnet50: (3, 4, 6, 3), resnet101: (3, 4, 23, 3)}


def h5_names(path):
    names = []
    with h5py.File(path, 'r') as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


@pytest.mark.parametrize('name', ['resnet50', 'resnet101'])
def test_address_and_checksum_are_those_of_keras(name):
    published = resnet_weights.published(name, 'keras', (3, 4, 6, 3), 1.0)
    file = f'{name}_weights_tf_dim_ordering_tf_kernels_notop.h5'
    assert published.url == keras_resnet.BASE_WEIGHTS_PATH + file
    assert published.checksum == 'md5:' + keras_resnet.WEIGHTS_HASHES[name][1]


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'resnet101'])
def test_address_of_torchvision_has_the_checksum_in_its_name(name):
    published = resnet_weights.published(name, 'torchvision', (3, 4, 6, 3), 1.0)
    checksum = published.checksum.removeprefix('sha256:')
    assert published.url == f'https://download.pytorch.org/models/{name}-{checksum}.pth' and len(checksum) == 8


def torch_state(model, depths, convolutions):
    """A state dict with torchvision's names, kernels as [K, C, k, k], of the values of our model's variables."""
    places = {'conv1': ('stem_conv', 'bn1')}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            ours, theirs = f'stage{stage + 2}_block{block + 1}', f'layer{stage + 1}.{block}'
            for i in range(1, convolutions + 1):
                places[f'{theirs}.conv{i}'] = (f'{ours}_conv{i}', f'{theirs}.bn{i}')
            if block == 0 and (stage > 0 or convolutions == 3):
                places[f'{theirs}.downsample.0'] = (f'{ours}_shortcut', f'{theirs}.downsample.1')
    values = {variable.path: variable.numpy() for variable in model.variables}
    state = {'fc.weight': np.zeros((10, 4), 'f4'), 'fc.bias': np.zeros(10, 'f4')}
    for conv, (ours, norm) in places.items():
        state[f'{conv}.weight'] = values.pop(f'{ours}/conv/kernel').transpose(3, 2, 0, 1)
        state[f'{norm}.weight'] = values.pop(f'{ours}/norm/gamma')
        state[f'{norm}.bias'] = values.pop(f'{ours}/norm/beta')
        state[f'{norm}.running_mean'] = values.pop(f'{ours}/norm/moving_mean')
        state[f'{norm}.running_var'] = values.pop(f'{ours}/norm/moving_variance')
        state[f'{norm}.num_batches_tracked'] = np.array(7)
    assert not values
    return state


@pytest.mark.parametrize(
    ('builder', 'convolutions'), [(resnet18, 2), (resnet50, 3), pytest.param(resnet101, 3, marks=pytest.mark.slow)]
)
def test_torchvision_file(tmp_path, builder, convolutions):
    """Names as torchvision's state dicts have them; the classifier is left out."""
    source, target = (builder(output_stride=16, norm=NORM, width=0.125) for _ in range(2))
    randomize(source)
    path = str(tmp_path / 'resnet.pth')
    write_zip(path, torch_state(source, DEPTHS[builder], convolutions))
    report = Init(weights=path, parts=('backbone',)).apply({'backbone': target})
    assert f'loaded {len(source.variables)} of {len(source.variables)} variables' in report
    for one, other in zip(source.variables, target.variables, strict=True):
        np.testing.assert_array_equal(one, other, one.path)


def message(path, model, **settings):
    with pytest.raises(UserError) as info:
        Init(weights=str(path), **settings).apply({'backbone': model})
    return str(info.value)


def test_file_of_the_other_variant(tmp_path):
    pth, h5 = str(tmp_path / 'resnet.pth'), str(tmp_path / 'resnet.h5')
    write_zip(pth, {'conv1.weight': np.zeros((8, 3, 7, 7), 'f4')})
    with h5py.File(h5, 'w') as file:
        file.attrs['layer_names'] = [b'conv1_conv']
        file['conv1_conv/conv1_conv/kernel:0'] = np.zeros((7, 7, 3, 8), 'f4')
    plain, keras_one = (resnet50(output_stride=16, norm=NORM, width=0.125, variant=v) for v in ('torchvision', 'keras'))
    assert "backbones.resnet50.variant = 'keras'" in message(h5, plain)
    assert "backbones.resnet50.variant = 'torchvision'" in message(pth, keras_one)
    text = message(h5, resnet18(output_stride=16, norm=NORM, width=0.125))
    assert "not for the torchvision variant of resnet18: it has no 'conv1.weight'." in text and 'variant = ' not in text


def test_file_of_another_width(tmp_path):
    path = str(tmp_path / 'resnet.pth')
    write_zip(path, torch_state(resnet18(output_stride=16, norm=NORM, width=0.125), (2, 2, 2, 2), 2))
    text = message(path, resnet18(output_stride=16, norm=NORM, width=0.25))
    assert 'loaded 0 of 100 variables' in text
    assert 'backbone/stem_conv/conv/kernel (7, 7, 3, 16), (7, 7, 3, 8) in the file' in text
    assert 'Choose the backbone and the settings that the weights were made for' in text


def test_no_published_weights(monkeypatch):
    """A stem or a width of one's own: the message names backbones that have some."""
    entries = [backbones.get('resnet18')]
    monkeypatch.setattr(backbones, 'entries', lambda: entries)
    for model in (
        resnet18(output_stride=16, norm=NORM, stem='beta', width=0.125),
        resnet18(output_stride=16, norm=NORM, width=0.125),
    ):
        assert message('imagenet', model) == (
            'init.weights: backbone resnet18, as it is configured, has no published weights. Backbones that have '
            'published ones: resnet18'
        )


def test_weights_of_another_normalisation(tmp_path):
    """Group normalisation has variables of the same names, but no place for the statistics."""
    path = str(tmp_path / 'resnet.pth')
    source, target = (resnet18(output_stride=16, norm=NormFactory(kind), width=0.125) for kind in ('sync', 'group'))
    write_zip(path, torch_state(source, (2, 2, 2, 2), 2))
    text = message(path, target)
    assert 'loaded 60 of 60 variables; no variables for 40 arrays of the file: backbone/stem_conv/norm/moving_' in text
    assert 'At least 90% must fit' in text


@pytest.mark.parametrize('size', SIZES)
def test_dilated_keras_variant_is_the_strided_one_in_between(size):
    image = np.random.default_rng(1).uniform(0, 255, (1, *size, 3)).astype('float32')
    outputs = {}
    for stride in (8, 16, 32):
        model = resnet50(output_stride=stride, norm=NORM, width=0.125, variant='keras')
        randomize(model)
        outputs[stride] = model(image, training=False)
    for stride in (8, 16):
        for name, strided in outputs[32].items():
            step = max(1, 2 ** int(name[1]) // stride)
            dilated = outputs[stride][name][:, ::step, ::step]
            np.testing.assert_allclose(dilated, strided, rtol=1e-3, atol=1e-4 * np.max(strided))


def test_keras_variant_has_pixels_and_epsilon_of_its_own():
    model = resnet50(output_stride=16, norm=NORM, width=0.125, variant='keras')
    layer = model.get_layer('pixel_norm')
    np.testing.assert_allclose(layer(np.float32([[[[124, 117, 104]]]])), [[[[0.32, 0.221, 0.061]]]], atol=1e-5)
    assert np.abs(layer(np.float32([[[PAD_PIXEL]]]))).max() == 0
    assert model.get_layer('stem_conv').norm.epsilon == 1.001e-5
