"""Box head: which class a proposal is of, and where exactly its box is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from seg.errors import UserError
from seg.heads import checks, torchvision_weights
from seg.layers.conv_bias import ConvStack
from seg.layers.norm import Norm
from seg.ops import boxes as boxes_lib
from seg.ops import matching, sampling
from seg.ops.gathering import pick
from seg.ops.nms import nms
from seg.ops.roi_align import roi_align
from seg.registry import heads
from seg.structures import Published

# Detections that are less high or wide are dropped, in pixels.
MIN_SIDE = 0.01


@heads.register('box')
def box(
    *,
    num_classes: int,
    norm: Norm,
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
      norm: maker of the normalisation layers.
      fc: widths of the fully connected layers, such as (1024, 1024), or (1024,) after four convolutions.
      convs: channels of the 3x3 convolutions before them.
      use_norm: whether these have a normalisation in place of a bias.
      roi_size: bins per side in which a proposal's features are read.
      sampling_ratio: samples per side of a bin; 1 is the way of the TPU release.
      aligned: whether ROIAlign takes a cell's value at its middle, half a cell further than where convolutions with
        symmetric padding centre it.
      class_agnostic: whether there is one box for all classes instead of one for each.
      sampled: proposals per image that are trained on. The true boxes are among the candidates.
      positive_fraction: largest share of positives among them.
      positive_iou: overlap with a true box from which on a proposal is of its class; below it is background.
      code_weights: factors of a box's code (dy, dx, dh, dw).
      score_threshold: a detection has a higher score.
      nms_iou: overlap above which the lower of two detections of one class is dropped.
      max_detections: per image.
      pre_nms: pairs of a proposal and a class, the best of those over the threshold, that enter the suppression.

    Returns:
      The layer, see `BoxHead`.

    Raises:
      UserError: if a setting is out of range.
    """
    checks.counts(
        'box',
        roi_size=roi_size,
        sampling_ratio=sampling_ratio,
        sampled=sampled,
        max_detections=max_detections,
        pre_nms=pre_nms,
    )
    checks.widths('box', fc=fc, convs=convs)
    checks.shares(
        'box',
        positive_fraction=positive_fraction,
        positive_iou=positive_iou,
        score_threshold=score_threshold,
        nms_iou=nms_iou,
    )
    if len(code_weights) != 4 or min(code_weights) <= 0:
        raise UserError(f'box.code_weights = {code_weights!r}: expected four numbers above 0, for dy, dx, dh and dw.')
    if int(sampled * positive_fraction) < 1:
        raise UserError(
            f'box.positive_fraction = {positive_fraction!r}: expected a share with a positive in it, this is none of '
            f'{sampled} sampled.'
        )
    layer = BoxHead(
        num_classes,
        ConvStack(convs, norm if use_norm else None, kernel_initializer='he_normal', name='convs'),
        fc=tuple(fc),
        roi={'size': roi_size, 'sampling_ratio': sampling_ratio, 'aligned': aligned},
        class_agnostic=class_agnostic,
        sampled=sampled,
        positive_fraction=positive_fraction,
        positive_iou=positive_iou,
        code_weights=tuple(code_weights),
        score_threshold=score_threshold,
        nms_iou=nms_iou,
        max_detections=max_detections,
        pre_nms=pre_nms,
    )
    layer.published = Published(
        title='the box head of a torchvision detector',
        convert=lambda tensors: torchvision_weights.box_head(tensors, num_classes, len(convs), len(fc), roi_size),
    )
    return layer


class Truth(NamedTuple):
    """The objects of a batch of images.

    Attributes:
      boxes: [B, N, 4] in pixels, float32 or better.
      classes: int32 [B, N], 0 to K - 1.
      valid: bool [B, N], false for padding.
    """

    boxes: Any
    classes: Any
    valid: Any


class Rois(NamedTuple):
    """Proposals to train on, positives first.

    Attributes:
      boxes: [B, R, 4] in pixels; 0 in empty places.
      classes: int32 [B, R]: 0 for background, class + 1, or -1 in empty places.
      index: int32 [B, R], the object that each overlaps most.
    """

    boxes: Any
    classes: Any
    index: Any


class BoxHead(keras.layers.Layer):
    """Classifies regions and corrects their boxes; knows how they are chosen for training, and what becomes of them.

    Attributes:
      sampled: proposals per image to train on.
      max_positives: how many of them may be positive.
    """

    def __init__(
        self,
        num_classes: int,
        convs: ConvStack,
        *,
        fc: tuple[int, ...],
        roi: dict[str, Any],
        class_agnostic: bool,
        sampled: int,
        positive_fraction: float,
        positive_iou: float,
        code_weights: tuple[float, ...],
        score_threshold: float,
        nms_iou: float,
        max_detections: int,
        pre_nms: int,
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
        self.sampled = sampled
        self.max_positives = int(sampled * positive_fraction)
        self.positive_fraction = positive_fraction
        self.positive_iou = positive_iou
        self.code_weights = code_weights
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections
        self.pre_nms = pre_nms

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

    def crop(self, maps: Sequence[Any], strides: Sequence[int], boxes: Any) -> Any:
        """Reads the features of boxes [B, R, 4] off a pyramid p2, p3, …: [B, R, roi_size, roi_size, C]."""
        return roi_align(maps, boxes, strides, **self.roi)

    def call(self, crops: Any, training: bool = False) -> tuple[Any, Any]:
        """Classifies regions.

        Args:
          crops: [B, R, roi_size, roi_size, C], as `crop` returns them.
          training: whether to use the batch's statistics.

        Returns:
          Logits [B, R, K + 1], the first of which is background's, and deltas [B, R, C, 4], C = K or 1; float32 or
          better.
        """
        count = crops.shape[1]
        x = self.convs(ops.reshape(crops, (-1, *crops.shape[2:])), training=training)
        x = ops.reshape(x, (-1, int(np.prod(x.shape[1:]))))
        for dense in self.fc:
            x = dense(x)
        logits = ops.reshape(self.classify(x), (-1, count, self.num_classes + 1))
        return logits, ops.reshape(self.shift(x), (-1, count, self.boxes_per_roi, 4))

    def sample(self, boxes: Any, valid: Any, truth: Truth, seed: Any) -> Rois:
        """Chooses proposals to train on, in a fixed proportion of positives and negatives.

        Args:
          boxes: [B, R, 4], the proposals.
          valid: bool [B, R], which of them there are.
          truth: whose boxes are candidates, too.
          seed: int32 [B, 2], of the choice.
        """
        boxes = ops.concatenate([boxes, truth.boxes], axis=1)
        valid = ops.concatenate([valid, truth.valid], axis=1)
        index, positive = self._match(boxes, truth)
        negative = ops.logical_and(valid, ops.logical_not(positive))
        positive = ops.logical_and(valid, positive)
        chosen = sampling.balanced(positive, negative, seed, self.sampled, self.positive_fraction, salt=0xB0C5)
        places, kind = sampling.first(chosen, self.sampled)
        index = pick(index, places)
        boxes = ops.where(ops.expand_dims(kind >= 0, -1), pick(boxes, places), 0)
        classes = ops.where(ops.equal(kind, 1), pick(truth.classes, index) + 1, kind)
        return Rois(boxes, classes, index)

    def relabel(self, boxes: Any, rois: Rois, truth: Truth) -> Rois:
        """Compares the same regions, whose boxes have moved to `boxes` [B, R, 4], with the truth once more."""
        index, positive = self._match(boxes, truth)
        classes = ops.where(positive, pick(truth.classes, index) + 1, 0)
        return Rois(boxes, ops.where(rois.classes < 0, -1, classes), index)

    def _match(self, boxes: Any, truth: Truth) -> tuple[Any, Any]:
        """Returns the best object of each box, int32 [B, R], and whether the box counts for it, bool [B, R]."""
        overlap = boxes_lib.iou(boxes, truth.boxes)
        index, kind = matching.match(overlap, truth.valid, self.positive_iou, self.positive_iou, force_best=False)
        return index, ops.equal(kind, 1)

    def targets(self, rois: Rois, truth: Truth) -> Any:
        """Returns the deltas [B, R, 4] that lead to the objects; 0 for regions that are not positive."""
        positive = ops.expand_dims(rois.classes > 0, -1)
        # A region that is not positive gets itself as a target, whose code is 0; an empty place could have no code.
        start = ops.where(positive, rois.boxes, ops.convert_to_tensor([0, 0, 1, 1], dtype=rois.boxes.dtype))
        target = ops.where(positive, pick(truth.boxes, rois.index), start)
        return ops.stop_gradient(boxes_lib.encode(target, start, self.code_weights))

    def refine(self, boxes: Any, deltas: Any, size: Any) -> Any:
        """Moves boxes [B, R, 4] by class-agnostic deltas [B, R, 1, 4], within images of `size` [B, 2]; no gradient."""
        moved = boxes_lib.decode(ops.stop_gradient(deltas)[:, :, 0], boxes, self.code_weights)
        return boxes_lib.clip(moved, size)

    def detect(self, boxes: Any, valid: Any, probabilities: Any, deltas: Any, size: Any) -> dict[str, Any]:
        """Turns regions into detections: every class over the threshold, suppression within each class, the best.

        Args:
          boxes: [B, R, 4].
          valid: bool [B, R], which of them there are.
          probabilities: [B, R, K + 1], background's first.
          deltas: [B, R, C, 4].
          size: int32 [B, 2], height and width of each image within its padding; boxes end there.

        Returns:
          `boxes` [B, D, 4] in pixels, `scores` [B, D] and `classes` int32 [B, D], by falling score; in empty places 0,
          0 and -1.
        """
        regions, classes = boxes.shape[1], self.num_classes
        scores = probabilities[..., 1:]
        wanted = ops.logical_and(valid[..., None], scores > self.score_threshold)
        scores = ops.reshape(ops.where(wanted, scores, -float('inf')), (-1, regions * classes))
        scores, pairs = ops.top_k(scores, min(self.pre_nms, regions * classes))
        pairs = ops.cast(pairs, 'int32')
        region, label = pairs // classes, pairs % classes
        deltas = ops.reshape(deltas, (-1, regions * self.boxes_per_roi, 4))
        delta = pick(deltas, region if self.class_agnostic else pairs)
        moved = boxes_lib.clip(boxes_lib.decode(delta, pick(boxes, region), self.code_weights), size)
        large = ops.all(moved[..., 2:] - moved[..., :2] >= MIN_SIDE, axis=-1)
        scores = ops.where(large, scores, -float('inf'))
        index, found = nms(moved, scores, self.nms_iou, self.max_detections, label)
        return {
            'boxes': ops.where(found[..., None], pick(moved, index), 0),
            'scores': ops.where(found, pick(scores, index), 0),
            'classes': ops.where(found, pick(label, index), -1),
        }
