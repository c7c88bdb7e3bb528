"""The gin settings of `--mode=predict`."""

from __future__ import annotations

import dataclasses

from seg.errors import UserError
from seg.number_checks import check_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Treatment of images in `--mode=predict`.

    Attributes:
      large_pictures: treatment of images larger than the canvas, which is as large as the largest training image.
        'shrink': scaled down to fit, and the prediction scaled back up; the model sees the whole image. 'tile', for
        class maps only: cut into overlapping windows at the image's scale; the model sees small details, but no window
        shows the whole image.
      tile_overlap: overlap of neighbouring windows, as a fraction of the window, from 0 to 0.9.
      opacity: opacity of the colours of classes and instances in overlays, from 0 to 1.
      min_score: instances with a lower score are not drawn; `detections.json` and the lines have all. From 0 to 1.
      max_megapixels: larger images are refused, because their file may be a decompression bomb.
      memory_mb: memory of the images in progress at a time, about; at least one image is in progress.
    """

    large_pictures: str = 'shrink'
    tile_overlap: float = 0.25
    opacity: float = 0.5
    min_score: float = 0.5
    max_megapixels: float = 180
    memory_mb: int = 1024

    def __post_init__(self):
        if self.large_pictures not in ('shrink', 'tile'):
            raise UserError(f"predict.large_pictures = {self.large_pictures!r}: expected 'shrink' or 'tile'.")
        for name, lowest, highest in (
            ('tile_overlap', 0, 0.9),
            ('opacity', 0, 1),
            ('min_score', 0, 1),
            ('max_megapixels', 0.001, 1e6),
            ('memory_mb', 0.001, 1e9),
        ):
            check_number(f'predict.{name}', getattr(self, name), lowest, highest)
