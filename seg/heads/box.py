"""Box head: class and box of each proposal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from seg.errors import UserError, shown
from seg.heads import torchvision_weights
from seg.heads.detector import Detector
from seg.heads.roi_sampler import Rois, RoiSampler, Truth
from seg.layers.conv_bias import ConvStack
from seg.layers.norm import NormFactory
from seg.number_checks import check_counts, check_fractions, check_number, check_widths
from seg.ops import boxes as boxes_lib
from seg.ops.gathering import batched_gather
from seg.ops.roi_align import roi_align
from seg.registry import heads
from seg.structures import ClassRows, Published


@heads.register('box')
def box(
    *,
    num_classes: int,
    norm: NormFactory,
    fc: tuple[int, ...] = (1024, 1024),
    convs: tuple[int, ...] = (),
    use_norm: bool = False,
    roi_size: int = 7,
    sampling_ratio: int = 2,
    aligned: bool = False,
    class_agnostic: bool = False,
    sampled: int = 512,
    positive_fraction: float = 0.25,
    positive_iou: float = 0.5,
    code_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0),
    score_threshold: float = 0.05,
    nms_iou: float = 0.5,
    max_detections: int = 100,
    pre_nms: int = 4096,
) -> keras.layers.Layer:
    """Box head: class scores and box corrections of each proposal, by fully connected layers.

    Girshick, "Fast R-CNN", ICCV 2015; with convolutions as in Wu and He, "Group Normalization", ECCV 2018.

    Args:
      num_classes: classes, without background.
      norm: makes the normalisation layers.
      fc: widths of the fully connected layers, such as (1024, 1024), or (1024,) after four convolutions.
      convs: channels of the 3x3 convolutions before them.
      use_norm: whether the convolutions have a normalisation in place of a bias.
      roi_size: bins per side of a proposal's features.
      sampling_ratio: samples per side of a bin; 1 in the TPU release.
      aligned: whether ROIAlign takes a cell's value at its middle, half a cell further than where convolutions with
        symmetric padding centre it.
      class_agnostic: whether there is one box for all classes instead of one for each.
      sampled: proposals per image to train on. The ground-truth boxes are among the candidates.
      positive_fraction: largest fraction of positives among them.
      positive_iou: lowest IoU with a ground-truth box at which a proposal has its class; below it is background.
      code_weights: factors of a box's code (dy, dx, dh, dw).
      score_threshold: detections have a higher score.
      nms_iou: IoU above which, of two detections of one class, the one with the lower score is dropped.
      max_detections: detections per image.
      pre_nms: (proposal, class) pairs per image that enter the suppression, the best of those over the threshold.

    Returns:
      The layer, see `BoxHead`.

    Raises:
      UserError: if a setting is out of range.
    """
    slot = 'heads.box'
    check_counts(
        slot,
        roi_size=roi_size,
        sampling_ratio=sampling_ratio,
        sampled=sampled,
        max_detections=max_detections,
        pre_nms=pre_nms,
    )
    check_widths(slot, fc=fc, convs=convs)
    check_fractions(
        slot,
        positive_fraction=positive_fraction,
        positive_iou=positive_iou,
        score_threshold=score_threshold,
        nms_iou=nms_iou,
    )
    if not isinstance(code_weights, tuple | list) or len(code_weights) != 4:
        raise UserError(f'{slot}.code_weights = {shown(code_weights)}: expected four numbers, for dy, dx, dh and dw.')
    for i, weight in enumerate(code_weights):
        check_number(f'{slot}.code_weights[{i}]', weight, above=True)
    sampler = RoiSampler(sampled, positive_fraction, positive_iou)
    if sampler.max_positives < 1:
        raise UserError(
            f'{slot}.positive_fraction = {positive_fraction!r}: expected a fraction of {slot}.sampled = {sampled} that '
            'is at least one proposal.'
        )
    layer = BoxHead(
        num_classes,
        ConvStack(convs, norm if use_norm else None, kernel_initializer='he_normal', name='convs'),
        fc=tuple(fc),
        roi={'size': roi_size, 'sampling_ratio': sampling_ratio, 'aligned': aligned},
        class_agnostic=class_agnostic,
        code_weights=tuple(code_weights),
        sampler=sampler,
        detector=Detector(score_threshold, nms_iou, max_detections, pre_nms),
    )
    layer.published = Published(
        title='the box head of a torchvision detector',
        convert=lambda tensors: torchvision_weights.box_head(tensors, num_classes, len(convs), len(fc), roi_size),
        class_names=lambda tensors: torchvision_weights.class_names(tensors, num_classes),
    )
    return layer


class BoxHead(keras.layers.Layer):
    """Classifies regions and predicts corrections of their boxes.

    Attributes:
      code_weights: factors of the boxes' codes.
      sampler: selects the proposals that it is trained on.
      detector: makes detections of its outputs.
    """

    def __init__(
        self,
        num_classes: int,
        convs: ConvStack,
        *,
        fc: tuple[int, ...],
        roi: dict[str, Any],
        class_agnostic: bool,
        code_weights: tuple[float, ...],
        sampler: RoiSampler,
        detector: Detector,
    ):
        # Without autocast: bfloat16 would round boxes.
        super().__init__(name='box_head', autocast=False)
        self.exact = keras.backend.result_type(self.compute_dtype, 'float32')
        self.num_classes = num_classes
        self.convs = convs
        self.fc = [keras.layers.Dense(width, activation='relu', name=f'fc{i}') for i, width in enumerate(fc, start=1)]

        def output(units: int, stddev: float, name: str) -> keras.layers.Dense:
            initializer = keras.initializers.RandomNormal(stddev=stddev)
            return keras.layers.Dense(units, kernel_initializer=initializer, dtype=self.exact, name=name)

        self.boxes_per_roi = 1 if class_agnostic else num_classes
        self.classify = output(num_classes + 1, 0.01, 'class_logits')
        self.shift = output(4 * self.boxes_per_roi, 0.001, 'deltas')
        self.roi = roi
        self.class_agnostic = class_agnostic
        self.code_weights = code_weights
        self.sampler = sampler
        self.detector = detector

    def build(self, map_shape: tuple) -> None:
        """Makes the variables for maps of this shape, [B, h, w, C]."""
        shape = (None, self.roi['size'], self.roi['size'], map_shape[-1])
        self.convs.build(shape)
        shape = (None, int(np.prod(self.convs.compute_output_shape(shape)[1:])))
        for dense in self.fc:
            dense.build(shape)
            shape = dense.compute_output_shape(shape)
        self.classify.build(shape)
        self.shift.build(shape)

    def class_rows(self) -> dict[str, ClassRows]:
        rows = {variable.path: ClassRows(before=1) for variable in self.classify.variables}
        boxes = () if self.class_agnostic else self.shift.variables
        return rows | {variable.path: ClassRows(each=4) for variable in boxes}

    def crop(self, maps: Sequence[Any], strides: Sequence[int], boxes: Any) -> Any:
        """Pools the features of boxes [B, R, 4] from maps p2, p3, …: [B, R, roi_size, roi_size, C]."""
        return roi_align(maps, boxes, strides, **self.roi)

    def call(self, crops: Any, training: bool = False) -> tuple[Any, Any]:
        """Classifies regions.

        Args:
          crops: [B, R, roi_size, roi_size, C], as `crop` returns them.
          training: whether to use the batch's statistics.

        Returns:
          Logits [B, R, K + 1], background first, and deltas [B, R, C, 4], C = K or 1; float32 or better.
        """
        count = crops.shape[1]
        x = self.convs(ops.reshape(crops, (-1, *crops.shape[2:])), training=training)
        x = ops.reshape(x, (-1, int(np.prod(x.shape[1:]))))
        for dense in self.fc:
            x = dense(x)
        logits = ops.reshape(self.classify(x), (-1, count, self.num_classes + 1))
        return logits, ops.reshape(self.shift(x), (-1, count, self.boxes_per_roi, 4))

    def targets(self, rois: Rois, truth: Truth) -> Any:
        """Returns the codes [B, R, 4] of the matched instances' boxes; 0 for regions that are not positive."""
        positive = ops.expand_dims(rois.classes > 0, -1)
        # A region that is not positive is its own target, whose code is 0; an empty row has no code of its own.
        start = ops.where(positive, rois.boxes, ops.convert_to_tensor([0, 0, 1, 1], dtype=rois.boxes.dtype))
        target = ops.where(positive, batched_gather(truth.boxes, rois.index), start)
        return ops.stop_gradient(boxes_lib.encode(target, start, self.code_weights))

    def refine(self, boxes: Any, deltas: Any, size: Any) -> Any:
        """Moves boxes [B, R, 4] by class-agnostic deltas [B, R, 1, 4], clipped to `size` [B, 2]; no gradient."""
        moved = boxes_lib.decode(ops.stop_gradient(deltas)[:, :, 0], boxes, self.code_weights)
        return boxes_lib.clip(moved, size)
