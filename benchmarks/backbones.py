"""Times DeepLab v3+ with models of ZeroModels, and with the same models of timm in segmentation_models_pytorch.

    for encoder in resnet50 mobilenetv3_large_100 efficientnet_b0 convnext_atto regnet_y_004; do
      python benchmarks/backbones.py --encoder $encoder
    done
    python tools/backbones.py    # Writes the table of docs/backbones.md.

Ours needs the extra `zoo`. The peer is not a requirement of this project; install

    python -m pip install torch==2.14.1 timm==1.0.31 segmentation-models-pytorch==0.6.0

(any build of torch: GPUs are hidden from it); `--sides ours` needs none of them.

The networks, the batch and the steps are those of `benchmarks/deeplab.py`, which also says how the decoders differ. The
encoders are the same, except that the peer's MobileNetV3 ends behind the convolution of the classifier, with 960
channels instead of 160.

`benchmarks/pairs.py` runs the two sides. The memory is that of the whole process, libraries included. With both sides,
the results are kept in `benchmarks/backbones.json`.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import deeplab
import pairs

RESULTS = pathlib.Path(__file__).with_suffix('.json')
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


def keep(encoder: str, found: dict) -> None:
    """Writes the results of an encoder, by precision; those of others, and of other precisions, stay."""
    results = json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.exists() else {}
    results[encoder] = results.get(encoder, {}) | found
    RESULTS.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    flags, measured = pairs.main(__doc__, {'ours': Ours, 'peer': Peer}, TARGETS, choices={'encoder': tuple(ENCODERS)})
    if measured and set(flags.sides) == {'ours', 'peer'} and set(flags.what) == {'train', 'infer'}:
        keep(flags.encoder, measured)
