"""Inference of DeepLab v3+ by `--mode=predict`, beside onnxruntime and LiteRT on the same weights, in turns.

    python benchmarks/inference.py --backbone efficientnet_lite0
    python benchmarks/inference.py --backbone resnet50

The peers are no requirements of this project. Beside what the project installs, this wants

    python -m pip install tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.31.1 ai-edge-litert==2.3.0

All sides run one network in float32, at output stride 16 with 21 classes and random weights, on one image at a time:
`ours` the graph that `predict` runs, with the weights as constants; `variables` the same graph with weights that are
read each time; `onnxruntime` and `litert` the same network, converted. A side that gives other logits ends with an
error. Time to convert and to load does not count.

How the sides are driven: `benchmarks/pairs.py`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import tempfile
import types

import pairs

CLASSES = 21
BACKBONES = ('efficientnet_lite0', 'resnet50')
TOLERANCE = 1e-4  # Of the largest logit.
TARGETS = {('infer', 'float32'): 1.20}


class _Side:
    """The network with its inputs, and what all sides tell of it."""

    def __init__(self, arguments: argparse.Namespace):
        import seg  # noqa: F401  # isort: skip  Before TensorFlow: turns on oneDNN.
        import numpy as np
        import tensorflow as tf

        tf.config.set_visible_devices([], 'GPU')
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        self.threads = arguments.threads
        self.model = network(arguments.backbone)
        self.weights = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        shape = (arguments.batch, arguments.size, arguments.size, 3)
        self.batch = {
            'image': np.random.default_rng(1).integers(0, 256, shape).astype(np.float32),
            'size': np.full((arguments.batch, 2), arguments.size, np.int32),
        }
        self.run = self.prepared()
        expected = self.model(self.batch, training=False)['logits'].numpy()
        error = np.abs(self.run() - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE:
            raise SystemExit(
                f'{type(self).__name__}: its logits differ from the network by {error:.1e} of the largest.'
            )
        self.note = f'; logits within {error:.1e} of the largest'

    def infer(self) -> None:
        self.run()

    def prepared(self):
        """Returns a function without arguments that gives the logits of the batch on the host, and sets `versions`."""
        raise NotImplementedError


class Ours(_Side):
    """The graph of `predict`."""

    def prepared(self):
        import keras
        import tensorflow as tf

        from seg.engine.tensorflow.predictor import with_constants

        self.versions = f'tensorflow {tf.__version__}, keras {keras.__version__}'
        task = types.SimpleNamespace(checkpoint_items={'model': self.model}, predict=self.predict)
        graph = tf.function(self.chosen(task, with_constants))
        inputs = {key: tf.constant(value) for key, value in self.batch.items()}
        return lambda: graph(inputs).numpy()

    def predict(self, batch):
        return self.model(batch, training=False)['logits']

    def chosen(self, task, with_constants):
        return with_constants(task)


class Variables(Ours):
    """The graph of `predict`, with weights that are read each time."""

    def chosen(self, task, with_constants):
        return task.predict


class OnnxRuntime(_Side):
    def prepared(self):
        import onnxruntime
        import tensorflow as tf
        import tf2onnx

        self.versions = f'onnxruntime {onnxruntime.__version__}'
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'network.onnx')
            tf2onnx.convert.from_function(
                tf.function(lambda image, size: self.model({'image': image, 'size': size}, training=False)['logits']),
                input_signature=[tf.TensorSpec(v.shape, v.dtype, name=k) for k, v in self.batch.items()],
                opset=18,
                output_path=path,
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
            session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        return lambda: session.run(None, self.batch)[0]


class LiteRT(_Side):
    def prepared(self):
        import tensorflow as tf
        from ai_edge_litert import interpreter

        self.versions = f'ai-edge-litert {importlib.metadata.version("ai-edge-litert")}'
        module = tf.Module()
        module.kept = [v.value for v in self.model.variables]
        graph = tf.function(
            lambda image, size: {'logits': self.model({'image': image, 'size': size}, training=False)['logits']},
            input_signature=[tf.TensorSpec(v.shape, v.dtype, name=k) for k, v in self.batch.items()],
        )
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=graph.get_concrete_function())
            converted = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        self.interpreter = interpreter.Interpreter(model_content=converted, num_threads=self.threads)
        signature = self.interpreter.get_signature_runner()
        return lambda: signature(**self.batch)['logits']


def network(backbone: str):
    """DeepLab v3+ with random weights and statistics, so that no channel is idle."""
    import keras
    import numpy as np

    from seg.backbones.efficientnet_lite import efficientnet_lite0
    from seg.backbones.resnet import resnet50
    from seg.decoders.deeplab_v3plus import deeplab_v3plus as decoder
    from seg.heads.semantic import semantic
    from seg.models.deeplab_v3plus import deeplab_v3plus

    keras.utils.set_random_seed(0)
    nets = {'efficientnet_lite0': efficientnet_lite0, 'resnet50': resnet50}
    model = deeplab_v3plus(
        num_classes=CLASSES, backbone=nets[backbone], decoder=decoder, head=semantic, output_stride=16
    )
    draw = np.random.default_rng(0)
    ranges = {'gamma': (0.5, 1.5), 'moving_variance': (0.5, 1.5), 'beta': (-0.1, 0.1), 'moving_mean': (-0.1, 0.1)}
    for variable in model.variables:
        name = variable.path.rsplit('/', 1)[-1]
        if name in ranges:
            variable.assign(draw.uniform(*ranges[name], variable.shape))
    return model


SIDES = {'ours': Ours, 'variables': Variables, 'onnxruntime': OnnxRuntime, 'litert': LiteRT}


if __name__ == '__main__':
    pairs.main(
        __doc__, SIDES, TARGETS, {'backbone': BACKBONES}, size=257, batch=1, precisions=['float32'], what=['infer']
    )
