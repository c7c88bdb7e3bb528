"""Times a training step and inference of DeepLab v3+ here and in segmentation_models_pytorch, alternately.

    python benchmarks/deeplab.py

The peer is not a requirement of this project. Besides the project's requirements, install

    python -m pip install torch==2.14.1 segmentation-models-pytorch==0.6.0

(any build of torch: GPUs are hidden from it); `--sides ours` needs neither.

Both sides are DeepLab v3+ on ResNet-50 at output stride 16, with new weights: separable convolutions of 256 channels in
a pyramid of rates 12, 24 and 36 and in the decoder, 48 channels of the low-level map, 21 classes, logits at the image's
resolution. They take the same random batch of 2 images of 512 x 512 pixels. A training step is: forward with batch
statistics and dropout, cross-entropy in float32, backward, SGD with momentum. Inference returns logits. In bfloat16
ours runs under Keras' `mixed_bfloat16`, the peer under `torch.autocast`. The peer's weights and images are
channels-last.

The networks differ in these points, which the printed number of weights includes. Between the depthwise and the
pointwise half of a separable convolution ours has normalisation and ReLU, the peer nothing. After the concatenation of
the two maps ours has two separable convolutions, as in the paper's code, and the peer has one, and another at stride 16
after the pyramid. A third of the peer's inference time in float32 goes into dilated depthwise convolutions, for which
its library has no fast kernel.

`benchmarks/pairs.py` runs the two sides.
"""

from __future__ import annotations

import argparse

import pairs

CLASSES = 21
ASPP_RATES = (12, 24, 36)
ASPP_DROPOUT = 0.5
LEARNING_RATE, MOMENTUM = 0.007, 0.9
TARGETS = {
    ('train', 'float32'): 0.80,
    ('infer', 'float32'): 0.95,
    ('train', 'bfloat16'): 1.0,
    ('infer', 'bfloat16'): 1.05,
}


class Ours:
    """This project's model, loss and Keras' SGD, each step one `tf.function`."""

    def __init__(self, arguments: argparse.Namespace):
        import seg  # noqa: F401  # isort: skip  Before TensorFlow: turns on oneDNN.
        import keras
        import numpy as np
        import tensorflow as tf

        from seg.engine.precision import set_precision

        tf.config.set_visible_devices([], 'GPU')
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        set_precision(arguments.precision)
        model, terms = self.network(arguments)
        self.model = model
        variables = model.trainable_variables
        optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
        optimizer.build(variables)

        image, label = random_batch(arguments)
        size = np.full((arguments.batch, 2), arguments.size, np.int32)
        seed = np.arange(2 * arguments.batch, dtype=np.int32).reshape(-1, 2)
        inputs = {'image': tf.constant(image), 'size': tf.constant(size), 'seed': tf.constant(seed)}
        label = tf.constant(label)

        @tf.function
        def train(inputs, label):
            with tf.GradientTape() as tape:
                (term,) = terms(model(inputs, training=True), {'label': label})
                mean = tf.reduce_sum(term.total) / tf.reduce_sum(term.weight)
            optimizer.apply(tape.gradient(mean, [v.value for v in variables]), variables)
            return mean

        @tf.function
        def infer(inputs):
            return model(inputs, training=False)['logits']

        self.train = lambda: float(train(inputs, label))
        self.infer = lambda: infer(inputs)[0, 0, 0, 0].numpy()
        self.weights = sum(int(np.prod(v.shape)) for v in variables)
        self.versions = f'tensorflow {tf.__version__}, keras {keras.__version__}'

    def network(self, arguments: argparse.Namespace) -> tuple:
        return our_model()


class Peer:
    """segmentation_models_pytorch's model, run eagerly."""

    def __init__(self, arguments: argparse.Namespace):
        import segmentation_models_pytorch as smp
        import torch

        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        model = self.network(arguments).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)
        image, label = random_batch(arguments)
        image = (torch.from_numpy(image) - 127.5) / 64
        image = image.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        label = torch.from_numpy(label).long()
        bfloat16 = arguments.precision == 'bfloat16'

        def train() -> float:
            model.train()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                logits = model(image)
            loss = torch.nn.functional.cross_entropy(logits.float(), label)
            loss.backward()
            optimizer.step()
            return loss.item()

        def infer() -> float:
            model.eval()
            with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                return model(image)[0, 0, 0, 0].item()

        self.train, self.infer = train, infer
        self.weights = sum(p.numel() for p in model.parameters())
        self.versions = f'torch {torch.__version__}, segmentation_models_pytorch {smp.__version__}'

    def network(self, arguments: argparse.Namespace):
        return peer_model()


def our_model(encoder: str = '') -> tuple:
    """This project's network with the peer's settings, and a function from outputs and batch to loss terms.

    Args:
      encoder: a model of ZeroModels; '' for this project's ResNet-50.
    """
    from seg.backbones.bridge.zeromodels import zeromodels
    from seg.backbones.resnet import resnet50
    from seg.decoders.deeplab_v3plus import deeplab_v3plus as decoder_parts
    from seg.heads.semantic import semantic
    from seg.losses.softmax_cross_entropy import softmax_cross_entropy
    from seg.models.deeplab_v3plus import deeplab_v3plus
    from seg.registry import backbones, decoders, temporary

    with temporary():

        @backbones.register('like_the_peer')
        def backbone(*, output_stride, norm):
            """The encoder."""
            settings = {'output_stride': output_stride, 'norm': norm}
            return zeromodels(**settings, name=encoder) if encoder else resnet50(**settings)

        @decoders.register('like_the_peer')
        def decoder(*, backbone, output_stride, norm):
            """The decoder with the peer's settings."""
            settings = {'separable': True, 'rates': ASPP_RATES, 'dropout': ASPP_DROPOUT}
            return decoder_parts(backbone=backbone, output_stride=output_stride, norm=norm, **settings)

        model = deeplab_v3plus(num_classes=CLASSES, backbone=backbone, decoder=decoder, head=semantic)
    loss = softmax_cross_entropy(num_classes=CLASSES, ignore_label=255, class_histogram=lambda: None)
    return model, lambda outputs, batch: [loss(outputs, batch, 0)]


def peer_model(encoder: str = 'resnet50'):
    """segmentation_models_pytorch's network."""
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus(
        encoder_name=encoder,
        encoder_weights=None,
        encoder_output_stride=16,
        decoder_channels=256,
        decoder_atrous_rates=ASPP_RATES,
        decoder_aspp_separable=True,
        decoder_aspp_dropout=ASPP_DROPOUT,
        classes=CLASSES,
    )


SIDES = {'ours': Ours, 'peer': Peer}


def random_batch(arguments: argparse.Namespace) -> tuple:
    """Images [B, S, S, 3] float32 0..255 and labels [B, S, S] int32."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.size, arguments.size)
    return rng.uniform(0, 255, (*shape, 3)).astype(np.float32), rng.integers(0, CLASSES, shape).astype(np.int32)


if __name__ == '__main__':
    pairs.main(__doc__, SIDES, TARGETS)
