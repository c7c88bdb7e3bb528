"""Compares the executor's steps with a bare `tf.function` step of the same Keras model: the cost of the loop.

    python benchmarks/loop.py

Both train DeepLab v3+ with ResNet-50 (output stride 16) on batches of 2 scenes of 512 x 512 pixels in float32, with the
same loss, L2 penalty and momentum SGD. The executor reads real input through its pipeline, checks every loss for NaN,
measures the gradient norm and the wait for data, and writes metrics and summaries; the bare step gets one constant
batch. The two alternate in one process, so that a change in the machine's speed affects both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import seg  # noqa: F401  # isort: skip  Before TensorFlow: turns on oneDNN.
import keras
import tensorflow as tf

from seg import modes
from seg.engine import set_up
from seg.optimizers.decay import decays

SETTINGS = (
    'BACKBONE=@backbones.resnet50',
    'models.deeplab_v3plus.output_stride=16',
    'experiment.optimizer=@optimizers.sgd',
    'optimizers.sgd.schedule=@schedules.poly',
    'schedules.poly.base_lr=0.007',
    'schedules.poly.reference_batch=16',
    'decoders.deeplab_v3plus.aspp_channels=256',
    'decoders.deeplab_v3plus.decoder_channels=256',
    'OptimizerStep.l2=1e-4',
    'OptimizerStep.clip_norm=None',
    'OptimizerStep.ema_decay=None',
)


def bare_step(model, optimizer, num_classes: int):
    """A training step as written by hand."""
    variables = model.trainable_variables
    optimizer.build(variables)
    kernels = [v for v in variables if decays(v)]

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            logits = model({key: batch[key] for key in ('image', 'size', 'seed')}, training=True)['logits']
            target = tf.one_hot(batch['label'], num_classes)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
            loss += 1e-4 * tf.add_n([tf.nn.l2_loss(v.value) for v in kernels])
        gradients = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        return loss

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=3, help='steps of each side per round')
    parser.add_argument('--size', type=int, default=512)
    parser.add_argument('--batch', type=int, default=2)
    arguments = parser.parse_args()

    engine = set_up('one', 'float32')
    with tempfile.TemporaryDirectory() as folder:
        length = (f'TRAIN_STEPS={10**6}', f'BATCH_SIZE={arguments.batch}', f'CROP=({arguments.size}, {arguments.size})')
        params = (*SETTINGS, *length)
        made = modes.build(['gin/deeplab_shapes.gin'], model_dir=folder, mode='train', gin_params=params, engine=engine)
        executor, source = made.executor, made.task.training_input(made.train_data, arguments.batch)
        batch = next(iter(source.make()))
        optimizer = keras.optimizers.SGD(0.007, momentum=0.9)
        bare = bare_step(made.task.model, optimizer, made.info.num_classes)

        done = executor.prepare()
        loop = executor.trainer.loop(source, done)
        executor.training.open(done, 10**6, '')
        done = executor.advance(loop, done, 1, source)  # Tracing.
        bare(batch)
        ratios, times = [], []
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            done = executor.advance(loop, done, arguments.steps, source)
            middle = time.perf_counter()
            for _ in range(arguments.steps):
                float(bare(batch))
            end = time.perf_counter()
            times.append(((middle - start) / arguments.steps, (end - middle) / arguments.steps))
            ratios.append((middle - start) / (end - middle))
            print(
                f'executor {times[-1][0]:.3f} s, bare {times[-1][1]:.3f} s per step, ratio {ratios[-1]:.3f}', flush=True
            )
    ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    print(
        f'median of {arguments.rounds} rounds: executor {ours:.3f} s, bare {theirs:.3f} s, ratio of each round '
        f'{statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})'
    )


if __name__ == '__main__':
    main()
