"""Synthetic images with instances, and detections that are right, shifted, of the wrong class, or false."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seg.inputs.pipeline import untuned
from seg.masks.paste import paste
from seg.metrics.coco_ap import MASK_STEPS
from seg.structures import Annotations, Input
from seg.tasks.base import Task

SIDE = 14  # Of the masks.
AREAS = ('all', 'small', 'medium', 'large')


def ellipse(box, height: int, width: int, slant: float = 0.0) -> np.ndarray:
    """bool [height, width]: an ellipse that fills a box, or a slanted part of it."""
    y0, x0, y1, x1 = box
    y = (np.arange(height)[:, None] + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    x = (np.arange(width) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    return (y**2 + x**2 <= 1) & (y + slant * x <= 1)


def annotations(instances: Sequence[tuple], height: int, width: int) -> Annotations:
    """Of (box, class, crowd) each; masks are ellipses, boxes those of the masks."""
    masks = [coco_mask.encode(np.asfortranarray(ellipse(box, height, width), np.uint8)) for box, _, _ in instances]
    corners = [coco_mask.toBbox(mask) for mask in masks]
    boxes = np.array([(y, x, y + h, x + w) for x, y, w, h in corners], np.float32).reshape(-1, 4)
    return Annotations(
        height,
        width,
        boxes,
        np.array([label for _, label, _ in instances], np.int32),
        np.array([crowd for _, _, crowd in instances], bool),
        np.array([coco_mask.area(mask) for mask in masks], np.float32),
        masks,
    )


def make(
    seed: int,
    images: int = 6,
    *,
    num_classes: int = 4,
    places: int = 24,
    ties: bool = False,
    crowds: float = 0.15,
    empty: Sequence[int] = (2,),
    blind: Sequence[int] = (3,),
) -> tuple[list[Annotations], dict[str, np.ndarray]]:
    """Images of 120 to 200 pixels, and detections on `places` places as `CocoAP.rows` returns them.

    Args:
      ties: whether scores take few values.
      crowds: share of the instances that are crowds.
      empty: images without instances.
      blind: images without detections.
    """
    random = np.random.default_rng(seed)
    truth, rows = [], []
    for image in range(images):
        height, width = (int(side) for side in random.integers(120, 200, 2))
        instances = []
        for _ in range(0 if image in empty else random.integers(1, 7)):
            size = random.choice([6, 25, 60, 110], 2, p=[0.3, 0.3, 0.3, 0.1]) * random.uniform(0.8, 1.2, 2)
            corner = random.uniform(0, np.maximum([height, width] - size, 1))
            instances.append(((*corner, *(corner + size)), int(random.integers(num_classes)), random.random() < crowds))
        truth.append(annotations(instances, height, width))
        found = []
        for _ in range(0 if image in blind else random.integers(places // 2, places + 1)):
            if instances and random.random() < 0.75:
                box, label, _ = instances[random.integers(len(instances))]
                size = np.array([box[2] - box[0], box[3] - box[1]] * 2)
                box = np.array(box) + size * random.normal(0, random.choice([0.01, 0.05, 0.15]), 4)
                label = label if random.random() < 0.8 else random.integers(num_classes)
            else:
                corner = random.uniform(-5, [height, width])
                box, label = np.array([*corner, *(corner + random.uniform(1, 90, 2))]), random.integers(num_classes)
            score = random.uniform(0.05, 1)
            found.append((box, round(score, 1) if ties else score, label))
        rows.append(found)
    return truth, values(rows, places, random)


def values(rows: Sequence[Sequence[tuple]], places: int, random) -> dict[str, np.ndarray]:
    """Arrays of (box, score, class) per image; the mask of each is an ellipse in its box, with soft borders."""
    made = {
        'boxes': np.zeros((len(rows), places, 4), np.float32),
        'scores': np.zeros((len(rows), places), np.float32),
        'classes': np.full((len(rows), places), -1, np.int32),
        'masks': np.zeros((len(rows), places, SIDE, SIDE), np.uint16),
    }
    across = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    for i, found in enumerate(rows):
        for d, (box, score, label) in enumerate(found):
            made['boxes'][i, d], made['scores'][i, d], made['classes'][i, d] = box, score, label
            inside = 1.1 - across[:, None] ** 2 - across**2 + random.normal(0, 0.05, (SIDE, SIDE))
            made['masks'][i, d] = np.round(MASK_STEPS / (1 + np.exp(-8 * inside)))
    return made


def reference(truth, values, num_classes: int, max_detections: int = 100, first_id: int = 1):
    """pycocotools' evaluation of boxes and of masks: {'box': COCOeval, 'mask': COCOeval}, accumulated.

    Args:
      first_id: id of the first instance.
    """
    images, annotated, detections = [], [], []
    for i, t in enumerate(truth):
        images.append({'id': i + 10, 'height': t.height, 'width': t.width})
        for box, label, crowd, area, mask in zip(t.boxes, t.classes, t.is_crowd, t.area, t.masks, strict=True):
            annotated.append(
                {
                    'id': first_id + len(annotated), 'image_id': i + 10, 'category_id': int(label) + 3,
                    'iscrowd': int(crowd), 'area': float(area), 'segmentation': mask, 'bbox': corner_and_size(box),
                }
            )  # fmt: skip
        for d in np.flatnonzero(values['classes'][i] >= 0):
            frame = np.zeros((t.height, t.width), np.uint8, order='F')
            top, left, patch = paste(
                values['masks'][i, d] / np.float32(MASK_STEPS), values['boxes'][i, d], t.height, t.width
            )
            frame[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
            detections.append(
                {
                    'image_id': i + 10, 'category_id': int(values['classes'][i, d]) + 3,
                    'score': float(values['scores'][i, d]), 'bbox': corner_and_size(values['boxes'][i, d]),
                    'segmentation': coco_mask.encode(frame),
                }
            )  # fmt: skip
    found = {}
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO()
        categories = [{'id': c + 3, 'name': str(c)} for c in range(num_classes)]
        whole.dataset = {'images': images, 'annotations': annotated, 'categories': categories}
        whole.createIndex()
        for kind, without in (('box', 'segmentation'), ('mask', 'bbox')):
            results = whole.loadRes([{k: v for k, v in d.items() if k != without} for d in detections])
            found[kind] = COCOeval(whole, results, {'box': 'bbox', 'mask': 'segm'}[kind])
            found[kind].params.maxDets = sorted({1, min(10, max_detections), max_detections})
            found[kind].evaluate()
            found[kind].accumulate()
    return found


def corner_and_size(box) -> list[float]:
    y0, x0, y1, x1 = (float(side) for side in box)
    return [x0, y0, x1 - x0, y1 - y0]


def reference_scores(evaluations, class_names) -> dict[str, float]:
    """All numbers by CocoAP's names, without means over nothing."""
    scores = {}
    for kind, evaluation in evaluations.items():
        precision, recall = evaluation.eval['precision'], evaluation.eval['recall']
        scores |= {f'{kind}_ap': precision[..., 0, -1], f'{kind}_ap50': precision[0, ..., 0, -1]}
        scores[f'{kind}_ap75'] = precision[5, ..., 0, -1]
        for a, area in enumerate(AREAS[1:], 1):
            scores |= {f'{kind}_ap_{area}': precision[..., a, -1], f'{kind}_ar_{area}': recall[..., a, -1]}
        for m, limit in enumerate(evaluation.params.maxDets):
            scores[f'{kind}_ar{limit}'] = recall[..., 0, m]
        for c, name in enumerate(class_names):
            scores[f'{kind}_ap/{name}'] = precision[:, :, c, 0, -1]
    return {name: float(v[v > -1].mean()) for name, v in scores.items() if (v > -1).any()}


class Finder(Task):
    """A task without losses whose detections stand in its batches."""

    def __init__(self, metric):
        super().__init__(checkpoint_items={}, inputs=lambda: None, metrics=[metric])

    def predict(self, batch):
        return {key: batch[key] for key in ('boxes', 'scores', 'classes', 'masks')}

    def image_scores(self, batch, predictions):
        return tf.reduce_sum(predictions['scores'], 1)

    def figure(self, example, prediction, name, truth):
        return Drawn(name, truth)


class Drawn:
    """An image of the size of the truth."""

    def __init__(self, name, truth):
        self.name, self.truth = name, truth

    def draw(self):
        return np.zeros((self.truth.height, self.truth.width, 3), np.uint8)

    def panels(self):
        return None


def source(truth, values, batch_size: int, unread: Sequence[int] = ()) -> Input:
    """An input of these images, on canvases of half their size; the last batch is padded."""
    count = len(truth)
    native = np.array([(t.height, t.width) for t in truth], np.int32)
    padding = -count % batch_size
    whole = {
        **values,
        'masks': values['masks'] / np.float32(MASK_STEPS),  # As a model gives them.
        'size': native // 2,
        'native_size': native,
        'weight': np.array([i not in unread for i in range(count)], np.float32),
        'index': np.arange(count, dtype=np.int32),
    }
    whole['boxes'] = values['boxes'] * np.tile((native // 2) / native, (1, 2))[:, None]
    # Padding holds the rows of the first images, which must not count.
    whole = {key: np.concatenate([value, value[:padding]]) for key, value in whole.items()}
    whole['weight'][count:], whole['index'][count:] = 0, -1

    def make(start=0, pieces=1):
        data = tf.data.Dataset.from_tensor_slices(whole).skip(start * batch_size).with_options(untuned())
        return data.batch(batch_size // pieces, drop_remainder=True)

    return Input(make, batch_size, count, 'scenes', lambda i: f'scene {i}', lambda i: truth[i])
