"""Times a training step and inference of Mask R-CNN here and in torchvision, alternately.

    python benchmarks/mask_rcnn.py

The peer is not a requirement of this project. Besides the project's requirements, install

    python -m pip install torch==2.14.1 torchvision==0.29.1

(any build of torch: GPUs are hidden from it).

Both sides are torchvision's maskrcnn_resnet50_fpn for 91 classes, with the same random weights, saved by torch and read
by this project. The weights are scaled so that the outputs of the last layers spread as those of a trained model. Batch
normalisation, the stem and the first stage are frozen. Both sides take the same 2 random images of 512 x 512 pixels
with 72 instances each. A training step is: forward, 256 anchors and 512 ROIs per image, the five losses, backward, SGD
with momentum (at a learning rate so low that the weights, and with them the work, stay the same). Inference returns 100
detections per image with masks relative to their boxes. Neither side resizes images or pastes masks at the image's
size. The numbers of positive ROIs per training step and of detections are printed for both. torchvision is measured in
both memory layouts. In bfloat16 ours runs under Keras' `mixed_bfloat16`, the peer under `torch.autocast`.

`benchmarks/pairs.py` runs the sides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from typing import Any

import pairs

CLASSES = 90
OBJECTS = 72  # Enough that at least 128 regions per image are positive, the number in a step.
PROPOSALS = 2000  # Number of proposals in a training step of torchvision.
LEARNING_RATE, MOMENTUM = 1e-7, 0.9
TARGETS = {
    ('train', 'float32'): 0.85,
    ('infer', 'float32'): 1.0,
    ('train', 'bfloat16'): 0.85,
    ('infer', 'bfloat16'): 1.0,
}
WEIGHTS = 'MASK_RCNN_BENCHMARK_WEIGHTS'  # Environment variable: the file that both sides read.


class Ours:
    """This project's model, losses and Keras' SGD, each step one `tf.function`."""

    def __init__(self, arguments: argparse.Namespace):
        import seg  # noqa: F401  # isort: skip  Before TensorFlow: turns on oneDNN.
        import keras
        import numpy as np
        import tensorflow as tf

        from seg.engine.precision import set_precision

        tf.config.set_visible_devices([], 'GPU')
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        set_precision(arguments.precision)
        model, terms = our_model()
        variables = model.trainable_variables
        optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
        optimizer.build(variables)

        batch = our_batch(arguments)
        batch = {key: tf.constant(value) for key, value in batch.items()}

        @tf.function
        def train(batch):
            with tf.GradientTape() as tape:
                outputs = model(batch, training=True)
                shares = [tf.reduce_sum(term.total) / tf.reduce_sum(term.weight) for term in terms(outputs, batch)]
                total = tf.add_n(shares)
            optimizer.apply(tape.gradient(total, [v.value for v in variables]), variables)
            return total, tf.math.count_nonzero(outputs['boxes'][0]['classes'] > 0)

        @tf.function
        def infer(image, size):
            return model({'image': image, 'size': size}, training=False)

        def detect():
            return infer(batch['image'], batch['size'])

        self.train = lambda: float(train(batch)[0])
        self.infer = lambda: detect()['masks'][0, 0, 0, 0].numpy()
        positives = int(train(batch)[1]) / arguments.batch
        found = np.mean(np.sum(detect()['classes'].numpy() >= 0, -1))
        self.weights = sum(int(np.prod(v.shape)) for v in model.variables)
        self.versions = f'tensorflow {tf.__version__}, keras {keras.__version__}'
        self.note = f'; per image {positives:g} positive regions, {found:g} detections'


class Peer:
    """torchvision's model, run eagerly."""

    channels_last = False

    def __init__(self, arguments: argparse.Namespace):
        import torch
        import torchvision

        torch.set_num_threads(arguments.threads)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        model = torchvision_model(arguments.size)
        model.load_state_dict(torch.load(os.environ[WEIGHTS]))
        model = model.to(memory_format=layout)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trainable, LEARNING_RATE, momentum=MOMENTUM)
        images, targets = peer_batch(arguments, layout)
        bfloat16 = arguments.precision == 'bfloat16'
        positives: list[float] = []
        sample = model.roi_heads.select_training_samples

        def counted(proposals, targets):
            result = sample(proposals, targets)
            positives.append(sum(int((labels > 0).sum()) for labels in result[2]) / len(images))
            return result

        model.roi_heads.select_training_samples = counted

        def train() -> float:
            model.train()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                loss = sum(model(images, targets).values())
            loss.backward()
            optimizer.step()
            return loss.item()

        def detect() -> list:
            model.eval()
            with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                return model(images)

        train()
        self.train, self.infer = train, lambda: detect()[0]['masks'][0, 0, 0, 0].item()
        found = sum(len(result['labels']) for result in detect()) / len(images)
        self.weights = sum(v.numel() for v in model.state_dict().values())
        self.versions = f'torch {torch.__version__}, torchvision {torchvision.__version__}'
        self.note = f'; per image {positives[0]:g} positive regions, {found:g} detections'


class PeerChannelsLast(Peer):
    """The same with weights and images channels-last."""

    channels_last = True


SIDES = {'ours': Ours, 'peer': Peer, 'peer_channels_last': PeerChannelsLast}


def our_model() -> tuple:
    """This project's network like the peer's, with its weights, and a function from outputs and batch to loss terms."""
    from seg.backbones.resnet import resnet50
    from seg.decoders.fpn import fpn
    from seg.heads.box import box
    from seg.heads.instance_mask import mask
    from seg.heads.rpn import rpn as rpn_parts
    from seg.losses import rois, rpn
    from seg.models.mask_rcnn import mask_rcnn
    from seg.registry import heads, temporary
    from seg.weights.warm_start import Init

    with temporary():

        @heads.register('like_the_peer')
        def proposals(*, num_classes, norm):
            """The RPN with the peer's settings."""
            settings = {'anchor_ratios': (0.5, 1.0, 2.0), 'round_anchors': True, 'train_proposals': PROPOSALS}
            return rpn_parts(num_classes=num_classes, norm=norm, **settings)

        parts = {'backbone': resnet50, 'decoder': fpn, 'rpn': proposals, 'box_head': box, 'mask_head': mask}
        model = mask_rcnn(num_classes=CLASSES, **parts, norm='frozen', frozen_stages=2)
    Init(weights=os.environ[WEIGHTS]).apply(model.parts)
    box_class = rois.box_class(num_classes=CLASSES)
    losses = [rpn.rpn_score(), rpn.rpn_box(), box_class, rois.box_regression(), rois.mask()]
    return model, lambda outputs, batch: [loss(outputs, batch, 0) for loss in losses]


def our_batch(arguments: argparse.Namespace) -> dict:
    """The batch of `random_batch` in the form for this project's model."""
    import numpy as np

    image, boxes, classes = random_batch(arguments)
    return {
        'image': image,
        'size': np.full((arguments.batch, 2), arguments.size, np.int32),
        'seed': np.arange(2 * arguments.batch, dtype=np.int32).reshape(-1, 2),
        'boxes': boxes,
        'classes': classes,
        'masks': np.broadcast_to(disc(112), (*classes.shape, 112, 112)) * np.uint8(255),
    }


def random_batch(arguments: argparse.Namespace) -> tuple:
    """Images [B, S, S, 3] float32 0..255, boxes [B, N, 4] float32 (y0, x0, y1, x1), and classes [B, N] int32."""
    import numpy as np

    rng = np.random.default_rng(0)
    count, size = arguments.batch, arguments.size
    coarse = rng.uniform(0, 200, (count, size // 16, size // 16, 3)).repeat(16, 1).repeat(16, 2)
    image = coarse + rng.uniform(0, 55, coarse.shape)
    # About as large as anchors of two levels, so that many regions are positive.
    sides = rng.choice([48.0, 64.0, 96.0, 128.0], (count, OBJECTS, 1)) * rng.uniform(0.8, 1.25, (count, OBJECTS, 2))
    corners = rng.uniform(0, 1, (count, OBJECTS, 2)) * (size - sides)
    boxes = np.concatenate([corners, corners + sides], -1)
    classes = rng.integers(0, CLASSES, (count, OBJECTS))
    return image.astype(np.float32), boxes.astype(np.float32), classes.astype(np.int32)


def peer_batch(arguments: argparse.Namespace, layout: Any, device: str = 'cpu') -> tuple[list, list]:
    """Images and targets of `random_batch` in the form for torchvision's model."""
    import torch

    image, boxes, classes = random_batch(arguments)
    images = torch.from_numpy(image / 255).permute(0, 3, 1, 2).to(device).contiguous(memory_format=layout)
    targets = [
        {
            'boxes': torch.from_numpy(own)[:, [1, 0, 3, 2]].to(device),
            'labels': torch.from_numpy(labels).long().to(device) + 1,
            'masks': torch.from_numpy(full_masks(own, arguments.size)).to(device),
        }
        for own, labels in zip(boxes, classes, strict=True)
    ]
    return list(images), targets


def disc(side: int):
    """A disc that fills its square, bool [side, side]."""
    import numpy as np

    centres = 2 * (np.arange(side) + 0.5) / side - 1
    return centres[:, None] ** 2 + centres**2 < 1


def full_masks(boxes, size: int):
    """Masks that fill their boxes as `disc` does, uint8 [N, S, S]."""
    import numpy as np

    places = np.arange(size) + 0.5
    begin, extent = boxes[:, :2, None], (boxes[:, 2:] - boxes[:, :2])[:, :, None]
    rows, columns = np.moveaxis(2 * (places - begin) / extent - 1, 1, 0)
    return (rows[:, :, None] ** 2 + columns[:, None, :] ** 2 < 1).astype(np.uint8)


def torchvision_model(size: int):
    """maskrcnn_resnet50_fpn with frozen batch normalisation; no resizing, no masks at the image's size."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name='resnet50', weights=None, trainable_layers=3)
    model = MaskRCNN(backbone, CLASSES + 1, min_size=size, max_size=size)
    model.transform.resize = lambda image, target: (image, target)
    model.transform.postprocess = lambda result, *_: result
    return model


def save_weights(path: str) -> None:
    """Draws torchvision's weights and scales its last layers."""
    import torch

    torch.manual_seed(0)
    model = torchvision_model(512).eval()
    image = torch.from_numpy(random_batch(argparse.Namespace(batch=1, size=512))[0] / 255).permute(0, 3, 1, 2)
    box, mask = model.roi_heads.box_predictor, model.roi_heads.mask_predictor
    spreads = {
        model.rpn.head.cls_logits: 2.0,
        model.rpn.head.bbox_pred: 0.3,
        box.cls_score: 3.0,
        box.bbox_pred: 1.0,
        mask.mask_fcn_logits: 2.0,
    }
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith('bn3.weight'):
                value.fill_(0.2)  # Otherwise residual sums grow with each block.
        for layer, spread in spreads.items():
            seen: list = []
            hook = layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.flatten()))
            model(list(image))
            hook.remove()
            layer.weight *= spread / torch.cat(seen).std()
    torch.save(model.state_dict(), path)


def main() -> None:
    if sys.argv[1:2] == ['weights']:
        save_weights(sys.argv[2])
    elif WEIGHTS in os.environ:
        pairs.main(__doc__, SIDES, TARGETS)
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[WEIGHTS] = os.path.join(folder, 'maskrcnn.pth')
            subprocess.run([sys.executable, __file__, 'weights', os.environ[WEIGHTS]], check=True)
            pairs.main(__doc__, SIDES, TARGETS)


if __name__ == '__main__':
    main()
