"""All operations on boxes in one function, for comparing backends.

KERAS_BACKEND=jax python -m tests.ops.detection_on_backend out.npz
"""

from __future__ import annotations

import sys

import numpy as np

from seg.ops import boxes as boxes_lib
from seg.ops.masks import crop_masks
from seg.ops.matching import match
from seg.ops.nms import nms
from seg.ops.roi_align import roi_align
from seg.ops.sampling import balanced, first
from tests.ops import detection_reference as reference


def inputs() -> list:
    """Maps, boxes, scores, groups, truths, seeds, masks: float32, int32 and uint8 arrays of two images."""
    rng = np.random.default_rng(0)
    return [
        reference.features(),
        reference.rois(),
        rng.normal(size=(2, 24)).astype(np.float32),
        rng.integers(0, 3, (2, 24)).astype(np.int32),
        np.stack([reference.boxes(seed, 4) for seed in range(2)]),
        np.array([[1, 2], [3, -4]], np.int32),
        rng.integers(0, 256, (2, 4, 9, 9)).astype(np.uint8),
    ]


def outputs(maps, boxes, scores, groups, truths, seeds, masks) -> list:
    """One result of each operation."""
    size = np.array([[96, 96], [50, 70]], np.int32)
    inside = boxes_lib.clip(boxes, size)
    overlaps = boxes_lib.iou(inside, truths)
    index, kind = match(overlaps, np.array([[True] * 4, [True, True, False, False]]), 0.5, 0.2, True)
    chosen = balanced(kind == 1, kind == 0, seeds, 12, 0.5)
    code = boxes_lib.encode(inside, inside[:, ::-1], (10, 10, 5, 5))
    return [
        overlaps,
        index,
        chosen,
        *first(chosen, 16),
        boxes_lib.decode(code, inside[:, ::-1], (10, 10, 5, 5)),
        *nms(inside, scores, 0.3, 10, groups),
        roi_align(maps, boxes, reference.STRIDES, 3),
        crop_masks(masks, truths, index, inside, 5),
    ]


def main() -> None:
    """Compiles and runs everything under JAX, with the gradient of ROIAlign."""
    import jax

    maps, boxes, *rest = inputs()

    def total(maps, boxes):
        return (roi_align(maps, boxes, reference.STRIDES, 3) ** 2).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(maps, boxes)
    np.savez(sys.argv[1], *jax.jit(outputs)(maps, boxes, *rest), *gradients[0], gradients[1])


if __name__ == '__main__':
    main()
