"""EfficientNet-Lite against the PyTorch port of TensorFlow's weights."""

import keras
import numpy as np
import pytest

from seg.backbones import efficientnet_lite
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.weights import published
from tests.backbones import efficientnet_reference as reference


def build(variant, output_stride=32):
    return getattr(efficientnet_lite, f'efficientnet_lite{variant}')(output_stride=output_stride, norm=NormFactory())


def load(net, tensors):
    arrays = net.published.convert(tensors)
    assert sorted(arrays) == sorted(variable.path for variable in net.variables)
    for variable in net.variables:
        variable.assign(arrays[variable.path])


def logits(net, tensors, pixels):
    """The port's classifier, in numpy, on our last map."""
    x = np.asarray(net(pixels, training=False)['c5'], np.float64) @ tensors['_conv_head.weight'][:, :, 0, 0].T
    scale = tensors['_bn1.weight'] / np.sqrt(tensors['_bn1.running_var'] + 1e-3)
    x = np.clip((x - tensors['_bn1.running_mean']) * scale + tensors['_bn1.bias'], 0, 6)
    return x.mean((1, 2)) @ tensors['_fc.weight'].T + tensors['_fc.bias']


def stored_weights(variant):
    with np.load(reference.REFERENCE) as file:
        names, shapes = file[f'names{variant}'], file[f'shapes{variant}']
        expected = file[f'logits{variant}']
    shapes = {
        str(name): tuple(int(side) for side in shape.split(',') if side)
        for name, shape in zip(names, shapes, strict=True)
    }
    return reference.random_weights(shapes, variant), expected


@pytest.mark.parametrize('variant', [0, 1, 2])
def test_logits_are_those_of_the_port(variant):
    tensors, expected = stored_weights(variant)
    net = build(variant)
    load(net, tensors)
    np.testing.assert_allclose(
        logits(net, tensors, reference.images()), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
    )


def test_dilated_maps_agree_with_the_strided_ones_where_both_have_a_cell():
    tensors, _ = stored_weights(0)
    strided, dilated = build(0), build(0, output_stride=8)
    load(strided, tensors)
    load(dilated, tensors)
    pixels = reference.images()
    coarse, fine = (np.asarray(net(pixels, training=False)['c5']) for net in (strided, dilated))
    np.testing.assert_allclose(fine[:, ::4, ::4], coarse, atol=1e-4 * np.abs(coarse).max())


@pytest.mark.parametrize(
    ('variant', 'weights'), [(0, 2_998_304), (1, 3_774_624), (2, 4_413_488), (3, 6_496_128), (4, 11_259_376)]
)
def test_number_of_weights_without_the_classifier(variant, weights):
    # With the classifier these are 4.7, 5.4, 6.1, 8.2 and 13.0 M, as published: 320 * 1280 + 2 * 2 * 1280 + 1281 * 1000
    # more for variant 0. Moving statistics are counted here as well.
    assert build(variant).count_params() == weights


def test_weights_of_another_variant_are_refused():
    tensors, _ = stored_weights(1)
    with pytest.raises(UserError, match='init.weights: efficientnet_lite0 has 16 blocks.*the file has 21'):
        build(0).published.convert(tensors)


def test_output_stride_is_checked():
    with pytest.raises(UserError, match='output_stride = 4: backbones.efficientnet_lite'):
        build(0, output_stride=4)


def test_numbers_are_finite_and_small_in_bfloat16():
    keras.config.set_dtype_policy('mixed_bfloat16')
    tensors, _ = stored_weights(0)
    net = build(0)
    load(net, tensors)
    half = np.asarray(keras.ops.cast(net(reference.images(), training=False)['c5'], 'float32'))
    keras.config.set_dtype_policy('float32')
    net = build(0)
    load(net, tensors)
    exact = np.asarray(net(reference.images(), training=False)['c5'])
    # Kernels that add in half precision lose about sqrt(terms) units a layer: 50 layers of up to 1,152 terms of 2^-9
    # each would come to a correlation of 0.9. Those that add in float32 give 0.99 and more.
    assert np.corrcoef(half.ravel(), exact.ravel())[0, 1] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize('variant', [0, 1, 2])
def test_published_weights_give_the_logits_of_the_port(variant):
    """Wants the extra 'pretrained', torch and efficientnet-lite-pytorch."""
    torch = pytest.importorskip('torch')
    pytest.importorskip('efficientnet_lite_pytorch')
    net = build(variant)
    arrays = published.find({'backbone': net}).arrays
    for variable in net.variables:
        variable.assign(arrays[variable.path])
    path = published._in_package(net.published.package_file)
    tensors = {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}
    side = 225
    port = reference.port(variant, side)
    port.load_state_dict(torch.load(path, weights_only=True))
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.float32)
    expected = reference.port_logits(port, pixels)
    error = np.abs(logits(net, tensors, pixels) - expected).max() / np.abs(expected).max()
    print(f'efficientnet_lite{variant}: largest difference of the logits {error:.1e} of the largest logit')
    assert error < 1e-3
