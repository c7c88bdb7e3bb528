"""Strides and dilations of a backbone's stages under an output stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from seg.errors import UserError, shown

OUTPUT_STRIDES = (8, 16, 32)


class Rates(NamedTuple):
    """Stride and dilation rates of one stage.

    Attributes:
      stride: stride of its first block.
      first_dilation: dilation rate of its first block.
      dilation: dilation rate of its other blocks.
    """

    stride: int
    first_dilation: int
    dilation: int


def plan(name: str, stem_stride: int, strides: Sequence[int], output_stride: int) -> list[Rates]:
    """Turns strides beyond the output stride into dilation.

    If a stage's stride is replaced by dilation, its first block keeps the previous dilation rate, and the rate of the
    others is multiplied by the stride: at every second cell, the dilated network then computes exactly what the strided
    one does.

    Args:
      name: name of the backbone in gin, for the message.
      stem_stride: stride of the layers before the first stage.
      strides: strides of the stages.
      output_stride: largest stride of the last stage.

    Raises:
      UserError: if the output stride is not 8, 16 or 32.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f'output_stride = {shown(output_stride)}: backbones.{name} has 8, 16 and 32.')
    total, dilation, rates = stem_stride, 1, []
    for stride in strides:
        before = dilation
        if total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        rates.append(Rates(stride, before, dilation))
    return rates
