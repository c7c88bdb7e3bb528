"""A small data set in COCO's format, to be damaged by tests."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from seg.datasets.coco import coco
from seg.errors import UserError

SIZES = ((30, 40), (34, 28), (25, 25))  # (height, width)
SQUARE = [4, 5, 14, 5, 14, 17, 4, 17]


def annotation(number, image, segmentation, category=7, **more):
    return {
        'id': number, 'image_id': 100 + image, 'category_id': category, 'segmentation': segmentation, 'iscrowd': 0,
        'bbox': [4, 5, 10, 12], 'area': 120.0, **more,
    }  # fmt: skip


def runs(image, seed=0):
    """A random mask as COCO's compressed and uncompressed runs."""
    height, width = SIZES[image]
    counts = np.random.default_rng(seed).integers(1, 9, 40)
    counts = [*counts.tolist(), height * width - int(counts.sum())]
    return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width), counts


def contents():
    """Three images, the last without instances; polygons, runs of both kinds, a crowd; sparse category ids, id 0."""
    compressed, counts = runs(1)
    text = {'size': [34, 28], 'counts': compressed['counts'].decode()}
    return {
        'images': [
            {'id': 100 + n, 'file_name': f'img{n}.png', 'height': height, 'width': width}
            for n, (height, width) in enumerate(SIZES)
        ],
        'categories': [{'id': 90, 'name': 'zebra'}, {'id': 7, 'name': 'ant'}, {'id': 13, 'name': 'bee'}],
        'annotations': [
            annotation(0, 0, [SQUARE]),
            annotation(5, 1, text, 90, bbox=[0.5, 0, 20.5, 34]),
            annotation(3, 0, [SQUARE, [20.5, 3.2, 33.3, 8.1, 25, 28.9], [1, 1, 2, 2]], 13, bbox=[4, 3, 29.3, 25.9]),
            annotation(8, 1, {'size': [34, 28], 'counts': counts}, 90, iscrowd=1, bbox=[0, 0, 21, 34], area=7.5),
        ],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'train').mkdir()
    for n, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(n).integers(0, 256, [height, width, 3], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'train/img{n}.png')
    (tmp_path / 'annotations').mkdir()
    write(tmp_path, contents())
    return tmp_path


def write(folder, data, name='annotations/instances_train.json'):
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))


def decoded(encoded):
    """A mask in COCO's form as bool [H, W]."""
    return coco_mask.decode(encoded).astype(bool)


def verified(folder, **settings):
    """The data set, after its warnings were logged."""
    dataset = coco(data_dir=str(folder), **settings)
    dataset.verify()
    return dataset


def refused(message, folder, data=None, **settings):
    """Writes the file, builds, verifies, and returns the text of the error."""
    if data is not None:
        write(folder, data)
    with pytest.raises(UserError, match=message) as caught:
        coco(data_dir=str(folder), **settings).verify()
    return str(caught.value)
