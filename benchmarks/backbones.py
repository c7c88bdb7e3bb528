"""Times DeepLab v3+ with models of ZeroModels, and with the same models of timm in segmentation_models_pytorch.

    for encoder in resnet50 mobilenetv3_large_100 efficientnet_b0 convnext_atto regnet_y_004; do
      python benchmarks/backbones.py --encoder $encoder
    done

Ours needs the extra `zoo`. The peer is not a requirement of this project; install

    python -m pip install torch==2.14.1 timm==1.0.31 segmentation-models-pytorch==0.6.0

(any build of torch: GPUs are hidden from it); `--sides ours` needs none of them.

The networks, the batch and the steps are those of `benchmarks/deeplab.py`, which also says how the decoders differ. The
encoders are the same, except that the peer's MobileNetV3 ends behind the convolution of the classifier, with 960
channels instead of 160.

`benchmarks/pairs.py` runs the two sides. The memory that it prints is that of the whole process, libraries included.
"""

from __future__ import annotations

import argparse

import deeplab
import pairs

# By name in ZeroModels: the peer's name.
ENCODERS = {
    'resnet50': 'tu-resnet50',
    'mobilenetv3_large_100': 'tu-mobilenetv3_large_100',
    'efficientnet_b0': 'tu-efficientnet_b0',
    'convnext_atto': 'tu-convnext_atto',
    'regnet_y_004': 'tu-regnety_004',
}
TARGETS = {
    ('train', 'float32'): 0.85,
    ('infer', 'float32'): 0.95,
    ('train', 'bfloat16'): 0.85,
    ('infer', 'bfloat16'): 0.95,
}


class Ours(deeplab.Ours):
    def network(self, arguments: argparse.Namespace) -> tuple:
        return deeplab.our_model(arguments.encoder)


class Peer(deeplab.Peer):
    def network(self, arguments: argparse.Namespace):
        return deeplab.peer_model(ENCODERS[arguments.encoder])


if __name__ == '__main__':
    pairs.main(__doc__, {'ours': Ours, 'peer': Peer}, TARGETS, choices={'encoder': tuple(ENCODERS)})
