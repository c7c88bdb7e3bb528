"""The formats `tfrecord` and `arrayrecord` of tools/fuzz.py.

Of TFRecord files, also records with right checksums, and the memory of the index; of a set of TensorFlow Datasets, as
`--mode=convert` writes it, all files.
"""

from __future__ import annotations

import os
import pathlib
import random
import struct

import numpy as np
from fuzz_label_maps import load, refusals
from fuzz_mutations import of_bytes, of_json
from fuzz_seeds import Format, Seed

_SIZE = (9, 14)
_LONG_AGO = 10**18  # Nanoseconds: a file of this age is remembered.


def tfrecord(folder: pathlib.Path) -> Format:
    from PIL import Image

    from seg.datasets.tfrecord import tfrecord as reader
    from tests.datasets.records import written

    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (*_SIZE, 3)).astype(np.uint8)
    label = draw.integers(0, 3, _SIZE).astype(np.uint8)
    photo = written.encoded(Image.fromarray(image), 'JPEG')
    masks = [label == number for number in range(2)]
    objects = [{'box': (0, 0, *_SIZE), 'label': n + 1, 'mask': mask} for n, mask in enumerate(masks)]
    text = {'image__object__class__text': [b'cat', b'dog']}
    records = {
        'labels': [written.semantic(photo, written.png(label), f'a{number}') for number in range(2)],
        'objects': [written.coco(photo, _SIZE, number, f'a{number}', objects, **text) for number in range(2)],
    }
    files = {kind: written.write(folder / kind / 'train.tfrecord', each) for kind, each in records.items()}

    def read(path: str) -> None:
        for kind, file in files.items():
            if path in map(str, files.values()):  # It has just changed, so that its records are read.
                if path != str(file):
                    continue
            elif os.stat(file).st_mtime_ns != _LONG_AGO:
                os.utime(file, ns=(0, _LONG_AGO))
            target = 'label_map' if kind == 'labels' else 'instances'
            load(reader(data_dir=str(folder / kind), target=target), target)

    read('')
    memories = sorted((folder / '.cache/seg/checked').iterdir())
    own = (of_bytes, _of_data, _of_feature, _of_feature)
    seeds = [Seed(f'{kind}/{file.name}', file.read_bytes(), own) for kind, file in files.items()] * 3
    seeds += [Seed(str(file.relative_to(folder)), file.read_bytes(), (of_bytes, of_json)) for file in memories]
    return Format(seeds, read, refusals())


def arrayrecord(folder: pathlib.Path) -> Format:
    from seg.datasets.records import conversion
    from seg.datasets.tfds import tfds as reader
    from tests.datasets import small

    made = {'label_map': small.LabelMaps(), 'instances': small.Instances()}
    for target, dataset in made.items():
        conversion.convert(conversion.plan({'train': dataset}, target), str(folder / target))

    def read(path: str) -> None:
        target = os.path.relpath(path, folder).split(os.sep)[0]
        load(reader(name=str(folder / target), target=target), target)

    files = [file for target in made for file in sorted((folder / target).rglob('*')) if file.is_file()]
    mutations = {'.json': (of_bytes, of_json, of_json)}
    seeds = [
        Seed(str(file.relative_to(folder)), file.read_bytes(), mutations.get(file.suffix, (of_bytes,)))
        for file in files
    ]
    return Format(seeds, read, refusals())


def _of_data(draw: random.Random, content: bytes) -> bytes:
    """Changes the data of one record; its length and checksums are right."""
    records = _split(content)
    place = draw.randrange(len(records))
    records[place] = of_bytes(draw, records[place])
    return _joined(records)


def _of_feature(draw: random.Random, content: bytes) -> bytes:
    """Changes the values of one key of one record."""
    import tensorflow as tf

    records = _split(content)
    place = draw.randrange(len(records))
    example = tf.train.Example.FromString(records[place])
    features = example.features.feature
    key = draw.choice(sorted(features))
    feature = features[key]
    kind = feature.WhichOneof('kind') or 'float_list'
    values = getattr(feature, kind).value
    match draw.randrange(4):
        case 0:
            del features[key]
        case 1:
            values.extend(list(values) * draw.choice((1, 3, 300)))
        case 2:
            feature.CopyFrom(features[draw.choice(sorted(features))])
        case _ if values:
            number = draw.randrange(len(values))
            values[number] = _odd(draw, kind, values[number])
    records[place] = example.SerializeToString()
    return _joined(records)


def _odd(draw: random.Random, kind: str, before):
    if kind == 'bytes_list':
        return draw.choice(
            (b'', b'\xff\0', b'../../x', b'raw', b'9' * 400, of_bytes(draw, before), of_bytes(draw, before))
        )
    if kind == 'int64_list':
        return draw.choice((-1, 0, 1, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), before + 1))
    return draw.choice((-1.0, 0.0, 1.0, 1e30, -1e30, 1e-40, float('nan'), float('inf'), before / 2))


def _split(content: bytes) -> list[bytes]:
    found, offset = [], 0
    while offset < len(content):
        (length,) = struct.unpack_from('<Q', content, offset)
        found.append(content[offset + 12 : offset + 12 + length])
        offset += length + 16
    return found


def _joined(records: list[bytes]) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    parts = []
    for data in records:
        length = struct.pack('<Q', len(data))
        parts += [length, struct.pack('<I', masked_crc32c(length)), data, struct.pack('<I', masked_crc32c(data))]
    return b''.join(parts)
