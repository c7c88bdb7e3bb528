"""The memory of a step, from its graph."""

import tensorflow as tf

from seg.engine.tensorflow import graph_memory

MIB = 2**18  # Floats.


def peak(function):
    with tf.Graph().as_default() as graph:
        function()
    return graph_memory.peak(graph) / 2**20


def test_tensors_that_are_read_later_exist_together():
    def chain(keeps):
        value, kept = tf.random.uniform([MIB]), []
        for _ in range(5):
            value = tf.cumsum(value)
            kept.append(value)
        return tf.add_n(kept) if keeps else value

    assert 1.9 < peak(lambda: chain(False)) < 2.1, 'a tensor and the next one'
    assert 4.9 < peak(lambda: chain(True)) < 6.1


def test_views_and_results_in_place_need_nothing():
    def elementwise():
        value = tf.cumsum(tf.random.uniform([MIB]))
        return tf.nn.relu(tf.reshape(tf.identity(value), [2, -1]) * 2.0 + 1.0)

    assert 1.9 < peak(elementwise) < 2.1


def test_a_gradient_reads_what_the_forward_pass_has_made():
    def step():
        value = start = tf.random.uniform([MIB])
        for _ in range(8):
            value = tf.tanh(value)
        return tf.gradients(tf.reduce_sum(value), start)

    assert 8 < peak(step) < 11
