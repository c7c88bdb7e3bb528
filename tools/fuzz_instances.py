"""The formats `labelme` and `yolo` of tools/fuzz.py."""

from __future__ import annotations

import pathlib

import numpy as np
from fuzz_mutations import of_bytes, of_json, of_words
from fuzz_seeds import Format, Seed


def labelme(folder: pathlib.Path) -> Format:
    from PIL import Image

    from seg.datasets.labelme import labelme as reader
    from seg.errors import UserError
    from tests.datasets.instances import exported

    Image.new('RGB', (32, 24)).save(folder / 'a.png')
    square = [2, 2, 10, 2, 10, 10, 2, 10]
    shapes = [
        exported.shape('cat', square),
        exported.shape('cat', square, group_id=1),
        exported.shape('dog', [12, 4, 20, 12], shape_type='rectangle', group_id=1),
        exported.shape('dog', [12, 12, 15, 12], shape_type='circle'),
        exported.shape('dog', [20, 3, 24, 8], shape_type='mask', mask=exported.png(np.tri(5, 4, dtype=bool))),
        exported.shape('dog', [20, 3], shape_type='point'),
    ]
    exported.labelme_file(folder / 'a.json', shapes, 'a.png', 24, 32)

    def read(path: str) -> None:
        _use(reader(data_dir=str(folder), fractions={'train': 1.0}, verify=False))

    content = (folder / 'a.json').read_bytes()
    return Format([Seed('a.json', content, (of_bytes, of_json, of_json, of_json))], read, (UserError,))


def yolo(folder: pathlib.Path) -> Format:
    from PIL import Image

    from seg.datasets.yolo import yolo as reader
    from seg.errors import UserError

    for name in ('images/train', 'labels/train'):
        (folder / name).mkdir(parents=True)
    Image.new('RGB', (32, 24)).save(folder / 'images/train/a.png')
    lines = b'0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n1 0.25 0.5 0.75 0.5 0.5 0.9\n1 0.5 0.5 0.1 0.1\n'
    described = b'path: .\ntrain: images/train\nval:\n  - images/train\nnc: 2\nnames:\n  0: cat\n  1: dog\n'
    files = {'labels/train/a.txt': lines, 'data.yaml': described}
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def read(path: str) -> None:
        _use(reader(data_dir=str(folder), verify=False))

    return Format([Seed(name, content, (of_bytes, of_words)) for name, content in files.items()], read, (UserError,))


def _use(dataset) -> None:
    """Checks a data set, and reads the instances of its first image."""
    dataset.verify()
    found = dataset.annotations(0)
    assert np.isfinite(found.area).all() and np.isfinite(found.boxes).all(), 'an area or a box is not finite'
    assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= [found.height, found.width]).all(), 'a box lies outside'
