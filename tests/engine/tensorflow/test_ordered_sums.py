"""Gradients of a tensor that is used several times are added in one order, also once Grappler has seen the graph."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop, context

from seg.engine.tensorflow import ordered_sums


@pytest.fixture
def ordered():
    ordered_sums.use()
    yield
    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace)


def test_gradients_are_added_in_one_order(ordered):
    parts = [tf.random.stateless_normal((50, 7), (i, 1)) * 10.0**i for i in range(4)]

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.stack([tf.reduce_sum(part * x) for part in parts]))
        return tape.gradient(loss, x)

    context.context().enable_run_metadata()
    found = gradient(tf.ones((50, 7)))
    nodes = [node for graph in context.context().export_run_metadata().partition_graphs for node in graph.node]
    context.context().disable_run_metadata()
    assert nodes and not [node.name for node in nodes if node.op == 'AddN']
    orders = [sum(order[1:], order[0]) for order in (parts, parts[::-1])]
    assert any(np.array_equal(found, order) for order in orders), 'in the order of the uses'
    assert not np.array_equal(*orders), 'the order shows in the bits'
