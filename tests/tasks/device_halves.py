"""What tasks and metrics compute on the device, on the backend of the environment.

KERAS_BACKEND=jax python -m tests.tasks.device_halves in.npz out.npz

computes it where TensorFlow cannot be imported, takes a training step with the engine jax, and writes the numbers.
"""

import sys

if __name__ == '__main__':
    sys.modules['tensorflow'] = None

import keras
import numpy as np

from seg.engine.optimizer_step import OptimizerStep
from seg.losses.ohem_cross_entropy import ohem_cross_entropy
from seg.losses.rois import box_class, box_regression, mask
from seg.losses.rpn import rpn_box, rpn_score
from seg.losses.softmax_cross_entropy import softmax_cross_entropy
from seg.metrics.base import RowMetric
from seg.metrics.coco_ap import CocoAP
from seg.metrics.mean_iou import MeanIoU
from seg.optimizers.sgd import SGD
from seg.registry import losses, models, temporary
from seg.structures import DatasetInfo, Input
from seg.tasks.instance import Instance
from seg.tasks.semantic import Semantic
from tests.models import small_deeplab, small_rcnn

SIZE = (48, 64)
KINDS = {'semantic': (Semantic, small_deeplab, 7), 'instance': (Instance, small_rcnn, small_rcnn.CLASSES)}


def make(kind: str):
    """A task of a small model."""
    builder, small, count = KINDS[kind]
    with temporary():

        @models.register('small')
        def model(*, num_classes):
            """Small."""
            return small.make()

        @losses.register('annealed')
        def annealed(*, num_classes, ignore_label):
            """It looks at the step."""
            return ohem_cross_entropy(
                num_classes=num_classes, ignore_label=ignore_label, class_histogram=None, anneal_steps=10
            )

        kinds_losses = {
            'semantic': [softmax_cross_entropy, annealed],
            'instance': [rpn_score, rpn_box, box_class, box_regression, mask],
        }
        names = tuple(f'class {i}' for i in range(count))
        settings = {'eval_scales': (0.7, 1.0, 1.3), 'eval_flip': True} if kind == 'semantic' else {'max_objects': 4}
        return builder(
            dataset_info=DatasetInfo('small/val', names, 3, SIZE),
            model=model,
            losses=kinds_losses[kind],
            metrics=[{'semantic': MeanIoU, 'instance': CocoAP}[kind]],
            **settings,
        )


def batch(kind: str) -> dict[str, np.ndarray]:
    """Two images, one of which does not fill the canvas, and padding of weight 0."""
    small = KINDS[kind][1]
    made = small.batch(3, SIZE)
    made['size'] = np.int32([SIZE, (37, 50), (1, 1)])
    made |= {'weight': np.float32([1, 1, 0]), 'index': np.int32([0, 1, -1]), 'native_size': np.int32([[96, 128]] * 3)}
    if kind == 'semantic':
        label = np.random.default_rng(2).integers(0, 7, (3, *SIZE)).astype('int32')
        label[1, 37:], label[1, :, 50:], label[2] = 255, 255, 255
        return made | {'label': label}
    return made | {'left_out': np.int32([0, 2, 0])}


def halves(task, batch) -> dict[str, object]:
    """Everything that a training or an evaluation asks a task and its metrics for on the device."""
    found = {}

    def note(kind, terms):
        for name, term in terms.items():
            found[f'{kind}:{name}'] = keras.ops.stack([keras.ops.cast(part, 'float32') for part in term[:2]])
            found.update({f'{kind}:{name}:{key}': value for key, value in term.counts.items()})

    note('training', task.loss_terms(batch, keras.ops.convert_to_tensor(3, 'int32')))
    predictions, terms = task.evaluate_batch(batch)
    note('evaluation', terms)
    found |= {f'predict:{name}': value for name, value in task.predict(batch).items()}
    found['scores'] = task.image_scores(batch, predictions)
    found |= {f'counts:{name}': value for name, value in task.counts(batch).items()}
    for metric in task.metrics():
        compute = metric.rows if isinstance(metric, RowMetric) else metric.update
        found |= {f'metric:{name}': value for name, value in compute(batch, predictions).items()}
    return found


class Batches:
    """An input of equal batches, made without TensorFlow."""

    def __init__(self, batch):
        self.input = Input(lambda start, share: self, len(batch['weight']), None, 'batches', str)
        self._batch = batch

    def as_numpy_iterator(self):
        while True:
            yield self._batch


def step(task, batch) -> dict[str, np.ndarray]:
    """The results of a training step on the first device."""
    import jax

    from seg.engine.jax.devices import Devices
    from seg.engine.jax.engine import JaxEngine

    trainer = JaxEngine(Devices(jax.devices()[:1])).trainer(task, SGD(0.1, momentum=0.9), OptimizerStep())
    result = trainer.loop(Batches(batch).input, 0)(1)
    return {'losses': result.losses[0].astype('float32'), 'norm': result.gradient_norm.astype('float32')}


if __name__ == '__main__':
    import jax

    given, results = np.load(sys.argv[1]), {}
    for kind in KINDS:
        task = make(kind)
        for variable in task.model.variables:
            variable.assign(given[f'{kind}:{variable.path}'])

        def run(values, task=task):
            # Moving statistics are assigned to, and stay here.
            with keras.StatelessScope(state_mapping=[]):
                return halves(task, values)

        results |= {f'{kind}:{name}': np.asarray(value) for name, value in jax.jit(run)(batch(kind)).items()}
    results |= {f'step:{name}': value for name, value in step(make('semantic'), batch('semantic')).items()}
    np.savez(sys.argv[2], **results)
