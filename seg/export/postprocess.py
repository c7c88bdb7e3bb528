"""From the outputs of a Mask R-CNN's three networks to detections, in numpy: what `--raw_heads` leaves out of them.

This file needs numpy alone. It lies beside the networks, which are called one after the other: `regions` finds boxes
that may hold an instance, `boxes` classifies those that are selected here, and `masks` segments the detections. With
onnxruntime, for example:

    import json, numpy as np, onnxruntime, postprocess

    settings = json.load(open('seg.json', encoding='utf-8'))['heads']['settings']
    sessions = {name: onnxruntime.InferenceSession(f'{name}.onnx') for name in postprocess.NETWORKS}

    def run(network, inputs):
        names = [output.name for output in sessions[network].get_outputs()]
        return dict(zip(names, sessions[network].run(names, inputs)))

    found = postprocess.detect(run, images, sizes, settings)
    pixels = postprocess.paste(found['masks'][0, 0], found['boxes'][0, 0], height, width)

Boxes are y0, x0, y1, x1 in pixels of the canvas, with continuous coordinates: a box is x1 - x0 wide.
"""

import math

import numpy as np

NETWORKS = ('regions', 'boxes', 'masks')


def detect(run, images, sizes, settings):
    """Detects the instances of images.

    Args:
      run: function of the name of a network and its inputs by name, which returns its outputs by name.
      images: uint8 [N, H, W, 3], RGB, each at the top left of the canvas.
      sizes: int32 [N, 2], height and width of each image within the canvas.
      settings: `heads.settings` of `seg.json`.

    Returns:
      `boxes` [N, D, 4], `scores` [N, D] (decreasing), `classes` int32 [N, D] (-1 in empty rows, which come last),
      `masks` [N, D, M, M] (probabilities over each box) and `num_detections` int32 [N].
    """
    first = run('regions', {'images': images, 'sizes': sizes})
    maps = {name: first[name] for name in settings['maps']}
    each = zip(first['proposals'], first['objectness'], strict=True)
    regions = np.stack([select_regions(*image, settings) for image in each])
    second = run('boxes', {**maps, 'regions': regions, 'sizes': sizes})
    each = zip(regions, second['candidates'], second['probabilities'], strict=True)
    boxes, scores, classes = map(np.stack, zip(*(select_detections(*image, settings) for image in each), strict=True))
    masks = run('masks', {**maps, 'boxes': boxes, 'classes': classes})['masks']
    counts = np.sum(classes >= 0, axis=1, dtype=np.int32)
    return {'boxes': boxes, 'scores': scores, 'classes': classes, 'masks': masks, 'num_detections': counts}


def select_regions(proposals, objectness, settings):
    """The regions of one image that are classified: the best proposals of each level, without those that overlap.

    Args:
      proposals: [A, 4], level by level; `settings['levels']` says how many each level has.
      objectness: [A], logits.
      settings: see `detect`.

    Returns:
      float32 [R, 4], by decreasing objectness; 0 in empty rows, which come last.
    """
    chosen, levels, start = [], [], 0
    for level, count in enumerate(settings['levels']):
        best = start + _best(objectness[start : start + count], settings['proposals_per_level'])
        chosen.append(best)
        levels.append(np.full(len(best), level))
        start += count
    chosen, levels = np.concatenate(chosen), np.concatenate(levels)
    sides = proposals[chosen, 2:] - proposals[chosen, :2]
    kept = np.all((sides > 0) & (sides >= settings['smallest_region']), axis=1)
    chosen, levels = chosen[kept], levels[kept]
    found = suppress(proposals[chosen], objectness[chosen], levels, settings['region_iou'], settings['regions'])
    return _filled(proposals[chosen[found]], settings['regions'], 0)


def select_detections(regions, candidates, probabilities, settings):
    """The detections of one image: scores above a threshold, without those that overlap one of their class.

    Args:
      regions: [R, 4]; empty rows are 0.
      candidates: [R, C, 4], the box of each class, or one for all (C = 1).
      probabilities: [R, K] of each class.
      settings: see `detect`.

    Returns:
      boxes float32 [D, 4], scores float32 [D] and classes int32 [D]; 0, 0 and -1 in empty rows.
    """
    wanted = (probabilities > settings['score_threshold']) & np.any(regions != 0, axis=1)[:, None]
    pairs = np.flatnonzero(wanted)
    pairs = pairs[_best(probabilities.ravel()[pairs], settings['candidates'])]
    region, label = np.divmod(pairs, probabilities.shape[1])
    boxes = candidates[region, label if candidates.shape[1] > 1 else 0]
    large = np.all(boxes[:, 2:] - boxes[:, :2] >= settings['smallest_detection'], axis=1)
    boxes, scores, label = boxes[large], probabilities.ravel()[pairs[large]], label[large]
    found = suppress(boxes, scores, label, settings['detection_iou'], settings['detections'])
    values = (boxes[found], 0), (scores[found], 0), (label[found].astype(np.int32), -1)
    return tuple(_filled(value, settings['detections'], empty) for value, empty in values)


def suppress(boxes, scores, groups, iou, limit):
    """Greedy non-maximum suppression: by decreasing score, keeps each box that overlaps no kept box of its group.

    Args:
      boxes: [B, 4].
      scores: [B]; equal ones keep their order.
      groups: int [B].
      iou: two boxes overlap if their IoU exceeds it.
      limit: most boxes that are kept.

    Returns:
      Indices of the boxes that are kept, by decreasing score.
    """
    order = np.argsort(-scores, kind='stable')
    kept = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[(groups[order] != groups[best]) | (overlaps(boxes[best], boxes[order]) <= iou)]
    return np.array(kept, int)


def overlaps(box, boxes):
    """IoU of a box [4] with boxes [B, 4]; 0 where one has no area."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / np.where(shared > 0, area - shared, 1)


def paste(mask, box, height, width, threshold=0.5):
    """The pixels of an instance in its image.

    Between the centres of the mask's cells values are bilinear. A box without the centre of a pixel sets the pixel that
    holds its middle.

    Args:
      mask: [M, M], probabilities over the box.
      box: y0, x0, y1, x1 in pixels of the image.
      height: of the image.
      width: of the image.
      threshold: lowest probability of a pixel of the instance.

    Returns:
      bool [height, width].
    """
    pixels = np.zeros((height, width), bool)
    if box[2] > box[0] and box[3] > box[1]:
        rows, down = _cells(float(box[0]), float(box[2]), height, mask.shape[0])
        columns, across = _cells(float(box[1]), float(box[3]), width, mask.shape[1])
        pixels[rows, columns] = down @ np.asarray(mask, np.float32) @ across.T >= np.float32(threshold)
    return pixels


def _cells(start, end, side, cells):
    """Along one axis, the pixels of a box, as a slice, and the weight of each cell in each of them, [pixels, cells]."""
    first, stop = math.ceil(start - 0.5), math.ceil(end - 0.5)  # Centres in [start, end).
    if first == stop:
        first = math.floor((start + end) / 2)
        stop = first + 1
    first, stop = max(first, 0), max(min(stop, side), 0)
    places = (np.arange(first, stop) + 0.5 - start) * (cells / (end - start)) - 0.5
    weights = np.maximum(1 - np.abs(np.clip(places, 0, cells - 1)[:, None] - np.arange(cells)), 0)
    return slice(first, stop), weights.astype(np.float32)


def _best(scores, count):
    """Indices of the highest scores, in decreasing order; equal ones keep their order."""
    return np.argsort(-scores, kind='stable')[:count]


def _filled(rows, count, empty):
    """The rows, and empty ones up to a number of rows."""
    missing = np.full((count - len(rows), *rows.shape[1:]), empty, rows.dtype)
    return np.concatenate([rows, missing])
