"""Anchors: boxes of a few sizes and shapes around every cell of every feature map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pyramid(
    image_size: tuple[int, int],
    strides: Sequence[int],
    *,
    scale: float = 8.0,
    ratios: Sequence[float] = (1.0, 2.0, 0.5),
    octaves: int = 1,
    offset: float = 0.0,
    rounded: bool = False,
) -> list[np.ndarray]:
    """Makes the anchors of a feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144).

    An anchor of ratio r is `size * sqrt(r)` high and `size / sqrt(r)` wide, with
    `size = scale * stride * 2^(octave / octaves)`.

    Args:
      image_size: (height, width) of the canvas, in pixels. A map has ceil(side / stride) cells per side.
      strides: pixels per cell, one per map.
      scale: side of a square anchor, in cells.
      ratios: aspect ratios, height / width.
      octaves: number of anchor sizes per map, evenly spaced (by factors) up to the next map's.
      offset: position of an anchor's centre in its cell. 0 is where convolutions with symmetric padding centre a cell;
        0.5 in the TPU release.
      rounded: whether the corners of the anchor around the origin are rounded to whole pixels, as in torchvision.

    Returns:
      One float32 [h * w * octaves * len(ratios), 4] per map, (y0, x0, y1, x1) in pixels, ordered by row, column,
      octave, ratio. Anchors may reach beyond the image.
    """
    levels = []
    for stride in strides:
        sizes = scale * stride * 2 ** (np.arange(octaves) / octaves)
        roots = np.sqrt(np.asarray(ratios, np.float64))
        sides = np.stack([sizes[:, None] * roots, sizes[:, None] / roots], axis=-1).reshape(-1, 2)
        corners = np.concatenate([-sides / 2, sides / 2], axis=-1)
        if rounded:
            corners = np.round(corners)
        rows, columns = ((np.arange(-(-side // stride)) + offset) * stride for side in image_size)
        centres = np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1)
        anchors = np.tile(centres, 2)[:, :, None] + corners
        levels.append(anchors.reshape(-1, 4).astype(np.float32))
    return levels
