"""How fast a data set of COCO's size starts: reading of its annotations, beside pycocotools, and the checks of a run.

    python benchmarks/coco_start.py [--folder DIR] [--images 118000] [--instances 860000] [--seed 0]

Makes annotations of COCO's size (outlines of 28 points on average, about 500 MB), and small image files; with
`--folder` they stay there for the next time. Then prints, each from a process of its own:

- CPU seconds and peak memory of pycocotools' `COCO(path)`,
- those of `datasets.coco`, which reads the same file into arrays,
- the seconds of the checks before a run without decoding images, the first time and again,
- milliseconds per image of `load`, and of the instances in it. (Images are one colour, so decoding is fast.)
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (500, 375), (375, 500), (640, 640), (333, 500))
ROOT = pathlib.Path(__file__).resolve().parents[1]
_COMMON = """
import resource, sys, time
def report(title, began):
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f'{title:42} {cpu:6.1f} CPU s  {wall:6.1f} s  peak {peak:4.2f} GiB', flush=True)
def now():
    return time.perf_counter(), time.process_time()
folder = sys.argv[1]
"""
_PYCOCOTOOLS = """
from pycocotools.coco import COCO
began = now()
COCO(f'{folder}/annotations/instances_train.json')
report('pycocotools COCO(path)', began)
"""
_SEG = """
import tensorflow as tf
from seg.datasets.coco import coco
began = now()
dataset = coco(data_dir=folder, verify=False)
report('datasets.coco', began)
for title in ('checks without decoding', 'the same again'):
    began = now()
    dataset.verify()
    report(title, began)
count = 4000
def loop(title, load):
    images = tf.data.Dataset.range(count).map(load, num_parallel_calls=1)
    for _ in images.take(50):
        pass
    began = now()
    for _ in images:
        pass
    print(f'{title:42} {1000 * (time.perf_counter() - began[0]) / count:6.2f} ms per image', flush=True)
loop('load', dataset.load)
loop('  of it instances', lambda index: dataset._load_instances(index)[0])
"""


def outlines(draw: np.random.Generator, count: int, height: int, width: int) -> list[np.ndarray]:
    """Star-shaped outlines within an image, float64 [points, 2] of hundredths of a pixel."""
    found = []
    for _ in range(count):
        points = int(3 + draw.gamma(2.0, 12.5))
        radius = min(height, width) * draw.uniform(0.02, 1) ** 2 / 2.2 + 2
        angles = np.sort(draw.uniform(0, 2 * np.pi, points))
        reach = radius * draw.uniform(0.6, 1, points)
        middle = draw.uniform(0, 1, 2) * [width, height]
        outline = middle + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        found.append(np.clip(outline, 0, [width, height]).round(2))
    return found


def make(folder: pathlib.Path, images: int, instances: int, seed: int) -> None:
    """Writes images and annotations."""
    (folder / 'annotations').mkdir(parents=True)
    (folder / 'train').mkdir()
    for place, (height, width) in enumerate(SIZES):
        Image.new('RGB', (width, height), (40 * place, 90, 120)).save(folder / f'{place}.jpg')
    draw = np.random.default_rng(seed)
    of_image = draw.permutation(np.repeat(np.arange(images), draw.multinomial(instances, np.full(images, 1 / images))))
    with open(folder / 'annotations/instances_train.json', 'w', encoding='utf-8') as file:
        file.write('{"info": {"year": 2017}, "images": [')
        for n in range(images):
            height, width = SIZES[n % len(SIZES)]
            name = f'{n:012}.jpg'
            os.link(folder / f'{n % len(SIZES)}.jpg', folder / 'train' / name)
            entry = {
                'license': 3, 'file_name': name, 'coco_url': f'http://images.cocodataset.org/train2017/{name}',
                'height': height, 'width': width, 'date_captured': '2013-11-14 16:28:13', 'id': n + 9,
            }  # fmt: skip
            file.write(f'{", " if n else ""}{json.dumps(entry)}')
        file.write('], "annotations": [')
        for n, image in enumerate(of_image.tolist()):
            (outline,) = outlines(draw, 1, *SIZES[image % len(SIZES)])
            (x, y), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
            following = np.roll(outline, -1, axis=0)
            area = abs((outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]).sum()) / 2
            entry = {
                'segmentation': [outline.reshape(-1).tolist()], 'area': round(area, 4), 'iscrowd': 0,
                'image_id': image + 9, 'bbox': [x, y, round(right - x, 2), round(bottom - y, 2)],
                'category_id': int(n % 80 + 1), 'id': n + 1000,
            }  # fmt: skip
            file.write(f'{", " if n else ""}{json.dumps(entry)}')
        names = [{'supercategory': 'thing', 'id': n, 'name': f'class {n}'} for n in range(1, 81)]
        file.write(f'], "categories": {json.dumps(names)}}}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=pathlib.Path)
    parser.add_argument('--images', type=int, default=118_000)
    parser.add_argument('--instances', type=int, default=860_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or pathlib.Path(scratch) / 'data'
        if not folder.exists():
            make(folder, args.images, args.instances, args.seed)
        size = (folder / 'annotations/instances_train.json').stat().st_size
        print(f'{args.images} images, {args.instances} instances, {size / 1e6:.0f} MB', flush=True)
        environment = os.environ | {'XDG_CACHE_HOME': scratch, 'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONPATH': str(ROOT)}
        for program in (_PYCOCOTOOLS, _SEG):
            subprocess.run([sys.executable, '-c', _COMMON + program, str(folder)], check=True, env=environment)


if __name__ == '__main__':
    main()
