"""Times DeepLab v3+ in `--mode=predict`, onnxruntime and LiteRT on the same weights, alternately.

    python benchmarks/inference.py --backbone efficientnet_lite0
    python benchmarks/inference.py --backbone resnet50

The peers are not requirements of this project. Besides the project's requirements, install

    python -m pip install tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.31.1 ai-edge-litert==2.3.0

All sides run one network in float32, at output stride 16 with 21 classes and random weights, on one image at a time:
`ours` as `predict` does, with the weights as constants of its graph; `variables` with weights that are read at each
call; `onnxruntime` and `litert` the same network, converted. A side with different logits ends with an error. The time
for conversion and loading is not counted.

`benchmarks/pairs.py` runs the sides.
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
TOLERANCE = 1e-4  # As a fraction of the largest logit.
TARGETS = {('infer', 'float32'): 1.20}


class _Side:
    """The network with its inputs, and the facts that all sides report about it."""

    def __init__(self, arguments: argparse.Namespace):
        import seg  # noqa: F401  # isort: skip  Before TensorFlow: turns on oneDNN.
        import numpy as np
        import tensorflow as tf

        tf.config.set_visible_devices([], 'GPU')
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        self.model = network(arguments.backbone)
        self.weights = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        shape = (arguments.batch, arguments.size, arguments.size, 3)
        self.batch = {
            'image': np.random.default_rng(1).integers(0, 256, shape).astype(np.float32),
            'size': np.full((arguments.batch, 2), arguments.size, np.int32),
        }
        self.run = self.prepared(arguments.threads)
        expected = self.model(self.batch, training=False)['logits'].numpy()
        error = np.abs(self.run() - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE:
            raise SystemExit(
                f'{type(self).__name__}: its logits differ from the network by {error:.1e} of the largest.'
            )
        self.note = f'; logits within {error:.1e} of the largest'

    def infer(self) -> None:
        self.run()

    def logits(self, image, size):
        return {'logits': self.model({'image': image, 'size': size}, training=False)['logits']}

    def signature(self) -> list:
        """The signature of `logits`."""
        import tensorflow as tf

        return [tf.TensorSpec(value.shape, value.dtype, name=key) for key, value in self.batch.items()]


class Ours(_Side):
    """The function by which `predict` runs its batches."""

    def prepared(self, threads: int):
        """Returns a function without arguments that returns the batch's logits on the host, and sets `versions`."""
        import numpy as np
        import tensorflow as tf

        from seg.engine.tensorflow.predictor import Predictor

        self.versions = f'tensorflow {tf.__version__}'
        task = types.SimpleNamespace(checkpoint_items={'model': self.model}, predict=lambda batch: self.logits(**batch))
        predictor = Predictor(task, '', tf.distribute.OneDeviceStrategy('CPU:0'), jit_compile=False)

        def run():
            found = predictor(self.batch)
            return np.stack([found.get('logits', i) for i in range(len(self.batch['size']))])

        return run


class Variables(_Side):
    """The same network as a graph that reads its weights each time."""

    def prepared(self, threads: int):
        """See `Ours.prepared`."""
        import tensorflow as tf

        self.versions = f'tensorflow {tf.__version__}'
        graph = tf.function(self.logits)
        return lambda: graph(**{key: tf.constant(value) for key, value in self.batch.items()})['logits'].numpy()


class OnnxRuntime(_Side):
    def prepared(self, threads: int):
        """See `Ours.prepared`."""
        import onnxruntime
        import tensorflow as tf
        import tf2onnx

        self.versions = f'onnxruntime {onnxruntime.__version__}'
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'network.onnx')
            tf2onnx.convert.from_function(
                tf.function(self.logits),
                input_signature=self.signature(),
                opset=18,
                output_path=path,
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        return lambda: session.run(None, self.batch)[0]


class LiteRT(_Side):
    def prepared(self, threads: int):
        """See `Ours.prepared`."""
        import tensorflow as tf
        from ai_edge_litert import interpreter

        self.versions = f'ai-edge-litert {importlib.metadata.version("ai-edge-litert")}'
        module = tf.Module()
        module.kept = [v.value for v in self.model.variables]
        graph = tf.function(self.logits, input_signature=self.signature())
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=graph.get_concrete_function())
            converted = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        self.interpreter = interpreter.Interpreter(model_content=converted, num_threads=threads)
        signature = self.interpreter.get_signature_runner()
        return lambda: signature(**self.batch)['logits']


def network(backbone: str):
    """DeepLab v3+ with random weights and statistics, so that no channel is idle."""
    from seg.backbones.efficientnet_lite import efficientnet_lite0
    from seg.backbones.resnet import resnet50
    from seg.decoders.deeplab_v3plus import deeplab_v3plus as decoder
    from seg.heads.semantic import semantic
    from seg.models.deeplab_v3plus import deeplab_v3plus
    from tests.models.small_deeplab import randomize

    nets = {'efficientnet_lite0': efficientnet_lite0, 'resnet50': resnet50}
    model = deeplab_v3plus(
        num_classes=CLASSES, backbone=nets[backbone], decoder=decoder, head=semantic, output_stride=16
    )
    randomize(model)
    return model


SIDES = {'ours': Ours, 'variables': Variables, 'onnxruntime': OnnxRuntime, 'litert': LiteRT}


if __name__ == '__main__':
    pairs.main(
        __doc__, SIDES, TARGETS, {'backbone': BACKBONES}, size=257, batch=1, precisions=['float32'], what=['infer']
    )
