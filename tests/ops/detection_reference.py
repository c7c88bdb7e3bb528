"""Makes detection_reference.npz with torchvision, which the test environment does not have.

    pip install torch torchvision
    python tests/ops/detection_reference.py

Inputs are drawn by the functions here, so only torchvision's results are stored.
"""

from __future__ import annotations

import os

import numpy as np

REFERENCE = os.path.join(os.path.dirname(__file__), 'detection_reference.npz')
CANVAS = 96
STRIDES = (4, 8, 16, 32)
# Of ROIAlign: bins, samples per bin and side, aligned.
ROI_CASES = ((7, 2, False), (4, 1, False), (5, 2, True))
GROUPS = 3


def boxes(seed: int, count: int, low: float = 0, high: float = CANVAS) -> np.ndarray:
    """Boxes with corners in low..high, float32 [count, 4]; the first ones have no area, the second is a copy."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(low, high, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
    corners[0, 2:] = corners[0, :2]
    corners[2] = corners[3]
    return corners


def scores(count: int) -> np.ndarray:
    """Different scores, so that no order depends on how ties are broken; float32 [count]."""
    return (np.random.default_rng(1).permutation(count) / count).astype(np.float32)


def groups(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, GROUPS, count)


def features() -> list[np.ndarray]:
    """Maps float32 [2, h, w, 3], the finest first."""
    rng = np.random.default_rng(3)
    return [rng.normal(size=(2, CANVAS // s, CANVAS // s, 3)).astype(np.float32) for s in STRIDES]


def rois() -> np.ndarray:
    """Float32 [2, 24, 4]; some lie far outside of the maps, some have no area, one holds the whole image."""
    drawn = np.stack([boxes(4, 24, -20, CANVAS + 30), boxes(5, 24, 0, CANVAS)])
    drawn[0, 5] = (0, 0, CANVAS, CANVAS)
    drawn[0, 6] = (-400, -300, -200, -100)
    drawn[0, 7] = (CANVAS - 1, CANVAS - 1, CANVAS + 3, CANVAS + 40)
    return drawn


def overlaps(seed: int) -> np.ndarray:
    """Some overlaps of 200 boxes with 6 truths, rounded so that there are ties; float32 [200, 6]."""
    values = np.round(np.random.default_rng(seed).uniform(0, 1, (200, 6)) ** 3, 1).astype(np.float32)
    values[:, 4] = np.minimum(values[:, 4], np.float32(0.2))
    return values


def main() -> None:
    import torch
    import torchvision
    from torchvision.models.detection._utils import BoxCoder, Matcher
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    def flipped(values: np.ndarray) -> torch.Tensor:
        """From (y0, x0, y1, x1) to torchvision's (x0, y0, x1, y1), or back."""
        return torch.from_numpy(np.ascontiguousarray(values[..., [1, 0, 3, 2]]))

    stored: dict[str, np.ndarray] = {}
    crowd = boxes(0, 300)
    stored['nms'] = torchvision.ops.nms(flipped(crowd), torch.from_numpy(scores(300)), 0.4).numpy()
    stored['batched_nms'] = torchvision.ops.batched_nms(
        flipped(crowd), torch.from_numpy(scores(300)), torch.from_numpy(groups(300)), 0.4
    ).numpy()
    stored['iou'] = torchvision.ops.box_iou(flipped(boxes(6, 20)), flipped(boxes(7, 10))).numpy()

    maps = {str(i): torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for i, x in enumerate(features())}
    regions = [flipped(r) for r in rois()]
    for case, (size, ratio, aligned) in enumerate(ROI_CASES):
        area = torchvision.ops.box_area(torch.cat(regions))
        level = torch.floor(4 + torch.log2(torch.sqrt(area) / 224) + 1e-6).clamp(2, 5).to(torch.int64) - 2
        image = torch.repeat_interleave(torch.arange(2), len(regions[0]))
        out = torch.zeros(len(level), 3, size, size)
        for i, stride in enumerate(STRIDES):
            here = level == i
            table = torch.cat([image[here, None].float(), torch.cat(regions)[here]], 1)
            out[here] = torchvision.ops.roi_align(maps[str(i)], table, size, 1 / stride, ratio, aligned)
        stored[f'roi_align{case}'] = out.numpy().transpose(0, 2, 3, 1).reshape(2, -1, size, size, 3)
    pooler = torchvision.ops.MultiScaleRoIAlign(list(maps), ROI_CASES[0][0], ROI_CASES[0][1])
    out = pooler(maps, regions, [(CANVAS, CANVAS)] * 2).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(out.reshape(stored['roi_align0'].shape), stored['roi_align0'])

    weights = (10.0, 10.0, 5.0, 5.0)
    coder = BoxCoder(weights)
    target, anchor = boxes(8, 30)[4:], boxes(9, 30)[4:]
    stored['encode'] = coder.encode_single(flipped(target), flipped(anchor)).numpy()[:, [1, 0, 3, 2]]
    deltas = np.random.default_rng(10).normal(0, 5, (26, 4)).astype(np.float32)
    deltas[0] = (0, 0, 60, -60)
    stored['decode'] = coder.decode_single(flipped(deltas), flipped(anchor)).numpy()[:, [1, 0, 3, 2]]

    generator = AnchorGenerator(tuple((8 * s,) for s in STRIDES), ((0.5, 1.0, 2.0),) * 4)
    image = torch.zeros(1, 3, CANVAS, CANVAS)
    grid = generator(ImageList(image, [(CANVAS, CANVAS)]), [maps[str(i)] for i in range(4)])[0]
    stored['anchors'] = grid.numpy()[:, [1, 0, 3, 2]].astype(np.int16)
    np.testing.assert_array_equal(stored['anchors'], grid.numpy()[:, [1, 0, 3, 2]])

    for forced in (False, True):
        matcher = Matcher(0.7, 0.3, allow_low_quality_matches=forced)
        stored[f'match{int(forced)}'] = np.stack(
            [matcher(torch.from_numpy(overlaps(seed)).T.contiguous()).numpy() for seed in range(3)]
        )
    np.savez_compressed(REFERENCE, **stored)


if __name__ == '__main__':
    main()
