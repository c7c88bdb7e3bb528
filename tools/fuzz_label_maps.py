"""The formats `folders` and `cityscapes` of tools/fuzz.py: small data sets, of which one file is damaged."""

from __future__ import annotations

import os
import pathlib

import numpy as np
from fuzz_seeds import Format, Seed

_SIZE = (9, 14)


def folders(folder: pathlib.Path) -> Format:
    """Images, and labels of each kind, in folders of any names."""
    from PIL import Image

    from seg.datasets.folders import folders as reader

    draw = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 2
    label = draw.integers(0, 3, _SIZE).astype(np.uint8)
    pixels = draw.integers(0, 256, (*_SIZE, 3)).astype(np.uint8)
    grey, palette = Image.fromarray(label), Image.fromarray(label)
    palette.putpalette(list(range(9)) * 3)
    colors = Image.fromarray(np.uint8([(128, 64, 128), (0, 0, 142), (70, 130, 180)])[label])
    deep = Image.fromarray(label.astype(np.uint16) * 1000)
    for number, (ending, options) in enumerate(
        (
            ('jpg', {'exif': exif}),
            ('png', {}),
            ('webp', {'exif': exif}),
            ('tif', {'compression': 'tiff_lzw'}),
            ('bmp', {}),
        )
    ):
        _save(folder / f'photos/{number}.{ending}', Image.fromarray(pixels), **options)
    for number, (image, ending) in enumerate(
        ((grey, 'png'), (palette, 'png'), (grey.convert('LA'), 'png'), (palette, 'tif'))
    ):
        _save(folder / f'ids/{number}_id.{ending}', image)
    np.save(folder / 'ids/4_id.npy', label.astype(np.int64))
    for number, (image, ending) in enumerate(
        (
            (colors, 'png'),
            (colors.convert('RGBA'), 'png'),
            (colors.quantize(4), 'png'),
            (colors, 'tif'),
            (colors, 'bmp'),
        )
    ):
        _save(folder / f'colors/{number}.{ending}', image)
    for number, (image, ending) in enumerate(
        ((grey, 'png'), (deep, 'png'), (deep, 'tif'), (palette, 'png'), (palette, 'bmp'))
    ):
        _save(folder / f'numbers/{number}.{ending}', image)
    (folder / 'colors.txt').write_text('road = #804080\ncar,0,0,142\nsky: 70,130,180\n')
    (folder / 'class_names.txt').write_text('road\ncar\nsky\n')
    (folder / 'all.txt').write_text('0\nphotos/1.png ids/1.png\n2\n3\n4\n')
    common = {
        'data_dir': str(folder),
        'images': 'photos',
        'split': 'all',
        'lists': '{split}.txt',
        'orientation': 'apply',
    }
    by_id = {'labels': 'ids', 'target': 'label_map'}
    by_color = {'labels': 'colors', 'colors': 'colors.txt', 'target': 'label_map'}
    of_one_class = {'instances': 'numbers', 'class_names': ('cell',), 'target': 'instances'}

    def read(path: str) -> None:
        name = os.path.relpath(path, folder)
        for settings in (by_id, by_color, of_one_class):
            used = (settings.get('labels'), settings.get('instances'), settings.get('colors'))
            if name.split('/')[0] in used or settings is by_id and not name.startswith(('colors', 'numbers')):
                load(reader(**common, **settings), settings['target'])

    seeds = [Seed(str(file.relative_to(folder)), file.read_bytes()) for file in _files(folder)]
    return Format(seeds, read, refusals())


def cityscapes(folder: pathlib.Path) -> Format:
    """Two images of Cityscapes, for both targets."""
    from PIL import Image

    from seg.datasets.cityscapes import cityscapes as reader

    draw = np.random.default_rng(0)
    for stem in ('a_0', 'a_1'):
        ids = draw.integers(0, 34, _SIZE).astype(np.uint8)
        numbers = np.where(ids >= 24, ids.astype(np.uint16) * 1000 + draw.integers(0, 3, _SIZE), ids).astype(np.uint16)
        pixels = draw.integers(0, 256, (*_SIZE, 3)).astype(np.uint8)
        _save(folder / f'leftImg8bit/train/a/{stem}_leftImg8bit.png', Image.fromarray(pixels))
        _save(folder / f'gtFine/train/a/{stem}_gtFine_labelIds.png', Image.fromarray(ids))
        _save(folder / f'gtFine/train/a/{stem}_gtFine_instanceIds.png', Image.fromarray(numbers))

    def read(path: str) -> None:
        target = 'label_map' if path.endswith('labelIds.png') else 'instances'
        load(reader(data_dir=str(folder), target=target), target)

    return Format([Seed(str(file.relative_to(folder)), file.read_bytes()) for file in _files(folder)], read, refusals())


def _save(path: pathlib.Path, image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in sorted(folder.rglob('*')) if file.is_file()]


def refusals() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    from seg.errors import UserError

    return UserError, tf.errors.OpError


def load(dataset, target: str) -> None:
    """Verifies a data set and loads its examples; what passes the checks must keep the contract."""
    import tensorflow as tf

    from seg.datasets import contract
    from seg.errors import UserError

    dataset.verify()
    for index in range(dataset.info.num_examples):
        example = dataset.load(tf.constant(index, tf.int64))
        try:
            contract.check(example, dataset.info, dataset.image_name(index), target)
        except UserError as error:
            raise AssertionError(f'the checks passed, and an example is wrong: {error}') from error
