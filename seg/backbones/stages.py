"""Strides and dilations of a backbone's stages under an output stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from seg.errors import UserError

OUTPUT_STRIDES = (8, 16, 32)


class Rates(NamedTuple):
    """Stride and dilation rates of one stage.

    Attributes:
      stride: of its first block.
      first_dilation: of its first block.
      dilation: of its other blocks.
    """

    stride: int
    first_dilation: int
    dilation: int


def plan(name: str, stem_stride: int, strides: Sequence[int], output_stride: int) -> list[Rates]:
    """Turns strides beyond the output stride into dilation.

    Where a stage gives up its stride, its first block keeps the dilation from before and the others take the multiplied
    one: the dilated network then computes, at every second cell, exactly what the strided one does.

    Args:
      name: of the backbone, for the message.
      stem_stride: of what comes before the first stage.
      strides: of the stages.
      output_stride: stride that the last stage has at most.

    Raises:
      UserError: if the output stride is not 8, 16 or 32.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f'output_stride: {name} has 8, 16 and 32, received {output_stride!r}.')
    total, dilation, rates = stem_stride, 1, []
    for stride in strides:
        before = dilation
        if total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        rates.append(Rates(stride, before, dilation))
    return rates
