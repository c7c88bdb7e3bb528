"""Stateless noise: its statistics, and the same bits everywhere."""

import os
import subprocess
import sys

import numpy as np
import tensorflow as tf

from seg.ops.random import random_bits


def words(seeds, salt=1, count=4096):
    return np.asarray(random_bits(tf.constant(seeds, tf.int32), salt, count))


def uniform(*args, **kwargs):
    return words(*args, **kwargs) / 2.0**32


def test_uniform():
    u = uniform([[i, 7 * i] for i in range(64)])
    n = u.size
    assert abs(u.mean() - 1 / 2) < 4 * (1 / 12 / n) ** 0.5
    assert abs(u.var() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5
    counts = np.histogram(u, bins=256, range=(0, 1))[0]
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi2 - 255) < 5 * (2 * 255) ** 0.5


def test_every_bit_is_fair():
    bits = words([[3, 4], [-1, 2**31 - 1]], count=2**15)
    ones = [((bits >> k) & 1).mean() for k in range(32)]
    assert max(abs(share - 0.5) for share in ones) < 5 * 0.5 / bits.size**0.5


def test_neighbouring_seeds_salts_and_positions_are_independent():
    base = uniform([[5, 6]], count=2**15)[0]
    others = {
        'first': uniform([[6, 6]], count=2**15)[0],
        'second': uniform([[5, 7]], count=2**15)[0],
        'swapped': uniform([[6, 5]], count=2**15)[0],
        'salt': uniform([[5, 6]], salt=2, count=2**15)[0],
        'next position': np.roll(base, 1),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / 2**7.5, name


def test_no_position_is_special_to_a_seed():
    """Also where position and seed are the same number."""
    drawn = words([[i, j] for i in range(20) for j in range(20)], count=20).reshape(20, 20, 20)
    same = drawn[:, range(20), range(20)] / 2.0**32
    assert abs(same.mean() - 1 / 2) < 4 * (1 / 12 / same.size) ** 0.5
    assert len(np.unique(same)) == same.size


def test_split_and_length_change_nothing():
    seeds = [[1, 2], [3, 4], [5, 6], [7, 8]]
    whole = words(seeds)
    np.testing.assert_array_equal(whole, np.concatenate([words(seeds[:2]), words(seeds[2:])]))
    np.testing.assert_array_equal(whole[:, :100], words(seeds, count=100))


def test_compiled_and_jax_draw_the_same_bits(tmp_path):
    seeds = [[1, 2], [-5, 2**31 - 1], [0, 0]]
    expected = words(seeds, salt=2**32 - 1)
    compiled = tf.function(lambda s: tf.bitcast(random_bits(s, 2**32 - 1, 4096), tf.int32), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(seeds, tf.int32)).numpy().view(np.uint32), expected)
    code = (
        'import jax, numpy as np, sys\n'
        'from seg.ops.random import random_bits\n'
        f'np.save(sys.argv[1], jax.jit(lambda s: random_bits(s, 2**32 - 1, 4096))(np.array({seeds}, np.int32)))'
    )
    path = tmp_path / 'bits.npy'
    subprocess.run([sys.executable, '-c', code, path], check=True, env={**os.environ, 'KERAS_BACKEND': 'jax'})
    np.testing.assert_array_equal(np.load(path), expected)
