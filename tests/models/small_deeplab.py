"""A small DeepLab v3+ for tests; as a program, runs it on the backend of the environment.

KERAS_BACKEND=jax python -m tests.models.small_deeplab in.npz out.npz
"""

import sys

import numpy as np

from seg.decoders.deeplab_v3plus import deeplab_v3plus as decoder
from seg.heads.semantic import fcn, semantic
from seg.models.deeplab_v3plus import deeplab_v3plus
from seg.registry import decoders, heads, temporary
from tests.backbones.small import small


def make(decoder_settings=None, **settings):
    """Builds it through the registries, from parts whose settings are bound as gin would bind them."""
    with temporary():

        @decoders.register('narrow')
        def narrow_decoder(*, backbone, output_stride, norm):
            """The decoder with few channels."""
            few = {'aspp_channels': 16, 'low_level_channels': 8, 'decoder_channels': 16, **(decoder_settings or {})}
            return decoder(backbone=backbone, output_stride=output_stride, norm=norm, **few)

        @heads.register('narrow')
        def narrow_head(*, num_classes, norm):
            """The auxiliary head with few channels."""
            dropout = (decoder_settings or {}).get('dropout', 0.1)
            return fcn(num_classes=num_classes, norm=norm, channels=16, dropout=dropout)

        parts = {'backbone': small, 'decoder': narrow_decoder, 'head': semantic, 'aux_head': narrow_head}
        return deeplab_v3plus(num_classes=7, **{**parts, **settings})


def randomize(model):
    """Sets every variable to noise that keeps activations of order one."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        kind = variable.path.rpartition('/')[2]
        if kind == 'kernel':
            variable.assign(rng.normal(size=variable.shape, scale=(1 / np.prod(variable.shape[:3])) ** 0.5))
        elif kind in ('gamma', 'moving_variance'):
            variable.assign(rng.uniform(0.7, 1.3, size=variable.shape))
        else:
            variable.assign(rng.normal(size=variable.shape, scale=0.1))


def batch(count, size):
    rng = np.random.default_rng(1)
    return {
        'image': rng.uniform(0, 255, (count, *size, 3)).astype('float32'),
        'size': np.tile(np.int32(size), (count, 1)),
        'seed': rng.integers(0, 2**31 - 1, (count, 2)).astype('int32'),
    }


if __name__ == '__main__':
    import jax

    given = np.load(sys.argv[1])
    model = make()
    for variable in model.variables:
        variable.assign(given[variable.path])
    inputs = {name.partition(':')[2]: given[name] for name in given.files if name.startswith('batch:')}
    results = {}
    state = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]
    for mode in ('evaluation', 'training'):
        run = jax.jit(
            lambda batch, training=mode == 'training': model.stateless_call(*state, batch, training=training)[0]
        )
        results.update({f'{mode}:{name}': np.asarray(value) for name, value in run(inputs).items()})
    np.savez(sys.argv[2], **results)
