"""Makes the picture of README.md: unseen scenes, and what the two demos find in them.

seg_main --gin_file=gin/deeplab_shapes.gin
seg_main --gin_file=gin/maskrcnn_shapes.gin
python tools/example_picture.py docs/example.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

import seg
from seg.datasets.shapes import shapes

RUNS = ('runs/deeplab_shapes', 'runs/maskrcnn_shapes')
SCENES = (0, 1, 2, 3)  # The first ones: nothing is chosen.
SIDE, GAP = 256, 8  # Pixels.


def main(path: str) -> None:
    scenes = shapes(split='val')
    drawn = [Image.fromarray(scenes.load(index)['image'].numpy()).resize((SIDE, SIDE)) for index in SCENES]
    rows = [[np.asarray(scene) for scene in drawn]]
    rows += [[found.overlay() for found in seg.load(run)(drawn)] for run in RUNS]
    step = SIDE + GAP
    picture = np.full((len(rows) * step - GAP, len(SCENES) * step - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            picture[i * step : i * step + SIDE, j * step : j * step + SIDE] = tile
    Image.fromarray(picture).save(path, quality=80)


if __name__ == '__main__':
    main(*sys.argv[1:])
