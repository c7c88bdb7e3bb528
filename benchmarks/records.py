"""How fast images are read from converted records, beside the loose files that they come from.

    python benchmarks/records.py [--folder DIR] [--images 400] [--rounds 5] [--threads 2] [--seed 0]

Makes images of PASCAL VOC's size (JPEG, 375 x 500 pixels) with label maps, converts them as `--mode=convert` does, and
reads both in the same shuffled order, in alternating rounds. With `--folder` the files stay there for the next time.
Prints images per second, the median of the rounds and their range, and the memory of the process after each kind:

- `load`: whole examples, decoded, as a training gets them;
- `bytes`: the stored bytes alone, without decoding;
- `cold`: the same, after the kernel has been asked to forget the files (`posix_fadvise`), so that the disk is read.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import seg  # noqa: E402, F401  # isort: skip  Before TensorFlow.
import numpy as np  # noqa: E402
import psutil  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

from seg.datasets.records import conversion  # noqa: E402
from seg.datasets.tfds import tfds  # noqa: E402
from seg.datasets.voc_layout import voc_layout  # noqa: E402

SIZE = (375, 500)


def make(folder: pathlib.Path, count: int, seed: int) -> None:
    """Writes images and label maps in VOC's layout, if they are not there."""
    names = [f'{number:06d}' for number in range(count)]
    lists = folder / 'ImageSets/Segmentation'
    if (lists / 'train.txt').exists() and (lists / 'train.txt').read_text().split() == names:
        return
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name in names:
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(SIZE[::-1], Image.BICUBIC)
        pixels = np.asarray(coarse, np.int16) + random.normal(0, 12, (*SIZE, 3)).astype(np.int16)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f'JPEGImages/{name}.jpg', quality=90)
        label = Image.fromarray(random.choice(np.uint8([0, 0, 5, 12, 255]), (6, 8))).resize(SIZE[::-1], Image.NEAREST)
        label.save(folder / f'SegmentationClass/{name}.png')
    (lists / 'train.txt').write_text('\n'.join(names) + '\n')


def forget(folder: pathlib.Path) -> None:
    """Asks the kernel to drop the files of a folder from its cache."""
    for path in folder.rglob('*'):
        if path.is_file():
            with open(path, 'rb') as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(load: Callable, order: np.ndarray, threads: int) -> float:
    """Images per second of one pass."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    load = tf.autograph.experimental.do_not_convert(load)
    examples = tf.data.Dataset.from_tensor_slices(order).map(load, num_parallel_calls=threads).with_options(options)
    iterator = iter(examples)
    next(iterator)
    began, seen = time.perf_counter(), 0
    for _ in iterator:
        seen += 1
    return seen / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder')
    parser.add_argument('--images', type=int, default=400)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(settings.folder or scratch)
        loose, records = root / 'loose', root / 'records'
        make(loose, settings.images, settings.seed)
        files = voc_layout(data_dir=str(loose), verify=False)
        began = time.perf_counter()
        conversion.convert(conversion.plan({'experiment.train_data': files}, 'label_map'), str(records))
        print(f'{"convert, with reading back":40} {settings.images / (time.perf_counter() - began):8.0f} images/s')
        read = tfds(name=str(records), verify=False)
        _ = files.info, read.info  # Headers are read once.
        order = np.random.default_rng(settings.seed).permutation(settings.images).astype(np.int64)

        def examples(dataset):
            def load(index):
                return tf.add_n([tf.reduce_max(tf.cast(part, tf.int32)) for part in dataset.load(index).values()])

            return load

        def bytes_of_files(index):
            paths = tf.gather(files._files.images, index), tf.gather(files._files.labels, index)
            return sum(tf.strings.length(tf.io.read_file(path)) for path in paths)

        def bytes_of_records(index):
            return tf.strings.length(read._labels.index.files.read(index))

        kinds = {
            'load': (examples(files), examples(read), False),
            'bytes': (bytes_of_files, bytes_of_records, False),
            'cold': (bytes_of_files, bytes_of_records, True),
        }
        for kind, (of_files, of_records, cold) in kinds.items():
            found = {'loose files': [], 'records': []}
            for _ in range(settings.rounds):
                for title, load, folder in (('loose files', of_files, loose), ('records', of_records, records)):
                    if cold:
                        forget(folder)
                    found[title].append(rate(load, order, settings.threads))
            for title, rates in found.items():
                print(
                    f'{f"{kind}, {title}":40} {statistics.median(rates):8.0f} images/s  '
                    f'({min(rates):.0f} to {max(rates):.0f})'
                )
            print(f'{"memory of the process":40} {psutil.Process().memory_info().rss / 2**20:8.0f} MiB', flush=True)


if __name__ == '__main__':
    main()
