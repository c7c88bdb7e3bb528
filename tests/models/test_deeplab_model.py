"""DeepLab v3+ as a whole: shapes, padding, batch size, compilers, backends, replicas."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.models.deeplab_v3plus import deeplab_v3plus
from tests.models import small_deeplab


@pytest.fixture(scope='module')
def model():
    return small_deeplab.make()


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def as_tensors(batch):
    return {name: tf.constant(value) for name, value in batch.items()}


def test_outputs_and_parts(model):
    batch = small_deeplab.batch(2, (40, 53))
    training = model(batch, training=True)
    assert {name: (value.shape, value.dtype) for name, value in training.items()} == {
        'logits': ((2, 40, 53, 7), 'float32'),
        'aux_logits': ((2, 40, 53, 7), 'float32'),
    }
    del batch['seed']
    assert set(model(batch, training=False)) == {'logits'}
    assert list(model.parts) == ['backbone', 'decoder', 'head', 'aux_head']
    owned = [id(v) for part in model.parts.values() for v in part.variables]
    assert sorted(owned) == sorted(id(v) for v in model.variables)


def test_is_built_on_return_with_stable_paths():
    models = [small_deeplab.make(), small_deeplab.make()]
    for name in models[0].parts:
        paths = [[v.path for v in model.parts[name].variables] for model in models]
        assert paths[0] and paths[0] == paths[1] and len(set(paths[0])) == len(paths[0])
    before = len(models[0].variables)
    models[0](small_deeplab.batch(2, (32, 32)), training=True)
    assert len(models[0].variables) == before


@pytest.mark.parametrize(('precision', 'dtype'), [('mixed_bfloat16', 'float32'), ('float64', 'float64')])
def test_precisions(precision, dtype, policy):
    policy(precision)
    model = small_deeplab.make()
    # Sizes above 256 that bfloat16 cannot hold: were they cast, the valid region would change.
    batch = small_deeplab.batch(2, (33, 33))
    outputs = model(as_tensors(batch), training=True)
    assert {value.dtype for value in outputs.values()} == {tf.as_dtype(dtype)}
    assert model.backbone.compute_dtype == precision.removeprefix('mixed_')
    assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.bfloat16
def test_size_is_not_rounded(policy):
    """In bfloat16, 257 would become 256, and the row of cells at pixel 256 would drop out of the mean."""
    policy('mixed_bfloat16')
    model = small_deeplab.make(norm='group')
    small_deeplab.randomize(model)
    batch = small_deeplab.batch(1, (272, 16))
    logits = []
    for height in (256, 257):
        batch['size'] = np.int32([[height, 16]])
        logits.append(model(batch, training=False)['logits'])
    assert not np.array_equal(*logits)


def test_result_does_not_depend_on_the_batch(model):
    small_deeplab.randomize(model)
    batch = small_deeplab.batch(4, (48, 40))
    whole = model(batch, training=False)['logits']
    alone = [model({k: v[i : i + 1] for k, v in batch.items()}, training=False)['logits'] for i in range(4)]
    np.testing.assert_allclose(whole, tf.concat(alone, 0), atol=1e-4)


DECODERS = [{}, {'separable': True}, {'detail_channels': 8}, {'image_pooling': False}]


@pytest.mark.parametrize(
    ('settings', 'training', 'decoder'),
    [
        *(({}, False, decoder) for decoder in DECODERS),
        ({'output_stride': 8}, False, {}),
        ({'norm': 'group'}, True, {}),
        ({'norm': 'frozen'}, True, {'separable': True}),
    ],
    ids=str,
)
def test_logits_do_not_depend_on_the_canvas(settings, training, decoder):
    """With statistics that make something of zeros, whatever lies around the images, in training as well."""
    decoder = {'dropout': 0.0, **decoder}
    model = small_deeplab.make(**settings, decoder_settings=decoder)
    small_deeplab.randomize(model)
    run = tf.function(lambda batch: model(batch, training=training))
    batch = small_deeplab.batch(2, (112, 96))
    batch['size'] = size = np.int32([[60, 50], [49, 96]])
    found = run(as_tensors(batch))
    for i, (height, width) in enumerate(size):
        for canvas in ((height, width), (64, 96)):
            alone = {key: value[i : i + 1] for key, value in batch.items()}
            alone['image'] = alone['image'][:, : canvas[0], : canvas[1]]
            for name, value in run(as_tensors(alone)).items():
                expected = value[0, :height, :width].numpy()
                got = found[name][i, :height, :width]
                # A head of logits is float32 and there are up to 40 layers before it.
                np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def test_padded_training_crops_have_zeros_around_the_image():
    """Under the batch's own statistics, too, no pixel value of the padding counts."""
    model = small_deeplab.make(decoder_settings={'dropout': 0.0})
    small_deeplab.randomize(model)
    batch = small_deeplab.batch(2, (64, 64))
    batch['size'] = np.int32([[40, 64], [64, 33]])
    first = model(as_tensors(batch), training=True)['logits']
    batch['image'][0, 40:], batch['image'][1, :, 33:] = 7, -1000
    second = model(as_tensors(batch), training=True)['logits']
    np.testing.assert_allclose(first[0, :40], second[0, :40], atol=1e-5)
    np.testing.assert_allclose(first[1, :, :33], second[1, :, :33], atol=1e-5)


@pytest.mark.parametrize('training', [False, True])
def test_compiled_equals_plain(training):
    model = small_deeplab.make()
    small_deeplab.randomize(model)
    batch = as_tensors(small_deeplab.batch(2, (33, 47)))
    plain = model(batch, training=training)
    compiled = tf.function(lambda batch: model(batch, training=training), jit_compile=True)(batch)
    for name, value in plain.items():
        np.testing.assert_allclose(compiled[name], value, atol=1e-4 * max(1, np.abs(value).max()))


def test_equals_jax(model, tmp_path):
    small_deeplab.randomize(model)
    batch = small_deeplab.batch(2, (37, 48))
    batch['size'] = np.int32([[37, 30], [20, 48]])
    weights = {variable.path: variable.numpy() for variable in model.variables}
    np.savez(tmp_path / 'in.npz', **{f'batch:{k}': v for k, v in batch.items()}, **weights)
    command = [sys.executable, '-m', 'tests.models.small_deeplab', tmp_path / 'in.npz', tmp_path / 'out.npz']
    subprocess.run(command, check=True, env={**os.environ, 'KERAS_BACKEND': 'jax'})
    theirs = np.load(tmp_path / 'out.npz')
    # Normalised by the batch, tiny differences grow with the depth; by stored statistics they do not.
    for mode, tolerance in (('evaluation', 1e-4), ('training', 1e-3)):
        for name, value in model(batch, training=mode == 'training').items():
            np.testing.assert_allclose(theirs[f'{mode}:{name}'], value, atol=tolerance)


def test_one_replica_equals_two(tmp_path):
    """One step in float64: losses, gradients and moving statistics of 4 images on 1 replica and of 2 + 2 on two."""
    command = [sys.executable, '-m', 'tests.models.replicas', tmp_path / 'out.json']
    subprocess.run(command, check=True, env={**os.environ, 'KERAS_BACKEND': 'tensorflow'})
    differences = json.loads((tmp_path / 'out.json').read_text())
    assert len(differences) > 50 and max(differences.values()) < 1e-9, differences


def test_refuses_multi_grid_where_there_is_none():
    from seg import registry

    with registry.temporary():

        @registry.backbones.register('without_multi_grid')
        def without_multi_grid(*, output_stride):
            """A backbone without multi-grid."""

        with pytest.raises(
            UserError, match=r'models.deeplab_v3plus.multi_grid = \(1, 2, 4\): @backbones.without_multi_grid'
        ):
            deeplab_v3plus(num_classes=2, backbone=without_multi_grid, decoder=None, head=None, multi_grid=(1, 2, 4))


def test_unknown_norm():
    with pytest.raises(UserError, match="models.deeplab_v3plus.norm = 'batch'"):
        small_deeplab.make(norm='batch')
