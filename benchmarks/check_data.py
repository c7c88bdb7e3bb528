"""How long `--mode=check_data` takes on a data set of PASCAL VOC's size, and whether its memory is flat.

    python benchmarks/check_data.py [--images 20000] [--instances] [--folder DIR] [--seed 0]

Makes photos of about 500 x 375 pixels and 100 kB, and label maps, in PASCAL VOC's layout (on two cores 20,000 take
some minutes and 2.5 GB). With `--folder` they stay there for the next time; otherwise they are removed at the end. Then
checks 2,000 of them and all of them, each in a process of its own that remembers nothing of another one, and prints for
each the seconds, the CPU seconds and the peak memory, with the number of findings.

With `--instances` there are instance maps, too, and the task is Mask R-CNN's.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = ((375, 500), (500, 375), (333, 500), (500, 333), (360, 480), (281, 500), (366, 500), (500, 400))
CANVAS = 3072  # Pixels of a side of the picture that all images are parts of.
CLASSES = 21
FEW = 2_000
_GIN = {
    False: "include 'gin/deeplab_voc.gin'\n",
    True: """include 'gin/maskrcnn_coco.gin'
experiment.train_data = @train/datasets.voc_layout
experiment.eval_data = @eval/datasets.voc_layout
datasets.voc_layout.data_dir = %DATA_DIR
train/datasets.voc_layout.split = %TRAIN_SPLIT
eval/datasets.voc_layout.split = %EVAL_SPLIT
""",
}


def canvas(draw: np.random.Generator, power: float) -> np.ndarray:
    """Noise whose amplitude falls with the frequency, as in photos; float32 [CANVAS, CANVAS], mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(CANVAS)[:, None], np.fft.rfftfreq(CANVAS)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(draw.standard_normal((CANVAS, CANVAS), np.float32)) / frequency**power)
    return (noise / noise.std()).astype(np.float32)


def make(folder: pathlib.Path, images: int, instances: bool, seed: int) -> None:
    """Writes images, label maps and, for instances, instance maps: different parts of one large picture."""
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation', *(['SegmentationObject'] * instances)):
        (folder / name).mkdir(parents=True)
    draw = np.random.default_rng(seed)
    light = canvas(draw, 1.0)
    colors = np.stack([40 * light + 14 * canvas(draw, 1.0) for _ in range(3)], axis=-1)
    colors = np.clip(colors + 128, 0, 255).astype(np.uint8)
    objects = canvas(draw, 2.0) > 0.8  # Blobs.

    def write(number: int) -> None:
        own = np.random.default_rng([seed, number])
        height, width = SIZES[number % len(SIZES)]
        top, left = own.integers(0, [CANVAS - height, CANVAS - width])
        window = np.s_[top : top + height, left : left + width]
        stem = f'2007_{number:06}'
        Image.fromarray(colors[window]).save(folder / f'JPEGImages/{stem}.jpg', quality=90)
        numbers = np.zeros((height, width), np.uint8)
        for part in range(1, 4):  # Thirds of the width, each with one object of a class that is not background.
            columns = np.s_[:, (part - 1) * width // 3 : part * width // 3]
            numbers[columns] = part * objects[window][columns]
            numbers[height // 3 : height // 2, (part - 1) * width // 3 + 9 : part * width // 3 - 9] = part
        classes = np.array([0, *own.choice(np.arange(1, CLASSES), 3, replace=False)], np.uint8)
        Image.fromarray(classes[numbers]).save(folder / f'SegmentationClass/{stem}.png')
        if instances:
            Image.fromarray(numbers).save(folder / f'SegmentationObject/{stem}.png')

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(images)))


def check(folder: pathlib.Path, count: int, instances: bool) -> None:
    """Checks the first images, four of five for training, and prints what it takes."""
    stems = [f'2007_{number:06}\n' for number in range(count)]
    for split, names in (('train', stems[: count * 4 // 5]), ('val', stems[count * 4 // 5 :])):
        (folder / f'ImageSets/Segmentation/{split}.txt').write_text(''.join(names))
    with tempfile.TemporaryDirectory() as scratch:
        gin_file = pathlib.Path(scratch) / 'check.gin'
        gin_file.write_text(_GIN[instances] + "TRAIN_SPLIT = 'train'\nEVAL_SPLIT = 'val'\n")
        command = [sys.executable, '-c', 'from seg import seg_main; seg_main.run()', '--mode=check_data']
        command += [f'--gin_file={gin_file}', f'--gin_param=DATA_DIR={str(folder)!r}', f'--output={scratch}/found']
        environment = os.environ | {'XDG_CACHE_HOME': scratch, 'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONPATH': str(ROOT)}
        began = time.perf_counter()
        with open(f'{scratch}/log', 'wb') as log:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            sys.exit(pathlib.Path(scratch, 'log').read_text()[-2000:])
        found = json.loads(pathlib.Path(scratch, 'found/check_data.json').read_text())
        told = ', '.join(f'{found[severity]} {severity}' for severity in ('fix', 'warn', 'note'))
    cpu = usage.ru_utime + usage.ru_stime
    print(
        f'{count:6} images {wall:7.1f} s {cpu:7.1f} CPU s  peak {usage.ru_maxrss / 2**20:4.2f} GiB  ({told})',
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=20_000)
    parser.add_argument('--instances', action='store_true')
    parser.add_argument('--folder', type=pathlib.Path)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir='/var/tmp') as scratch:  # On disk, where /tmp may be in memory.
        folder = (args.folder or pathlib.Path(scratch) / 'data').absolute()
        if not folder.exists():
            make(folder, args.images, args.instances, args.seed)
        sizes = [path.stat().st_size for path in (folder / 'JPEGImages').iterdir()]
        print(f'{len(sizes)} images of {np.mean(sizes) / 1000:.0f} kB on average', flush=True)
        for count in sorted({min(FEW, args.images), args.images}):
            check(folder, count, args.instances)


if __name__ == '__main__':
    main()
