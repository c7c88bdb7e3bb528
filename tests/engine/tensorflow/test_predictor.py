"""Prediction with the weights as constants of the graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.backbones.efficientnet_lite import efficientnet_lite0
from seg.engine.tensorflow.devices import mirrored
from seg.engine.tensorflow.predictor import Predictor
from tests.backbones.small import small_bottlenecks
from tests.models import small_deeplab


class Logits:
    """A task that predicts the output of its model."""

    def __init__(self, **settings):
        self.model = small_deeplab.make(**settings)
        small_deeplab.randomize(self.model)
        self.checkpoint_items = self.model.parts

    def predict(self, batch):
        return {'logits': self.model(batch, training=False)['logits']}


def images(count):
    made = small_deeplab.batch(count, (65, 81))
    made['size'] = np.int32([[65, 81], [48, 50]])[:count]  # The second image is smaller than its canvas.
    return {key: made[key] for key in ('image', 'size')}


@pytest.mark.parametrize('backbone', [small_bottlenecks, efficientnet_lite0], ids=lambda backbone: backbone.__name__)
@pytest.mark.parametrize(('precision', 'bound'), [('float32', 1e-5), ('mixed_bfloat16', 0.05)])
def test_predictions_are_those_of_the_variables(backbone, precision, bound):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        task, batch = Logits(backbone=backbone), images(2)
        predictor = Predictor(task, 'x', tf.distribute.OneDeviceStrategy('CPU:0'), jit_compile=False)
        found = predictor(batch)
        wanted = tf.function(task.predict)({key: tf.constant(value) for key, value in batch.items()})['logits'].numpy()
    finally:
        keras.config.set_dtype_policy(before)
    largest = np.abs(wanted).max()
    for i, (height, width) in enumerate(batch['size']):
        np.testing.assert_allclose(
            found.get('logits', i, (height, width)), wanted[i, :height, :width], rtol=0, atol=bound * largest
        )


def test_weights_are_those_of_the_start():
    task, batch = Logits(), images(2)
    predictor = Predictor(task, 'x', tf.distribute.OneDeviceStrategy('CPU:0'), jit_compile=False)
    before = predictor(batch).get('logits', 0)
    for variable in task.model.variables:
        variable.assign(variable * 0)
    np.testing.assert_array_equal(predictor(batch).get('logits', 0), before)
    np.testing.assert_allclose(  # A new shape is a new graph.
        predictor(images(1)).get('logits', 0), before, rtol=0, atol=1e-5 * np.abs(before).max()
    )


def test_several_devices():
    strategy = mirrored(('CPU:0', 'CPU:1'))
    with strategy.scope():
        task = Logits()
    batch = images(2)
    predictor = Predictor(task, 'x', strategy, jit_compile=False)
    found = predictor(batch)
    wanted = tf.function(task.predict)({key: tf.constant(value) for key, value in batch.items()})['logits'].numpy()
    for i, (height, width) in enumerate(batch['size']):
        np.testing.assert_allclose(
            found.get('logits', i, (height, width)),
            wanted[i, :height, :width],
            rtol=0,
            atol=1e-5 * np.abs(wanted).max(),
        )
