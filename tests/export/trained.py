"""Runs with a checkpoint of noise, for tests of their export."""

import contextlib

import numpy as np
import tensorflow as tf

from seg.executor.checkpoints import Checkpoints
from seg.run import dataset_info
from tests.executor import runs
from tests.models import small_deeplab, small_rcnn

RANDOM = {runs.SHAPES: small_deeplab.randomize, runs.INSTANCES: small_rcnn.randomize}


def run(folder, gin_file):
    """Writes a checkpoint of a small model in a folder, as a training does; its scores do not tie.

    Returns:
      The arguments of `seg.modes` for this run.
    """
    experiment = runs.build(folder, gin_files=(gin_file,), mode='train')
    parts = experiment.task.checkpoint_items
    RANDOM[gin_file](experiment.task.model)
    if gin_file == runs.SHAPES:
        _balance(experiment)
    tensors = {f'model/{part}/{v.path}': v.numpy() for part, layer in parts.items() for v in layer.variables}
    metadata = {'class_names': list(experiment.task.class_names)}
    Checkpoints(experiment.folder, 5).save(4, tensors, metadata)
    dataset_info.write(experiment.folder, experiment.info, None)
    return {
        'gin_files': [gin_file],
        'gin_params': [*runs.SMALL, *runs.SMALL_PARTS[gin_file], runs.BACKBONE],
        'model_dir': str(folder),
        'engine': runs.one_device(),
    }


def _balance(experiment):
    """Scales the logits of a semantic model so that its class maps have all classes."""
    model, load = experiment.task.model, experiment.train_data.load
    image = np.asarray(load(tf.constant(0, tf.int64))['image'], np.float32)[None]
    logits = model({'image': image, 'size': np.int32([image.shape[1:3]])})['logits'].numpy().reshape(-1, 8)
    kernel, bias = model.head.variables[-2:]
    kernel.assign(kernel.numpy() * 3 / logits.std(0))
    bias.assign((bias.numpy() - logits.mean(0)) * 3 / logits.std(0))


@contextlib.contextmanager
def changed(where, name, value):
    """An attribute with another value, for a while."""
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)
