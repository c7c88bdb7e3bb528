"""Every stage of torchvision's Mask R-CNN on random weights, in our layout; torch and torchvision are needed to run it.

    pip install torch torchvision
    python -m tests.models.torchvision_reference

makes torchvision_reference.npz, the small network's. Weights are drawn by `weights` from names and shapes, so that only
results have to be stored. Boxes are (y0, x0, y1, x1) and codes (dy, dx, dh, dw), maps [B, h, w, C].
"""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

import numpy as np

STORED = os.path.join(os.path.dirname(__file__), 'torchvision_reference.npz')


class Case(NamedTuple):
    """One network and its images.

    Attributes:
      sizes: of the images; the canvas is the largest height and width.
      classes: without background.
      proposals: before and after suppression.
      detections: at most.
      instances: true instances per image.
      seed: of everything.
    """

    sizes: tuple[tuple[int, int], ...]
    classes: int
    proposals: int
    detections: int
    instances: int
    seed: int


# 'small': ResNet-18, 8 channels in the pyramid and few units; 'full': maskrcnn_resnet50_fpn as it is.
CASES = {
    'small': Case(((64, 128), (64, 96)), 4, 24, 10, 3, 0),
    'full': Case(((256, 320), (256, 256)), 90, 1000, 100, 8, 0),
}
SMALL = {'channels': 8, 'fc': 16, 'mask': 8, 'box_bins': 5, 'mask_bins': 6}
# What the last layers' results are spread by, as a standard deviation.
SPREADS = {
    'rpn.head.cls_logits': 2.0,
    'rpn.head.bbox_pred': 0.3,
    'roi_heads.box_predictor.cls_score': 3.0,
    'roi_heads.box_predictor.bbox_pred': 1.0,
    'roi_heads.mask_predictor.mask_fcn_logits': 2.0,
}


def weights(shapes: dict[str, tuple[int, ...]], seed: int, scales: dict[str, float]) -> dict[str, np.ndarray]:
    """Draws a state dict: kernels that keep the signal's size, and batch-norm statistics that matter.

    Args:
      shapes: by name.
      seed: of the generator.
      scales: factors of layers, by the name of the layer.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition('.')
        if kind == 'num_batches_tracked':
            tensors[name] = np.zeros(shape, np.int64)
            continue
        if kind == 'running_var' or (kind == 'weight' and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
            if layer.endswith('bn3') and kind == 'weight':  # Or else 16 residual sums grow to 10^5.
                value *= 0.2
        elif len(shape) == 1:
            value = rng.normal(0, 0.2, shape)
        else:
            value = rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[1:])) ** 0.5
        tensors[name] = (value * scales.get(layer, 1.0)).astype(np.float32)
    return tensors


def noise_images(case: Case) -> list[np.ndarray]:
    """Coarse noise, so that different places look different: uint8 [h, w, 3] each."""
    rng = np.random.default_rng(case.seed)
    found = []
    for height, width in case.sizes:
        coarse = rng.integers(0, 200, (height // 16, width // 16, 3)).repeat(16, 0).repeat(16, 1)
        found.append((coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8))
    return found


def truths(case: Case) -> list[dict[str, np.ndarray]]:
    """True instances of each image: boxes float32 [N, 4], classes [N] from 0, masks bool [N, h, w] (ellipses)."""
    rng = np.random.default_rng(case.seed + 1)
    found = []
    for size in case.sizes:
        corners = rng.uniform(0, 0.6, (case.instances, 2)) * size
        boxes = np.concatenate([corners, corners + rng.uniform(0.15, 0.4, (case.instances, 2)) * size], -1)
        boxes = boxes.astype(np.float32)
        rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
        y0, x0, y1, x1 = (boxes[:, i, None, None] for i in range(4))
        masks = (2 * (rows - y0) / (y1 - y0) - 1) ** 2 + (2 * (columns - x0) / (x1 - x0) - 1) ** 2 < 1
        found.append({'boxes': boxes, 'classes': rng.integers(0, case.classes, case.instances), 'masks': masks})
    return found


def network(kind: str) -> Any:
    """torchvision's model, with whatever weights."""
    import torchvision
    from torchvision.models.detection import mask_rcnn
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    case = CASES[kind]
    limits = {
        'rpn_pre_nms_top_n_test': case.proposals,
        'rpn_post_nms_top_n_test': case.proposals,
        'box_detections_per_img': case.detections,
    }
    if kind == 'full':
        return torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=case.classes + 1, **limits
        ).eval()

    def pool(bins: int) -> MultiScaleRoIAlign:
        return MultiScaleRoIAlign(['0', '1', '2', '3'], bins, 2)

    channels, bins = SMALL['channels'], SMALL['box_bins']
    body = torchvision.models.resnet18(weights=None)
    levels = {f'layer{i + 1}': str(i) for i in range(4)}
    return mask_rcnn.MaskRCNN(
        BackboneWithFPN(body, levels, [64, 128, 256, 512], channels),
        box_roi_pool=pool(bins),
        box_head=TwoMLPHead(channels * bins**2, SMALL['fc']),
        box_predictor=FastRCNNPredictor(SMALL['fc'], case.classes + 1),
        mask_roi_pool=pool(SMALL['mask_bins']),
        mask_head=mask_rcnn.MaskRCNNHeads(channels, (SMALL['mask'],) * 2, 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(SMALL['mask'], SMALL['mask'], case.classes + 1),
        rpn_anchor_generator=None,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=16,
        **limits,
    ).eval()


def run(kind: str, weights_path: str | None = None) -> dict[str, np.ndarray]:
    """Runs the network stage by stage, and then its losses; see the module's docstring for the layout.

    Args:
      kind: a case.
      weights_path: where to save the state dict, if anywhere.
    """
    import torch

    case, net = CASES[kind], network(kind)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    scales: dict[str, float] = {}

    def set_weights() -> None:
        tensors = weights(shapes, case.seed, scales)
        net.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})

    def spread(layer: str, compute: Any) -> Any:
        """Scales a last layer so that its results have the standard deviation that they should have; returns them."""
        scales[layer] = float(SPREADS[layer] / compute().std())
        set_weights()
        return compute()

    # Images keep their size.
    net.transform.resize = lambda image, target: (image, target)
    with torch.no_grad():
        set_weights()
        images, _ = net.transform([torch.from_numpy(x).permute(2, 0, 1) / 255 for x in noise_images(case)])
        maps = net.backbone(images.tensors)
        features = list(maps.values())

        def over_anchors(last: Any, channels: int) -> Any:
            parts = [last(net.rpn.head.conv(x)) for x in features]
            parts = [x.permute(0, 2, 3, 1).reshape(len(x), -1, channels) for x in parts]
            return torch.cat(parts, 1)

        logits = spread('rpn.head.cls_logits', lambda: over_anchors(net.rpn.head.cls_logits, 1))
        deltas = spread('rpn.head.bbox_pred', lambda: over_anchors(net.rpn.head.bbox_pred, 4))
        anchors = net.rpn.anchor_generator(images, features)
        counts = [3 * x.shape[2] * x.shape[3] for x in features]
        boxes = net.rpn.box_coder.decode(deltas.reshape(-1, 4), anchors).view(len(case.sizes), -1, 4)
        proposals, _ = net.rpn.filter_proposals(boxes, logits, images.image_sizes, counts)

        roi = net.roi_heads
        box_crops = roi.box_roi_pool(maps, proposals, images.image_sizes)
        hidden = roi.box_head(box_crops)
        class_logits = spread('roi_heads.box_predictor.cls_score', lambda: roi.box_predictor(hidden)[0])
        box_deltas = spread('roi_heads.box_predictor.bbox_pred', lambda: roi.box_predictor(hidden)[1])
        found = roi.postprocess_detections(class_logits, box_deltas, proposals, images.image_sizes)
        mask_crops = roi.mask_roi_pool(maps, found[0], images.image_sizes)
        masks = spread(
            'roi_heads.mask_predictor.mask_fcn_logits', lambda: roi.mask_predictor(roi.mask_head(mask_crops))
        )
        labels = torch.cat(found[2])
        masks = masks[torch.arange(len(labels)), labels]

        result = {
            'names': np.array(list(shapes)),
            'shapes': np.array([','.join(map(str, shape)) for shape in shapes.values()]),
            'scaled': np.array(list(scales)),
            'scales': np.array(list(scales.values())),
            **{f'p{level}': x.permute(0, 2, 3, 1).numpy() for level, x in enumerate(features, start=2)},
            'rpn_logits': logits[..., 0].numpy(),
            'rpn_deltas': deltas.numpy()[..., [1, 0, 3, 2]],
            'anchors': anchors[0].numpy()[:, [1, 0, 3, 2]],
            'over_threshold': np.array(int((torch.softmax(class_logits, -1)[:, 1:] > roi.score_thresh).sum())),
        }
        splits = [len(x) for x in proposals]
        per_image = {
            'proposals': [x[:, [1, 0, 3, 2]] for x in proposals],
            'box_crops': box_crops.permute(0, 2, 3, 1).split(splits),
            'class_logits': class_logits.split(splits),
            'box_deltas': box_deltas.view(-1, case.classes + 1, 4)[:, 1:][..., [1, 0, 3, 2]].split(splits),
        }
        places = [len(x) for x in found[0]]
        per_detection = {
            'boxes': [x[:, [1, 0, 3, 2]] for x in found[0]],
            'scores': found[1],
            'classes': [x - 1 for x in found[2]],
            'mask_crops': mask_crops.permute(0, 2, 3, 1).split(places),
            'mask_logits': masks.split(places),
        }
        for parts, limit in ((per_image, case.proposals), (per_detection, case.detections)):
            result |= {name: _padded(values, limit) for name, values in parts.items()}
        result |= {'num_proposals': np.array(splits), 'num_detections': np.array(places)}
        result |= _losses(net, case, maps, images, logits, deltas, anchors, proposals)
    if weights_path:
        torch.save(net.state_dict(), weights_path)
    return result


def _losses(net, case, maps, images, logits, deltas, anchors, proposals) -> dict[str, np.ndarray]:
    """torchvision's losses with the first of each kind sampled in place of random ones, and their inputs."""
    import torch
    from torchvision.models.detection import roi_heads

    targets = [
        {
            'boxes': torch.from_numpy(truth['boxes'])[:, [1, 0, 3, 2]],
            'labels': torch.from_numpy(truth['classes']) + 1,
            'masks': torch.from_numpy(truth['masks'].astype(np.uint8)),
        }
        for truth in truths(case)
    ]
    roi = net.roi_heads

    def first_of_each(sampler: Any) -> Any:
        def sample(labels: list) -> tuple[list, list]:
            chosen = []
            for label in labels:
                positive = (label >= 1) & (torch.cumsum(label >= 1, 0) <= sampler.batch_size_per_image // 2)
                left = sampler.batch_size_per_image - positive.sum()
                chosen.append((positive, (label == 0) & (torch.cumsum(label == 0, 0) <= left)))
            return [p for p, _ in chosen], [n for _, n in chosen]

        return sample

    net.rpn.fg_bg_sampler = first_of_each(net.rpn.fg_bg_sampler)
    kinds, matched = net.rpn.assign_targets_to_anchors(anchors, targets)
    codes = net.rpn.box_coder.encode(matched, anchors)
    score, box = net.rpn.compute_loss(logits.reshape(-1, 1), deltas.reshape(-1, 4), kinds, codes)
    positive, negative = net.rpn.fg_bg_sampler(kinds)

    roi.fg_bg_sampler = first_of_each(roi.fg_bg_sampler)
    # A few proposals close to the true boxes, which random weights do not find.
    rng = np.random.default_rng(case.seed + 2)
    close = [target['boxes'].repeat(2, 1) for target in targets]
    close = [x + torch.from_numpy(rng.uniform(-5, 5, x.shape).astype(np.float32)) for x in close]
    proposals = [torch.cat(pair) for pair in zip(close, proposals, strict=True)]
    rois, index, labels, box_codes = roi.select_training_samples(proposals, targets)
    class_logits, box_deltas = roi.box_predictor(roi.box_head(roi.box_roi_pool(maps, rois, images.image_sizes)))
    class_loss, regression_loss = roi_heads.fastrcnn_loss(class_logits, box_deltas, labels, box_codes)
    chosen = [torch.where(label > 0)[0] for label in labels]
    mask_rois, mask_index = ([x[i] for x, i in zip(values, chosen, strict=True)] for values in (rois, index))
    features = roi.mask_roi_pool(maps, mask_rois, images.image_sizes)
    mask_logits = roi.mask_predictor(roi.mask_head(features))
    gt = [[target[key] for target in targets] for key in ('masks', 'labels')]
    mask_loss = roi_heads.maskrcnn_loss(mask_logits, mask_rois, gt[0], gt[1], mask_index)
    mask_targets = [
        roi_heads.project_masks_on_boxes(mask, boxes, i, mask_logits.shape[-1])
        for mask, boxes, i in zip(gt[0], mask_rois, mask_index, strict=True)
    ]
    count, most = max(map(len, rois)), max(map(len, mask_rois))
    splits, mask_splits = [len(x) for x in rois], [len(x) for x in mask_rois]
    mask_labels = [label[i] for label, i in zip(labels, chosen, strict=True)]
    mask_logits = mask_logits[torch.arange(len(mask_logits)), torch.cat(mask_labels)]
    kinds, positive, negative = (torch.stack(x) for x in (kinds, positive, negative))
    return {
        'losses': np.array([float(x) for x in (score, box, class_loss, regression_loss, mask_loss)]),
        'kinds': kinds.numpy().astype(np.int8),
        'labels': torch.where(positive, 1, torch.where(negative, 0, -1)).numpy().astype(np.int8),
        # Only where it counts, so that the rest can be packed.
        'codes': (torch.stack(codes) * positive[..., None]).numpy()[..., [1, 0, 3, 2]],
        'rois': _padded([x[:, [1, 0, 3, 2]] for x in rois], count),
        'roi_classes': _padded(labels, count, -1),
        'roi_index': _padded(index, count),
        'roi_codes': _padded([x[:, [1, 0, 3, 2]] for x in box_codes], count),
        'roi_class_logits': _padded(class_logits.split(splits), count),
        'roi_deltas': _padded(box_deltas.view(-1, case.classes + 1, 4)[:, 1:][..., [1, 0, 3, 2]].split(splits), count),
        'mask_classes': _padded(mask_labels, most, -1),
        'mask_targets': _padded(mask_targets, most),
        'roi_mask_logits': _padded(mask_logits.split(mask_splits), most),
    }


def _padded(values: Any, count: int, fill: float = 0) -> np.ndarray:
    """Stacks arrays [n, ...] of the images as [B, count, ...]."""
    values = [np.asarray(value) for value in values]
    result = np.full((len(values), count, *values[0].shape[1:]), fill, values[0].dtype)
    for row, value in zip(result, values, strict=True):
        row[: len(value)] = value
    return result


if __name__ == '__main__':
    if len(sys.argv) == 1:
        np.savez_compressed(STORED, **run('small'))
    else:  # A case, and the files for its results and its weights.
        np.savez(sys.argv[2], **run(sys.argv[1], sys.argv[3]))
