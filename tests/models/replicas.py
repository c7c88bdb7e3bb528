"""Compares a training step on one replica with one on two, in float64; a program, since replicas are fixed at start.

python -m tests.models.replicas out.json
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from seg.engine.tensorflow import devices
from tests.models import small_deeplab


def step(model, batch, labels):
    """Sums of the losses of these images, and gradients of the sum."""
    with tf.GradientTape() as tape:
        total = 0
        for logits in model(batch, training=True).values():
            total += tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return total, tape.gradient(total, [variable.value for variable in model.trainable_variables])


def run(names):
    strategy = tf.distribute.MirroredStrategy(names)
    batch = small_deeplab.batch(4, (33, 40))
    batch['image'] = batch['image'].astype('float64')
    batch['size'] = np.int32([[33, 40], [20, 40], [33, 10], [7, 9]])
    labels = np.random.default_rng(2).integers(0, 7, (4, 33, 40))
    share = 4 // len(names)

    def mine(context):
        part = slice(context.replica_id_in_sync_group * share, (context.replica_id_in_sync_group + 1) * share)
        return {name: tf.constant(value[part]) for name, value in batch.items()}, tf.constant(labels[part])

    inputs = strategy.experimental_distribute_values_from_function(mine)
    with strategy.scope():
        model = small_deeplab.make()
        small_deeplab.randomize(model)

    @tf.function
    def everywhere():
        def replica(given):
            with devices.replica(strategy):
                total, gradients = step(model, *given)
            return tf.distribute.get_replica_context().all_reduce('SUM', [total, *gradients])

        return strategy.run(replica, (inputs,))

    values = [np.asarray(strategy.experimental_local_results(value)[0]) for value in everywhere()]
    names = ['loss', *(f'gradient of {variable.path}' for variable in model.trainable_variables)]
    moving = {variable.path: np.asarray(variable.value) for variable in model.non_trainable_variables}
    return {**dict(zip(names, values, strict=True)), **moving}


if __name__ == '__main__':
    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    logical = [device.name for device in tf.config.list_logical_devices('CPU')]
    one, two = run(logical[:1]), run(logical)
    off = {name: float(np.abs(one[name] - two[name]).max() / max(1, np.abs(one[name]).max())) for name in one}
    with open(sys.argv[1], 'w') as file:
        json.dump(off, file)
