"""TFRecord files as the tools of other frameworks write them."""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image


def example(features: dict) -> bytes:
    """A serialized tf.train.Example; a value is a list of bytes, floats or whole numbers."""
    made = tf.train.Example()
    for key, values in features.items():
        feature = made.features.feature[key]
        if all(isinstance(value, bytes) for value in values) and values:
            feature.bytes_list.value.extend(values)
        elif all(isinstance(value, (bool, int, np.integer)) for value in values) and values:
            feature.int64_list.value.extend(map(int, values))
        else:
            feature.float_list.value.extend(values)
    return made.SerializeToString(deterministic=True)


def png(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels), 'PNG')


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write(path: pathlib.Path, records: list[bytes]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def coco(image: bytes, size: tuple[int, int], id: int, name: str, objects: list[dict], **more) -> bytes:
    """A record with the keys of the Cloud TPU tools' create_coco_tf_record.py.

    Each object has `box` (y0, x0, y1, x1 in pixels), `label` and `mask`, bool [H, W]; and may have `crowd` and `area`.
    """
    height, width = size
    boxes = np.array([each['box'] for each in objects], float).reshape(-1, 4) / [height, width, height, width]
    features = {
        'image/encoded': [image],
        'image/format': [b'jpeg'],
        'image/filename': [name.encode()],
        'image/source_id': [str(id).encode()],
        'image/key/sha256': [b'0'],
        'image/height': [height],
        'image/width': [width],
        'image/object/class/label': [each['label'] for each in objects],
        'image/object/is_crowd': [int(each.get('crowd', False)) for each in objects],
        'image/object/area': [float(each.get('area', each['mask'].sum())) for each in objects],
        'image/object/mask': [png(each['mask'].astype(np.uint8)) for each in objects],
    }
    sides = ('ymin', 'xmin', 'ymax', 'xmax')
    features |= {f'image/object/bbox/{side}': boxes[:, n].tolist() for n, side in enumerate(sides)}
    features |= {key.replace('__', '/'): values for key, values in more.items()}
    return example({key: values for key, values in features.items() if values is not None})


def semantic(image: bytes, label: bytes, name: str, **more) -> bytes:
    """A record with the keys of research/deeplab's build_data.py."""
    height, width = np.asarray(Image.open(io.BytesIO(image))).shape[:2]
    features = {
        'image/encoded': [image],
        'image/filename': [name.encode()],
        'image/format': [b'jpeg'],
        'image/height': [height],
        'image/width': [width],
        'image/channels': [3],
        'image/segmentation/class/encoded': [label],
        'image/segmentation/class/format': [b'png'],
    }
    features |= {key.replace('__', '/'): values for key, values in more.items()}
    return example({key: values for key, values in features.items() if values is not None})
