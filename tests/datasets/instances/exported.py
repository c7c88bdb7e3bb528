"""One small data set of instances, written as the files of several tools."""

import base64
import io
import json
import pathlib
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from tests.datasets.records import written

NAMES = ('bee', 'cat', 'dog')
SIZES = ((40, 60), (48, 32), (30, 30))  # (height, width)
# Image, class, outlines in pixels. Their coordinates are exact as fractions of the image, too.
INSTANCES = (
    (0, 2, [[5, 5, 25, 5, 25, 25, 5, 25]]),
    (0, 0, [[30, 10, 50, 12, 40, 35, 33, 30]]),
    (1, 1, [[4, 4, 20, 8, 24, 40, 8, 44]]),
    (1, 1, [[26, 2, 30, 2, 30, 30]]),
)


def pixels(image):
    return np.random.default_rng(image).integers(0, 256, [*SIZES[image], 3], dtype=np.uint8)


def images(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in range(len(SIZES)):
        Image.fromarray(pixels(image)).save(folder / f'photo{image}.png')


def coco(folder: pathlib.Path) -> None:
    images(folder / 'train')
    annotations = [
        {'id': n, 'image_id': image, 'category_id': category, 'segmentation': outlines, 'iscrowd': 0}
        for n, (image, category, outlines) in enumerate(INSTANCES)
    ]
    listed = [
        {'id': n, 'file_name': f'photo{n}.png', 'height': height, 'width': width}
        for n, (height, width) in enumerate(SIZES)
    ]
    categories = [{'id': n, 'name': name} for n, name in enumerate(NAMES)]
    content = {'images': listed, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations').mkdir()
    (folder / 'annotations/instances_train.json').write_text(json.dumps(content))


def labelme(folder: pathlib.Path) -> None:
    images(folder / 'train')
    for image, (height, width) in enumerate(SIZES):
        shapes = [shape(NAMES[category], outlines[0]) for owner, category, outlines in INSTANCES if owner == image]
        labelme_file(folder / f'train/photo{image}.json', shapes, f'photo{image}.png', height, width)


def shape(label, outline, **more):
    points = np.reshape(outline, [-1, 2]).tolist()
    return {'label': label, 'points': points, 'group_id': None, 'shape_type': 'polygon', 'flags': {}} | more


def labelme_file(path, shapes, image, height, width, **more):
    content = {'version': '5.5.0', 'flags': {}, 'shapes': shapes, 'imagePath': image, 'imageData': None}
    path.write_text(json.dumps(content | {'imageHeight': height, 'imageWidth': width} | more))


def png(mask) -> str:
    """A mask as LabelMe stores it."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()


def yolo(folder: pathlib.Path) -> None:
    images(folder / 'images/train')
    (folder / 'labels/train').mkdir(parents=True)
    for image, (height, width) in enumerate(SIZES):
        lines = []
        for owner, category, outlines in INSTANCES:
            if owner == image:
                points = np.reshape(outlines[0], [-1, 2]) / [width, height]
                lines.append(' '.join([str(category), *map(repr, points.reshape(-1).tolist())]))
        (folder / f'labels/train/photo{image}.txt').write_text('\n'.join(lines))
    described = {'path': '.', 'train': 'images/train', 'names': dict(enumerate(NAMES))}
    (folder / 'data.yaml').write_text(yaml.safe_dump(described))


def voc(folder: pathlib.Path) -> None:
    images(folder / 'JPEGImages')
    for name in ('SegmentationClass', 'SegmentationObject', 'ImageSets/Segmentation'):
        (folder / name).mkdir(parents=True)
    for image in range(len(SIZES)):
        classes, numbers = maps(image)
        Image.fromarray(classes).save(folder / f'SegmentationClass/photo{image}.png')
        Image.fromarray(numbers).save(folder / f'SegmentationObject/photo{image}.png')
    (folder / 'ImageSets/Segmentation/train.txt').write_text('photo0\nphoto1\nphoto2\n')
    (folder / 'class_names.txt').write_text('\n'.join(('background', *NAMES)))


def maps(image):
    """The classes of an image's pixels, from 1, and the numbers of their instances, from 1; uint8 [height, width]."""
    classes, numbers = np.zeros(SIZES[image], np.uint8), np.zeros(SIZES[image], np.uint8)
    for number, (owner, category, outlines) in enumerate(INSTANCES, 1):
        if owner == image:
            mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(outlines, *SIZES[image]))).astype(bool)
            classes[mask], numbers[mask] = category + 1, number
    return classes, numbers


def cityscapes(folder: pathlib.Path) -> None:
    """A bee is a person (label id 24), a cat a rider and a dog a car; the background is road (7)."""
    for place in ('leftImg8bit', 'gtFine'):
        (folder / place / 'train/town').mkdir(parents=True)
    for image in range(len(SIZES)):
        classes, numbers = maps(image)
        ids = np.where(classes, 23 + classes, 7).astype(np.uint16)
        labels = folder / f'gtFine/train/town/photo{image}_gtFine'
        Image.fromarray(pixels(image)).save(folder / f'leftImg8bit/train/town/photo{image}_leftImg8bit.png')
        Image.fromarray(ids.astype(np.uint8)).save(f'{labels}_labelIds.png')
        Image.fromarray(np.where(classes, 1000 * ids + numbers, ids)).save(f'{labels}_instanceIds.png')


def datumaro(folder: pathlib.Path) -> None:
    """As CVAT writes its XML, which only Datumaro reads."""
    images(folder / 'images')
    root = ElementTree.Element('annotations')
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task'), 'labels')
    for name in NAMES:
        ElementTree.SubElement(ElementTree.SubElement(labels, 'label'), 'name').text = name
    for image, (height, width) in enumerate(SIZES):
        listed = {'id': str(image), 'name': f'photo{image}.png', 'width': str(width), 'height': str(height)}
        entry = ElementTree.SubElement(root, 'image', listed)
        for owner, category, outlines in INSTANCES:
            if owner == image:
                points = ';'.join(f'{x},{y}' for x, y in np.reshape(outlines[0], [-1, 2]).tolist())
                drawn = {'label': NAMES[category], 'points': points, 'occluded': '0', 'z_order': '0'}
                ElementTree.SubElement(entry, 'polygon', drawn)
    ElementTree.ElementTree(root).write(folder / 'train.xml')


def tfrecord(folder: pathlib.Path) -> None:
    """As the Cloud TPU tools write them; boxes of another image's size are not exact as fractions."""
    for image, size in enumerate(SIZES):
        objects = []
        for owner, category, outlines in INSTANCES:
            if owner == image:
                runs = coco_mask.merge(coco_mask.frPyObjects(outlines, *size))
                x, y, width, height = coco_mask.toBbox(runs)
                box = (y, x, y + height, x + width)
                objects.append({'box': box, 'label': category, 'mask': coco_mask.decode(runs).astype(bool)})
        encoded = written.png(pixels(image))
        text = [NAMES[each['label']].encode() for each in objects]
        record = written.coco(encoded, size, image, f'photo{image}.png', objects, image__object__class__text=text)
        written.write(folder / f'train-{image:05}-of-{len(SIZES):05}.tfrecord', [record])
