"""Chooses the images of an evaluation to draw: some fixed ones, the worst and the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from seg.structures import Figure, ImageSummary


class Gallery:
    """Keeps the figures of a few images of an evaluation, and drops those that are no longer chosen.

    The choice does not depend on the division into batches; images with equal scores are ordered by index. In a small
    evaluation, of at most three times `size` images, each image is of one kind: it is fixed, or among the worst or the
    best of the others.
    """

    def __init__(self, size: int, num_examples: int):
        """Makes an empty gallery.

        Args:
          size: number of images of each kind.
          num_examples: number of images of the whole evaluation. The fixed images are spread evenly over them, because
            neighbours are often frames of one video.
        """
        self._fixed = {i * num_examples // size for i in range(size)}
        self._small = num_examples <= 3 * size
        others = max(num_examples - len(self._fixed), 0) if self._small else 2 * size
        self._sizes = {'fixed': size, 'worst': others - others // 2, 'best': others // 2}
        # For each kind (rank, index) in order, the first `size` of all images so far.
        self._kinds: dict[str, list[tuple[float, int]]] = {'fixed': [], 'worst': [], 'best': []}
        self._kept: dict[int, Figure] = {}

    def choose(self, indices: Sequence[int], scores: Sequence[float]) -> list[int]:
        """Adds images to the choice.

        Args:
          indices: indices of images, each in one call only.
          scores: scores of these images, higher is better; an image with score NaN is neither among the worst nor the
            best.

        Returns:
          Positions in `indices` of the images to keep.
        """
        for index, score in zip(map(int, indices), map(float, scores), strict=True):
            if index in self._fixed:
                self._kinds['fixed'].append((0.0, index))
            if not (math.isnan(score) or self._small and index in self._fixed):
                rounded = round(score, 6)  # Sums in another order must not give another score.
                self._kinds['worst'].append((rounded, index))
                self._kinds['best'].append((-rounded, index))
        for kind, ranked in self._kinds.items():
            self._kinds[kind] = sorted(ranked)[: self._sizes[kind]]
        chosen = {index for ranked in self._kinds.values() for _, index in ranked}
        self._kept = {index: kept for index, kept in self._kept.items() if index in chosen}
        return [position for position, index in enumerate(indices) if int(index) in chosen]

    def keep(self, index: int, figure: Figure) -> None:
        """Keeps the figure of a chosen image."""
        self._kept[int(index)] = figure

    def _ranked(self) -> dict[str, list[int]]:
        """The indices of the chosen images of each kind, in order."""
        kinds = {kind: [index for _, index in ranked] for kind, ranked in self._kinds.items()}
        if self._small:  # Without the images that could not be read, there may be too few for both.
            kinds['best'] = [index for index in kinds['best'] if index not in kinds['worst']]
        return kinds

    def chosen(self) -> dict[int, tuple[list[str], Figure]]:
        """The chosen images by index: why each was chosen (`fixed 1`, `worst 2`, …), and its figure."""
        found: dict[int, tuple[list[str], Figure]] = {}
        for kind, ranked in self._ranked().items():
            for number, index in enumerate(ranked, 1):
                found.setdefault(index, ([], self._kept[index]))[0].append(f'{kind} {number}')
        return found

    def figures(self) -> list[ImageSummary]:
        """Draws each image once: `fixed/1`, …, `worst/1` (the very worst), …, `best/1`, …"""
        drawn = {index: figure.draw() for index, figure in self._kept.items()}
        return [
            ImageSummary(f'{kind}/{number}', drawn[index], photo=True)
            for kind, ranked in self._ranked().items()
            for number, index in enumerate(ranked, 1)
        ]
