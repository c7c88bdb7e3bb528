"""The formats of tools/fuzz.py: small valid files, their mutations, and seg's readers.

There is no `npz`: seg writes such files (`--probabilities`) and reads none.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import random
import shutil
import struct
import zipfile
import zlib

import numpy as np
from fuzz_archives import archive
from fuzz_instances import labelme, yolo
from fuzz_label_maps import cityscapes, folders
from fuzz_mutations import of_bytes, of_json, of_lines
from fuzz_records import arrayrecord, tfrecord
from fuzz_seeds import Format, Seed


def make(name: str, folder: pathlib.Path) -> Format:
    """Makes a format, and its valid files in the folder."""
    return FORMATS[name](folder)


def _pth(folder: pathlib.Path) -> Format:
    from seg.errors import UserError
    from seg.weights import torch_file
    from tests.weights import torch_files

    draw = np.random.default_rng(0)
    base = draw.normal(size=(4, 3, 3, 3)).astype('f4')
    state = {f'layer{i}.weight': base * i for i in range(3)} | {'steps': np.arange(5), 'half': base[0].astype('f2')}
    views = {
        'module.a': torch_files.Tensor(base, key='7'),
        'module.b': torch_files.Tensor(base, key='7', offset=3, shape=(3, 9), strides=(27, 1), parameter=True),
        'module.c': torch_files.Tensor(draw.integers(0, 9, (3, 2)).astype('u2'), kind='BFloat16Storage'),
    }
    seeds = []
    for number, each in enumerate((state, {'state_dict': views, 'epoch': 3, 'arguments': {'rates': [0.1, (1, None)]}})):
        for write, mutations in (
            (torch_files.write_zip, (of_bytes, _inside_zip)),
            (torch_files.write_old, (of_bytes,)),
        ):
            path = folder / f'{write.__name__}{number}.pth'
            write(path, each)
            seeds.append(Seed(path.name, path.read_bytes(), mutations))
    return Format(seeds, torch_file.read, (UserError,))


def _inside_zip(draw: random.Random, content: bytes) -> bytes:
    """Changes one record, mostly the pickle, and keeps the archive around it valid."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickles = [name for name in records if name.endswith('data.pkl')]
    name = draw.choice(pickles * 9 + list(records))
    records[name] = of_bytes(draw, records[name])
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    return out.getvalue()


def _safetensors(folder: pathlib.Path) -> Format:
    from seg.errors import UserError
    from seg.weights import tensor_file

    draw = np.random.default_rng(0)
    tensors = {'model/a': draw.normal(size=(3, 4)).astype('f4'), 'n': np.array(7), 'flag': np.array([True, False])}
    own = folder / 'own.safetensors'
    tensor_file.write(str(own), tensors, {'step': 3, 'names': ['ä', 'b'], 'nested': {'a': [1.5, None]}})
    header = {
        'a': {'dtype': 'BF16', 'shape': [2, 3], 'data_offsets': [0, 12]},
        'b': {'dtype': 'F8_E4M3', 'shape': [4], 'data_offsets': [12, 16]},
        'c': {'dtype': 'F32', 'shape': [1, 2, 2], 'data_offsets': [16, 32]},
        '__metadata__': {'format': 'pt'},
    }
    other = _with_header(json.dumps(header).encode(), draw.bytes(32))

    seeds = [
        Seed('own.safetensors', own.read_bytes(), (of_bytes, _safetensors_header, _safetensors_metadata)),
        Seed('other.safetensors', other, (of_bytes, _safetensors_header)),
    ]
    return Format(seeds, tensor_file.read, (UserError,))


def _with_header(header: bytes, values: bytes) -> bytes:
    return struct.pack('<Q', len(header)) + header + values


def _split_header(content: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(content[:8], 'little')
    return content[8:end], content[end:]


def _safetensors_header(draw: random.Random, content: bytes) -> bytes:
    """Changes values of the header, and keeps its length correct."""
    header, values = _split_header(content)
    return _with_header(of_json(draw, header), values)


def _safetensors_metadata(draw: random.Random, content: bytes) -> bytes:
    """Changes our metadata or the list of checksums, and recomputes the header's checksum."""
    header, values = _split_header(content)
    parsed = json.loads(header)
    metadata = parsed['__metadata__']
    name = draw.choice(('metadata', 'crc32'))
    change = draw.choice((of_json, of_bytes))
    metadata[name] = change(draw, metadata[name].encode()).decode('utf-8', 'replace')
    metadata['header_crc32'] = str(zlib.crc32(f'{metadata["metadata"]}\n{metadata["crc32"]}'.encode()))
    return _with_header(json.dumps(parsed).encode(), values)


def _h5(folder: pathlib.Path) -> Format:
    import h5py

    from seg.errors import UserError
    from seg.weights import keras_file

    draw = np.random.default_rng(0)

    def fill(group: h5py.Group, chunked: bool) -> None:
        group.attrs['layer_names'] = [b'conv', b'bn']
        for name in ('conv/conv/kernel:0', 'conv/conv/bias:0', 'bn/resnet/bn/gamma:0'):
            group.create_dataset(name, data=draw.normal(size=(3, 4)).astype('f4'), chunks=(2, 2) if chunked else None)
        group.create_dataset('bn/bn/steps:0', data=np.arange(4))

    seeds = []
    for name, inside, settings, chunked in (
        ('weights.h5', '', {}, False),
        ('model.h5', 'model_weights', {}, True),
        ('latest.h5', '', {'libver': 'latest'}, True),
    ):
        with h5py.File(folder / name, 'w', **settings) as file:
            fill(file.create_group(inside) if inside else file, chunked)
        seeds.append(Seed(name, (folder / name).read_bytes()))
    return Format(seeds, keras_file.read, (UserError,))


def _coco(folder: pathlib.Path) -> Format:
    from pycocotools import mask as coco_mask

    from seg.datasets.instances import coco_json
    from seg.errors import UserError

    images = [{'id': i, 'file_name': f'{i}.png', 'height': 24, 'width': 32} for i in range(3)]
    square = {'bbox': [2, 2, 8, 8], 'area': 64.0, 'iscrowd': 0, 'segmentation': [[2, 2, 10, 2, 10, 10, 2, 10]]}
    crowd = {'bbox': [0, 0, 32, 24], 'area': 99, 'iscrowd': 1}
    runs = coco_mask.encode(np.asfortranarray(np.eye(24, 32, dtype=np.uint8)))['counts']
    forms = [
        square,
        crowd | {'segmentation': {'counts': [100, 99, 24 * 32 - 199], 'size': [24, 32]}},
        square | {'segmentation': [[1.5, 1, 9, 1.25, 5, 9], [20, 20, 25, 20, 25, 23]]},
        {'segmentation': {'counts': runs.decode(), 'size': [24, 32]}},
    ]
    annotations = [form | {'id': i, 'image_id': i % 3, 'category_id': 1 + i % 2} for i, form in enumerate(forms)]
    categories = [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b', 'supercategory': 'c'}]
    content = json.dumps({'info': {}, 'images': images, 'annotations': annotations, 'categories': categories}).encode()

    def read(path: str) -> None:
        contents = coco_json.read(path)
        found = contents.instances
        drawn = np.diff(found.outline_splits) == 0  # The others may be filled when they are drawn.
        assert np.isfinite(found.area[drawn]).all() and np.isfinite(found.boxes[drawn]).all(), 'no finite area or box'

    return Format([Seed('instances.json', content, (of_bytes, of_json, of_json, of_json))], read, (UserError,))


def _image(folder: pathlib.Path) -> Format:
    import tensorflow as tf
    from PIL import Image

    from seg.datasets import image_files
    from seg.errors import UserError
    from seg.prediction import reading

    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (13, 17, 3)).astype(np.uint8)
    colours, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        'a.jpg': (colours, {'exif': exif}),
        'b.jpg': (grey, {'progressive': True}),
        'c.jpg': (colours.convert('CMYK'), {}),
        'a.png': (colours, {}),
        'b.png': (colours.quantize(16), {'transparency': 3}),
        'c.png': (deep, {}),
        'd.png': (colours.convert('RGBA'), {}),
        'a.bmp': (colours, {}),
        'a.gif': (colours.quantize(16), {}),
        'a.tif': (colours, {'compression': 'tiff_deflate'}),
        'b.tif': (deep, {}),
        'a.webp': (colours, {}),
        'a.ppm': (colours, {}),
    }
    for name, (image, settings) in images.items():
        image.save(folder / name, **settings)
    decode = tf.function(image_files.decode_image, input_signature=[tf.TensorSpec([], tf.string)])

    def read(path: str) -> None:
        refused = []
        if path.endswith(('.jpg', '.png')):
            for look in (image_files.read_header, lambda path: decode(tf.io.read_file(path)).numpy()):
                try:
                    look(path)
                except (ValueError, tf.errors.OpError) as error:  # The contract of both.
                    refused.append(error)
        with reading.limited(180):
            reading.read_size(path)
            reading.read_image(path)
        if refused:
            raise refused[0]

    seeds = [Seed(name, (folder / name).read_bytes()) for name in images]
    return Format(seeds, read, (UserError, reading.ImageError, ValueError, tf.errors.OpError))


def _label(folder: pathlib.Path) -> Format:
    import tensorflow as tf
    from PIL import Image

    from seg.datasets import image_files
    from seg.errors import UserError

    samples = np.random.default_rng(0).integers(0, 2, (11, 19)).astype(np.uint8)
    palette = Image.fromarray(samples * 3)
    palette.putpalette(list(range(256)) * 3)
    masks = {
        'palette.png': (palette, {}),
        'palette4.png': (palette, {'bits': 4}),
        'grey.png': (Image.fromarray(samples * 7), {}),
        'one_bit.png': (Image.fromarray(samples > 0), {}),
        'deep.png': (Image.fromarray(samples.astype(np.uint16) * 300), {}),
    }
    for name, (mask, settings) in masks.items():
        mask.save(folder / name, **settings)
    decode = tf.function(image_files.decode_label, input_signature=[tf.TensorSpec([], tf.string)])

    def read(path: str) -> None:
        with contextlib.suppress(ValueError):
            image_files.read_header(path)
        decode(tf.io.read_file(path)).numpy()

    seeds = [Seed(name, (folder / name).read_bytes()) for name in masks]
    return Format(seeds, read, (UserError, tf.errors.OpError))


def _run(folder: pathlib.Path) -> Format:
    from seg import config
    from seg.errors import UserError
    from seg.executor.checkpoints import Checkpoints
    from seg.report import page, run_files
    from seg.run import dataset_info, event_files
    from seg.run import settings as settings_of_run
    from seg.run.folder import RunFolder
    from seg.run.metrics_log import MetricsLog
    from seg.structures import DatasetInfo
    from tests.report import made

    run = made.run(folder)
    run_folder = RunFolder(run)
    made.edit(folder / 'run.json', lambda values: values.update(training={}, free={}))  # No settings are parsed.
    info = DatasetInfo(
        name='pets/train',
        class_names=made.NAMES,
        num_examples=9,
        max_size=(24, 32),
        colors=((0, 0, 0), (9, 0, 0), (0, 9, 0)),
    )
    dataset_info.write(run_folder, info, None)
    made.events(folder, 300, [made.photo('1_fixed/a'), made.figure('confusion')])
    checkpoints = Checkpoints(run_folder, 5)
    for step in (200, 300):
        checkpoints.save(step, {'model/a': np.ones(3, 'f4')}, {'seed': 7, 'counter': [1, 2]})
    page.curves = lambda run: []  # Drawn by matplotlib from finite numbers alone, at a second a page.

    def training(path: str) -> None:
        settings_of_run.check(run_folder)
        settings_of_run.changed_for_evaluation(run_folder)

    def classes(path: str) -> None:
        dataset_info.read_class_histogram(run_folder, info)
        dataset_info.read(run_folder)

    def metrics(path: str) -> None:
        log = MetricsLog(path)
        assert all(line['step'] >= 0 for line in log.read().lines)
        log.cut(250)

    def settings(path: str) -> None:
        config.clear()
        config.parse([path])

    readers = {
        'run.json': training,
        'dataset_info.json': classes,
        'metrics.jsonl': metrics,
        'config.gin': settings,
        'ckpt-00000300.safetensors': lambda path: (checkpoints.latest(set_aside=False), checkpoints.read(path)),
    }

    def read(path: str) -> None:
        if os.path.basename(os.path.dirname(path)) == 'eval' and 'tfevents' in path:
            event_files.starts(os.path.dirname(path))
        page.render(run_files.read(run))
        if reader := readers.get(os.path.basename(path)):
            reader(path)

    names = [
        *('run.json', 'dataset_info.json', 'metrics.jsonl', 'results.json', 'config.gin', 'ckpt-00000300.safetensors'),
        *(str(path.relative_to(folder)) for path in (folder / 'eval').iterdir()),
    ]
    structured = {'.json': (of_bytes, of_json, of_json), '.jsonl': (of_bytes, of_lines)}
    own = {'.safetensors': (of_bytes, _safetensors_header, _safetensors_metadata)}
    seeds = [
        Seed(name, (folder / name).read_bytes(), (structured | own).get(os.path.splitext(name)[1], (of_bytes,)))
        for name in names
    ]
    return Format(seeds, read, (UserError,))


def restore(folder: pathlib.Path, seed: Seed) -> None:
    """Restores the valid file, whatever a reader did to the mutated one."""
    path = folder / seed.name
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(seed.content)


FORMATS = {
    'pth': _pth,
    'safetensors': _safetensors,
    'h5': _h5,
    'coco': _coco,
    'labelme': labelme,
    'yolo': yolo,
    'image': _image,
    'label': _label,
    'folders': folders,
    'cityscapes': cityscapes,
    'tfrecord': tfrecord,
    'arrayrecord': arrayrecord,
    'archive': archive,
    'run': _run,
}
