"""Takes the steps of test_equality.py on N logical CPU devices and keeps all numbers in a file.

A process of its own: TensorFlow's collective operations admit one number of devices per process.
"""

import dataclasses
import gc
import os
import sys

os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
sys.path.insert(0, os.getcwd())

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from seg.engine import set_up  # noqa: E402
from seg.engine.optimizer_step import OptimizerStep  # noqa: E402
from seg.executor.evaluator import Evaluator  # noqa: E402
from seg.metrics.coco_ap import CocoAP  # noqa: E402
from tests.executor import runs  # noqa: E402
from tests.metrics import scenes  # noqa: E402

# Plain gradient descent with rate 1: the change of a weight is its gradient.
PLAIN = (
    'experiment.optimizer=@optimizers.sgd',
    'optimizers.sgd.momentum=0.0',
    'optimizers.sgd.schedule=@schedules.poly',
    'schedules.poly.base_lr=1.0',
    'schedules.poly.warmup_steps=0',
)
AUXILIARY = ('models.deeplab_v3plus.aux_head=@heads.fcn', 'heads.fcn.channels=16')
# One case has the blocks of a real backbone; tracing takes long.
CASES = {  # name: gin file, settings, steps, precision
    'sync': (runs.SHAPES, (*AUXILIARY, 'models.deeplab_v3plus.norm="sync"'), 1, 'float64'),
    'frozen': (runs.SHAPES, (*AUXILIARY, 'models.deeplab_v3plus.norm="frozen"'), 1, 'float64'),
    'group': (runs.SHAPES, (*AUXILIARY, 'models.deeplab_v3plus.norm="group"'), 1, 'float64'),
    'bottlenecks': (runs.SHAPES, (*AUXILIARY, 'BACKBONE=@backbones.small_bottlenecks'), 1, 'float64'),
    'float32': (runs.SHAPES, (*AUXILIARY, 'schedules.poly.base_lr=0.001'), 4, 'float32'),
    'instances': (runs.INSTANCES, (), 1, 'float64'),
    'cascade': (runs.INSTANCES, (*runs.CASCADE, 'models.cascade_rcnn.norm="sync"'), 1, 'float64'),
}
SETTINGS = OptimizerStep(l2=1e-4, ema_decay=0.9, part_rates={'backbone': 0.5})
FROZEN = {'cascade': ('backbone/stage2_*',)}
# Four devices repeat three of the cases.
CASES_OF = {1: tuple(CASES), 2: tuple(CASES), 4: ('sync', 'float32', 'instances')}
BATCHES: dict[tuple[str, str], dict[str, np.ndarray]] = {}  # By gin file and precision; filled by `one_case`.


def one_case(model_dir, replicas, name):
    """Takes steps on one ragged batch. Returns the loop's result, all variables before and after, task and batch."""
    gin_file, settings, steps, precision = CASES[name]
    made = runs.build(model_dir, *PLAIN, *settings, replicas=replicas, precision=precision, gin_files=(gin_file,))
    if (kind := (gin_file, precision)) not in BATCHES:  # To make one takes as long as to trace a step.
        BATCHES[kind] = runs.ragged_batch(made.task, made.train_data, precision)
    batch = BATCHES[kind]
    step = dataclasses.replace(SETTINGS, frozen=FROZEN.get(name))
    trainer = made.executor.engine.trainer(made.task, made.optimizer, step)
    before = trainer.to_host()
    result = trainer.loop(runs.fixed_input([batch] * steps), 0)(steps)
    return result, before, trainer.to_host(), made.task, batch


def plain_gradients(task, before, batch):
    """The gradients, by variable, of the mean over the labelled pixels of the whole batch, written plainly."""
    layers = task.checkpoint_items.items()
    for name, layer in layers:
        for variable in layer.variables:
            variable.assign(before[f'model/{name}/{variable.path}'])
    batch = {key: tf.constant(value) for key, value in batch.items()}
    trained = {f'model/{name}/{v.path}': v.value for name, layer in layers for v in layer.trainable_variables}
    with tf.GradientTape() as tape:
        outputs = task.model({key: batch[key] for key in ('image', 'size', 'seed')}, training=True)
        counted = tf.cast((batch['label'] != 255) & (batch['weight'] > 0)[:, None, None], tf.float64)
        label = tf.where(batch['label'] == 255, 0, batch['label'])
        loss = 0.0
        for key, scale in (('logits', 1.0), ('aux_logits', 0.4)):
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(label, outputs[key])
            loss += scale * tf.reduce_sum(cross_entropy * counted) / tf.reduce_sum(counted)
        for name, variable in trained.items():
            if name.endswith('kernel'):
                loss += 1e-4 / 2 * tf.reduce_sum(variable**2)
    return {name: tf.convert_to_tensor(value).numpy() for name, value in tape.gradient(loss, trained).items()}


def main(replicas: int, model_dir: str, path: str) -> None:
    set_up('one' if replicas == 1 else f'mirrored:{replicas}')
    # To optimize a graph takes longer than one step of it.
    tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})
    numbers = {}
    for name in CASES_OF[replicas]:
        gc.collect()  # Models and graphs are cycles: those of all cases together would take 2 GB.
        result, before, after, task, batch = one_case(model_dir, replicas, name)
        numbers |= {
            f'{name}/result/{key}': value
            for key, value in result._asdict().items()
            if key not in ('wait', 'terms', 'counted')
        }
        numbers |= {f'{name}/before/{key}': value for key, value in before.items()}
        numbers |= {f'{name}/after/{key}': value for key, value in after.items()}
        if (replicas, name) == (1, 'sync'):
            numbers |= {f'gradient/{key}': value for key, value in plain_gradients(task, before, batch).items()}
    for labels, gin_file in (('', runs.SHAPES), ('instances/', runs.INSTANCES)):
        made = runs.build(model_dir, replicas=replicas, precision='float64', gin_files=(gin_file,))
        evaluator = Evaluator(made.task, made.executor.engine)
        evaluation = evaluator.evaluate(made.task.evaluation_input(made.eval_data, 4), 2)
        numbers |= {f'{labels}metrics/{key}': np.float64(value) for key, value in evaluation.metrics.items()}
        numbers |= {f'{labels}figures/{tag}': pixels for tag, pixels, _ in evaluation.figures}
        if replicas == 1 and not labels:
            alone = evaluator.evaluate(made.task.evaluation_input(made.eval_data, 1))
            numbers |= {f'alone/{key}': np.float64(value) for key, value in alone.metrics.items()}
    # A `RowMetric`: 6 images in batches of 4, one of which could not be read.
    task = scenes.Finder(CocoAP(num_classes=4, class_names=('a', 'b', 'c', 'd')))
    source = scenes.source(*scenes.make(0, images=6), 4, unread=(1,))
    evaluation = Evaluator(task, made.executor.engine).evaluate(source, 2)
    numbers |= {f'rows/{key}': np.float64(value) for key, value in evaluation.metrics.items()}
    numbers |= {f'row_figures/{tag}': pixels for tag, pixels, _ in evaluation.figures}
    np.savez(path, **numbers)


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    os._exit(0)  # As seg_main does: on four logical devices TensorFlow's own way out may not end.
