"""Small experiments for the executor's tests."""

import keras
import numpy as np
import tensorflow as tf

from seg import experiment, modes
from seg.engine import precision as precisions
from seg.engine.base import Engine
from seg.engine.tensorflow import devices
from seg.engine.tensorflow.engine import TensorFlowEngine
from seg.inputs.pipeline import untuned
from seg.structures import WHOLE, Input
from seg.tasks.semantic import Semantic
from tests.backbones import small

SHAPES, INSTANCES = 'gin/deeplab_shapes.gin', 'gin/maskrcnn_shapes.gin'
# The demos with all of their parts, small enough for a test.
SMALL = (
    'TRAIN_STEPS=4',
    'BATCH_SIZE=4',
    'CROP=(64, 64)',
    'datasets.shapes.num_examples=6',
    'datasets.shapes.min_object_size=12',
    'RunConfig.iterations_per_loop=2',
    'RunConfig.eval_every=4',
    'RunConfig.save_checkpoints_steps=4',
    'RunConfig.num_pictures=0',  # To draw images and charts takes as long as the steps.
)
SMALL_PARTS = {
    SHAPES: (
        'decoders.deeplab_v3plus.aspp_channels=16',
        'decoders.deeplab_v3plus.decoder_channels=16',
        'decoders.deeplab_v3plus.low_level_channels=8',
        'decoders.deeplab_v3plus.rates=(2,)',
    ),
    INSTANCES: (
        'decoders.fpn.channels=16',
        'heads.rpn.channels=16',
        'heads.rpn.train_pre_nms=40',
        'heads.rpn.eval_pre_nms=40',
        'heads.rpn.train_proposals=40',
        'heads.rpn.eval_proposals=30',
        'heads.box.fc=(16,)',
        'heads.mask.convs=(8,)',
        'heads.mask.deconv=8',
    ),
}

# In place of the demos' backbone. Importing this module registers it; a process of its own needs the plugin.
BACKBONE, BACKBONE_PLUGIN = 'BACKBONE=@backbones.small', small.__name__

# A Cascade R-CNN in place of the Mask R-CNN of `INSTANCES`.
CASCADE = (
    'tasks.instance.model=@models.cascade_rcnn',
    'models.cascade_rcnn.backbone=%BACKBONE',
    'models.cascade_rcnn.decoder=@decoders.fpn',
    'models.cascade_rcnn.rpn=@heads.rpn',
    'models.cascade_rcnn.box_heads=[@heads.box, @second/heads.box, @third/heads.box]',
    'models.cascade_rcnn.mask_head=@heads.mask',
    'heads.box.class_agnostic=True',
    'second/heads.box.positive_iou=0.6',
    'third/heads.box.positive_iou=0.7',
)


def strategy(replicas: int) -> tf.distribute.Strategy:
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy('CPU:0')
    return devices.mirrored(tuple(f'CPU:{i}' for i in range(replicas)))


def one_device(precision: str = 'float32') -> Engine:
    """The engine of the Keras backend in use, on one device."""
    if keras.backend.backend() == 'tensorflow':
        return TensorFlowEngine(strategy(1), precision)
    import jax

    from seg.engine.jax.devices import Devices
    from seg.engine.jax.engine import JaxEngine

    return JaxEngine(Devices(jax.devices()[:1]), precision)


def build(
    model_dir,
    *params: str,
    replicas: int = 1,
    precision: str = 'float32',
    mode: str = 'train_and_eval',
    gin_files=(SHAPES,),
    jit_compile: bool = False,
    engine: Engine | None = None,
) -> experiment.Experiment:
    """Builds a small experiment in this process, on an engine of these properties if none is given.

    Its backbone is `tests.backbones.small`, unless `params` name another one.
    """
    precisions.set_precision(precision)
    backbone = () if any(param.startswith('BACKBONE') for param in params) else (BACKBONE,)
    return modes.build(
        gin_files,
        model_dir=str(model_dir),
        mode=mode,
        gin_params=(*SMALL, *SMALL_PARTS.get(gin_files[0], ()), *backbone, *params),
        engine=engine or TensorFlowEngine(strategy(replicas), precision, jit_compile),
    )


def fixed_input(batches: list[dict[str, np.ndarray]]) -> Input:
    """An input of given batches, cut into one piece for each replica."""
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    size = len(batches[0]['weight'])

    def make(start=0, share=WHOLE, pieces=1):
        rows = size // share.count
        place = np.arange(len(whole['weight'])) % size // rows
        own = {key: value[place == share.index] for key, value in whole.items()}
        data = tf.data.Dataset.from_tensor_slices(own).skip(start * rows).with_options(untuned())
        return data.batch(rows // pieces, drop_remainder=True)

    return Input(make, size, len(whole['weight']), 'fixed', str)


def ragged_batch(task, dataset, precision: str = 'float64', size: int = 4) -> dict[str, np.ndarray]:
    """A real batch in which one image has no label or instance, and the last one is padding of weight 0."""
    source = task.training_input(dataset, size)
    batch = next(iter(source.make()))
    batch = {key: value.numpy() for key, value in batch.items()}
    assert batch['image'].dtype == keras.config.floatx() == ('float64' if precision == 'float64' else 'float32')
    if isinstance(task, Semantic):
        batch['label'][1] = 255
    else:
        batch['classes'][1], batch['boxes'][1], batch['masks'][1] = -1, 0, 0
    batch['weight'][-1] = 0
    batch['index'][-1] = -1
    return batch
