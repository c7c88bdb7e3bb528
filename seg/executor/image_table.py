"""All images of an evaluation with their scores, and small pictures of most: the content of the report's table."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from seg.run.evaluated_images import EvaluatedImage
from seg.structures import Figure

_MOST, _FEW = 500, 50  # Images with a picture, spread evenly: of the last evaluation, and of those before it.
_BUDGET = 6e6  # Bytes of all small pictures, about; …
_BYTES_PER_PIXEL = 0.2  # … of a JPEG of photographs and label maps.
_SMALLEST, _LARGEST = 96, 480  # Pixels of the longer side of a small picture's panels.
_QUALITY = 80


class ImageTable:
    """Collects the images of one evaluation; only the encoded pictures stay in memory.

    Args:
      num_examples: number of images of the whole evaluation.
      image_name: function from the index of an image to its name.
      last: whether the evaluation is the run's last one. To draw many pictures may take longer than an evaluation.
    """

    def __init__(self, num_examples: int, image_name: Callable[[int], str], last: bool = True):
        self._num_examples, self._image_name, self._most = num_examples, image_name, _MOST if last else _FEW
        pixels = _BUDGET / max(min(num_examples, self._most), 1) / _BYTES_PER_PIXEL / 4  # Of one of about four panels.
        self._side = int(np.clip(math.sqrt(pixels), _SMALLEST, _LARGEST))
        self._scores: dict[int, float | None] = {}
        self._pictures: dict[int, dict[str, Any]] = {}

    def add(self, index: int, score: float) -> bool:
        """Adds an image, and says whether a picture of it is wanted; a score of NaN is none."""
        self._scores[index] = None if math.isnan(score) else float(score)
        step, most = max(self._num_examples, 1), self._most
        return self._num_examples <= most or index * most // step != (index - 1) * most // step

    def picture(self, index: int, figure: Figure) -> None:
        """Keeps a small picture of an image, if its figure has panels."""
        self._pictures[index] = _encoded(figure, self._side)

    def images(self, chosen: Mapping[int, tuple[Sequence[str], Figure]]) -> list[EvaluatedImage]:
        """All images in the order of the data set.

        Args:
          chosen: the images that are drawn large, by index: why, and the figure.
        """
        for index, (_, figure) in chosen.items():
            self._pictures[index] = _encoded(figure, _LARGEST)
        return [
            EvaluatedImage(
                self._image_name(index),
                self._scores[index],
                chosen=tuple(chosen[index][0]) if index in chosen else (),
                **self._pictures.get(index, {}),
            )
            for index in sorted(self._scores)
        ]


def _encoded(figure: Figure, side: int) -> dict[str, Any]:
    panels = figure.panels()
    if panels is None:
        return {}
    height, width = next(iter(panels.pixels.values())).shape[:2]
    factor = min(1, side / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    strip = Image.new('RGB', (size[1] * len(panels.pixels), size[0]))
    for place, pixels in enumerate(panels.pixels.values()):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        strip.paste(image if factor == 1 else image.resize(size[::-1], Image.Resampling.BOX), (place * size[1], 0))
    file = io.BytesIO()
    strip.save(file, 'JPEG', quality=_QUALITY, subsampling=0)
    return {'caption': panels.caption, 'headings': tuple(panels.pixels), 'size': size, 'strip': file.getvalue()}
