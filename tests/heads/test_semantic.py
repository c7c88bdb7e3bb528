"""Semantic heads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.heads.semantic import fcn, semantic
from seg.layers.norm import NormFactory

BUILDERS = {
    'semantic': lambda: semantic(num_classes=5),
    'fcn': lambda: fcn(num_classes=5, norm=NormFactory(), channels=8),
}
SEEDS = tf.constant([[1, 2], [3, 4]], tf.int32)


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize(
    ('precision', 'dtype'), [('float32', 'float32'), ('mixed_bfloat16', 'float32'), ('float64', 'float64')]
)
def test_logits_are_float32_or_better(name, precision, dtype, policy):
    policy(precision)
    head = BUILDERS[name]()
    logits = head(tf.ones([2, 3, 4, 6], head.compute_dtype), seed=SEEDS, training=True)
    assert logits.shape == (2, 3, 4, 5) and logits.dtype == dtype


@pytest.mark.parametrize('name', BUILDERS)
def test_paths(name):
    heads = [BUILDERS[name](), BUILDERS[name]()]
    for head in heads:
        head.build((None, 3, 4, 6))
    paths = [[variable.path for variable in head.variables] for head in heads]
    assert paths[0] == paths[1] and len(set(paths[0])) == len(paths[0])


def test_starts_near_uniform():
    head = semantic(num_classes=5)
    logits = head(np.random.default_rng(0).normal(size=(1, 8, 8, 64)).astype('float32'))
    assert 0 < np.abs(logits).max() < 0.5


def test_fcn_drops_out_by_seed():
    head = fcn(num_classes=5, norm=NormFactory('group'), channels=32, dropout=0.5)
    x = tf.ones([2, 3, 4, 6])
    one, same, other = (head(x, seed=seed, training=True) for seed in (SEEDS, SEEDS, SEEDS + 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    with pytest.raises(UserError, match='heads.fcn.dropout = -1'):
        fcn(num_classes=5, norm=NormFactory(), dropout=-1)
