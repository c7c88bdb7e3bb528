"""Which images of an evaluation are worth a look: some fixed ones, the worst and the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from seg.structures import Picture


class Gallery:
    """Keeps what is needed to draw a few images of an evaluation, and lets go of what no longer belongs to them.

    The choice is the same however the images are split over batches, and images of one score are taken by their index.
    """

    def __init__(self, size: int, num_examples: int):
        """Makes an empty one.

        Args:
          size: images of each kind.
          num_examples: of the whole evaluation. The fixed images are spread evenly over them, since neighbours are
            often frames of one video.
        """
        self._size = size
        self._fixed = {i * num_examples // size for i in range(size)}
        # Of each kind (rank, index) in order, the first `size` of all images so far.
        self._kinds: dict[str, list[tuple[float, int]]] = {'fixed': [], 'worst': [], 'best': []}
        self._kept: dict[int, Any] = {}

    def choose(self, indices: Sequence[int], scores: Sequence[float]) -> list[int]:
        """Takes note of images.

        Args:
          indices: of images, each in one call only.
          scores: of the same, higher is better; an image whose score is NaN is neither among the worst nor the best.

        Returns:
          Positions in `indices` of the images that are to be kept.
        """
        for index, score in zip(map(int, indices), map(float, scores), strict=True):
            if index in self._fixed:
                self._kinds['fixed'].append((0.0, index))
            if not math.isnan(score):
                rounded = round(score, 6)  # Sums of another order are no other score.
                self._kinds['worst'].append((rounded, index))
                self._kinds['best'].append((-rounded, index))
        for kind, ranked in self._kinds.items():
            self._kinds[kind] = sorted(ranked)[: self._size]
        chosen = {index for ranked in self._kinds.values() for _, index in ranked}
        self._kept = {index: kept for index, kept in self._kept.items() if index in chosen}
        return [position for position, index in enumerate(indices) if int(index) in chosen]

    def keep(self, index: int, figure: Any) -> None:
        """Keeps the figure of an image that was chosen; its `draw()` returns pixels, uint8 [H, W, 3]."""
        self._kept[int(index)] = figure

    def pictures(self) -> list[Picture]:
        """Draws each image once: `fixed/1`, …, `worst/1` (the very worst), …, `best/1`, …"""
        drawn = {index: figure.draw() for index, figure in self._kept.items()}
        return [
            Picture(f'{kind}/{number}', drawn[index], photo=True)
            for kind, ranked in self._kinds.items()
            for number, (_, index) in enumerate(ranked, 1)
        ]
