"""Backbones, decoders and heads of plugins are held against their contract where a model takes them."""

import keras
import pytest

from seg import registry
from seg.errors import UserError
from seg.models.parts import build_backbone, call_decoder, call_head
from seg.registry import backbones, decoders, heads

MAPS = {'c2': keras.KerasTensor((2, 8, 8, 4)), 'c5': keras.KerasTensor((2, 1, 1, 16))}


def message(kind, built, call):
    """The message about a part that a plugin's builder returns; it names the setting, the part and the file."""
    with registry.temporary(), pytest.raises(UserError) as caught:

        @kind.register('mine')
        def mine(*, backbone=None, output_stride=16):
            """Mine."""
            return built

        call(kind.check(mine, 'models.net.part'))
    text = str(caught.value)
    assert text.startswith(f'models.net.part: @{kind.kind}.mine (') and 'test_parts.py:' in text
    return text


class Returns(keras.layers.Layer):
    """A layer that returns what a function makes of its first argument."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x, size=None, seed=None, training=False):
        return self.function(x)


class WithoutSize(keras.layers.Layer):
    def call(self, features, seed=None, training=False):
        return {'features': features['c2']}


@pytest.mark.parametrize(
    ('decoder', 'fault'),
    [
        (WithoutSize(), "failed: TypeError: got an unexpected keyword argument 'size'"),
        (Returns(lambda x: x['c2']), 'returned a tensor of shape (2, 8, 8, 4)'),
        (Returns(lambda x: x), 'returned a dict with c2: a tensor of shape (2, 8, 8, 4), c5: '),
        (Returns(lambda x: {'features': x['c2'][..., 0]}), 'features: a tensor of shape (2, 8, 8)'),
        (Returns(lambda x: {'features': x['c9']}), ": KeyError: 'c9'"),
        (Returns(lambda x: {'features': keras.ops.reshape(x['c2'], (5,))}), ': ValueError: Cannot reshape'),
    ],
)
def test_decoders(decoder, fault):
    text = message(decoders, None, lambda factory: call_decoder(factory, decoder, MAPS, ['features']))
    assert fault in text and 'call(features, size, seed, training)' in text and 'docs/plugins.md on decoders' in text
    if 'KeyError' in fault or 'reshape' in fault:
        assert text.count('test_parts.py:') == 2, 'the line of the failure'


@pytest.mark.parametrize(
    ('head', 'fault'),
    [
        (keras.layers.Conv2D(3, 1), "failed: TypeError: got an unexpected keyword argument 'seed'"),
        (Returns(lambda x: x), 'returned a tensor of shape (2, 8, 8, 4) from'),
        (Returns(lambda x: x[:, ::2, ::2, :3]), 'returned a tensor of shape (2, 4, 4, 3) from'),
        (Returns(lambda x: {'logits': x}), 'returned a dict with logits: '),
    ],
)
def test_heads(head, fault):
    text = message(heads, None, lambda factory: call_head(factory, head, MAPS['c2'], 3))
    assert fault in text and 'call(x, seed, training)' in text and 'docs/plugins.md on heads' in text


def test_the_layers_of_the_contract():
    with registry.temporary():

        @heads.register('mine')
        def mine():
            """Mine."""

        factory = heads.check(mine, 'models.net.head')
        assert (
            call_decoder(factory, Returns(lambda x: {'p2': x['c2'], 'p5': x['c5']}), MAPS, ['p2'])['p5'].shape[1] == 1
        )
        call_head(factory, Returns(lambda x: x), MAPS['c2'], 4)


def backbone(strides):
    image = keras.Input((None, None, 3))
    pool = {stride: keras.layers.MaxPooling2D(stride)(image) for stride in set(strides)}
    return keras.Model(image, {f'c{i}': pool[stride] for i, stride in enumerate(strides, start=2)})


@pytest.mark.parametrize(
    ('built', 'fault'),
    [
        (backbone((4, 8, 16, 32)), 'returned c5 at stride 32; expected no stride above the supplied output_stride, 16'),
        (backbone, 'returned a function; expected a keras.models.Model'),
    ],
)
def test_backbones(built, fault):
    assert fault in message(backbones, built, lambda factory: build_backbone(factory, factory.slot, output_stride=16))
