"""Region proposal network: class-agnostic proposals of instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from seg.errors import UserError, shown
from seg.layers import torch_tensors
from seg.layers.conv_bias import ConvStack
from seg.layers.norm import NormFactory
from seg.number_checks import check_counts, check_fractions, check_number
from seg.ops import anchors as anchors_lib
from seg.ops import boxes as boxes_lib
from seg.ops import matching, sampling
from seg.ops.gathering import batched_gather
from seg.ops.nms import nms
from seg.registry import heads
from seg.structures import Published

# Aspect ratios (height / width) of a cell's anchors, in the order of torchvision's channels.
TORCHVISION_RATIOS = (0.5, 1.0, 2.0)


@heads.register('rpn')
def rpn(
    *,
    num_classes: int,
    norm: NormFactory,
    channels: int = 256,
    num_convs: int = 1,
    use_norm: bool = False,
    anchor_scale: float = 8.0,
    anchor_ratios: tuple[float, ...] = (1.0, 2.0, 0.5),
    anchor_octaves: int = 1,
    anchor_offset: float = 0.0,
    round_anchors: bool = False,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    sampled: int = 256,
    positive_fraction: float = 0.5,
    train_pre_nms: int = 2000,
    eval_pre_nms: int = 1000,
    train_proposals: int = 1000,
    eval_proposals: int = 1000,
    nms_iou: float = 0.7,
    min_size: float = 0.0,
) -> keras.layers.Layer:
    """Region proposal network, shared by all levels of a feature pyramid.

    Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NIPS 2015.

    Args:
      num_classes: unused: a proposal has no class.
      norm: makes the normalisation layers.
      channels: channels of the 3x3 convolutions.
      num_convs: number of 3x3 convolutions.
      use_norm: whether the convolutions have a normalisation in place of a bias.
      anchor_scale: side of a square anchor, in cells of its level: 8 gives 32 pixels on p2 and 512 on p6.
      anchor_ratios: aspect ratios (height / width) of the anchors.
      anchor_octaves: number of anchor sizes per level, evenly spaced (by factors) up to the next level's.
      anchor_offset: position of an anchor's centre in its cell, 0 to 1; 0 is where the cell's features are centred; 0.5
        in the TPU release.
      round_anchors: whether anchors are rounded to whole pixels, as in torchvision.
      positive_iou: lowest IoU with a ground-truth box at which an anchor is positive; the best anchors of each instance
        are positive in any case.
      negative_iou: IoU below which an anchor is negative.
      sampled: anchors per image that enter the losses.
      positive_fraction: largest fraction of positives among them.
      train_pre_nms: best anchors of each level that enter the suppression, in training.
      eval_pre_nms: the same in evaluation.
      train_proposals: proposals per image, in training.
      eval_proposals: the same in evaluation.
      nms_iou: IoU above which, of two proposals of one level, the one with the lower score is dropped.
      min_size: proposals of a smaller height or width, in pixels, are dropped; those without area always are.

    Returns:
      The layer, see `RPN`.

    Raises:
      UserError: if a setting is out of range.
    """
    slot = 'heads.rpn'
    check_counts(
        slot,
        channels=channels,
        num_convs=num_convs,
        anchor_octaves=anchor_octaves,
        sampled=sampled,
        train_pre_nms=train_pre_nms,
        eval_pre_nms=eval_pre_nms,
        train_proposals=train_proposals,
        eval_proposals=eval_proposals,
    )
    check_fractions(
        slot,
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        positive_fraction=positive_fraction,
        nms_iou=nms_iou,
        anchor_offset=anchor_offset,
    )
    if negative_iou > positive_iou:
        raise UserError(
            f'{slot}.negative_iou = {negative_iou!r}: expected at most {slot}.positive_iou = {positive_iou!r}.'
        )
    check_number(f'{slot}.anchor_scale', anchor_scale, above=True)
    if not isinstance(anchor_ratios, tuple | list) or not anchor_ratios:
        raise UserError(f'{slot}.anchor_ratios = {shown(anchor_ratios)}: expected a tuple, such as (0.5, 1.0, 2.0).')
    for i, ratio in enumerate(anchor_ratios):
        check_number(f'{slot}.anchor_ratios[{i}]', ratio, above=True)
    check_number(f'{slot}.min_size', min_size)
    layer = RPN(
        ConvStack((channels,) * num_convs, norm if use_norm else None, kernel_initializer=_small(), name='rpn_convs'),
        anchors={
            'scale': anchor_scale,
            'ratios': tuple(anchor_ratios),
            'octaves': anchor_octaves,
            'offset': anchor_offset,
            'rounded': round_anchors,
        },
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        sampled=sampled,
        positive_fraction=positive_fraction,
        train_limits=Limits(train_pre_nms, train_proposals),
        eval_limits=Limits(eval_pre_nms, eval_proposals),
        nms_iou=nms_iou,
        min_size=min_size,
    )
    layer.published = Published(
        title='the RPN of a torchvision detector',
        convert=lambda tensors: _from_torchvision(tensors, num_convs, tuple(anchor_ratios), anchor_octaves),
    )
    return layer


def _small() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


class Limits(NamedTuple):
    """Numbers of boxes, in training or in evaluation.

    Attributes:
      pre_nms: best anchors of each level that enter the suppression.
      proposals: proposals per image.
    """

    pre_nms: int
    proposals: int


class Proposals(NamedTuple):
    """Boxes that may hold an instance.

    Attributes:
      boxes: [B, R, 4] in pixels, by decreasing score; 0 in empty rows.
      valid: bool [B, R], false for empty rows.
    """

    boxes: Any
    valid: Any


class RPN(keras.layers.Layer):
    """Scores anchors, moves them onto instances, and selects the best."""

    def __init__(
        self,
        convs: ConvStack,
        *,
        anchors: dict[str, Any],
        positive_iou: float,
        negative_iou: float,
        sampled: int,
        positive_fraction: float,
        train_limits: Limits,
        eval_limits: Limits,
        nms_iou: float,
        min_size: float,
    ):
        # Without autocast: bfloat16 would round boxes.
        super().__init__(name='rpn', autocast=False)
        exact = keras.backend.result_type(self.compute_dtype, 'float32')
        self.convs = convs
        self.per_cell = len(anchors['ratios']) * anchors['octaves']
        self.score = keras.layers.Conv2D(self.per_cell, 1, kernel_initializer=_small(), dtype=exact, name='logits')
        self.shift = keras.layers.Conv2D(4 * self.per_cell, 1, kernel_initializer=_small(), dtype=exact, name='deltas')
        self.exact = exact
        self.anchor_settings = anchors
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.sampled = sampled
        self.positive_fraction = positive_fraction
        self.train_limits = train_limits
        self.eval_limits = eval_limits
        self.nms_iou = nms_iou
        self.min_size = min_size

    def build(self, map_shape: tuple) -> None:
        """Makes the variables for maps of this shape, [B, h, w, C]."""
        self.convs.build(map_shape)
        shape = self.convs.compute_output_shape(map_shape)
        self.score.build(shape)
        self.shift.build(shape)

    def call(self, maps: Sequence[Any], training: bool = False) -> tuple[list, list]:
        """Scores every cell's anchors.

        Args:
          maps: feature maps [B, h, w, C], the finest first.
          training: whether to use the batch's statistics.

        Returns:
          For each map logits [B, h * w * a], and deltas [B, h * w * a, 4], both float32 or better, in the order of
          `anchors`.
        """
        logits, deltas = [], []
        for x in maps:
            count = x.shape[1] * x.shape[2] * self.per_cell
            x = self.convs(x, training=training)
            logits.append(ops.reshape(self.score(x), (-1, count)))
            deltas.append(ops.reshape(self.shift(x), (-1, count, 4)))
        return logits, deltas

    def anchors(self, canvas: tuple[int, int], strides: Sequence[int]) -> list[np.ndarray]:
        """Returns the anchors of each map, float32 [h * w * a, 4], for a canvas (height, width) in pixels."""
        return anchors_lib.pyramid(canvas, strides, **self.anchor_settings)

    def targets(self, anchors: Sequence[np.ndarray], boxes: Any, valid: Any, seed: Any) -> dict[str, Any]:
        """Matches all anchors with the ground truth and samples those for the losses.

        Args:
          anchors: anchors of each map.
          boxes: [B, N, 4], the ground-truth boxes.
          valid: bool [B, N], false for padding.
          seed: int32 [B, 2], seed of the random sampling.

        Returns:
          `labels` int32 [B, A] (1, 0, or -1 for anchors not in the sample), `targets` [B, A, 4] (box codes; 0 for
          anchors that are not positive), and `matched` int32 [B], the number of anchors that reach `positive_iou`.
        """
        anchors = ops.convert_to_tensor(np.concatenate(anchors), dtype=boxes.dtype)[None]
        overlap = boxes_lib.iou(anchors, boxes)
        index, kind = matching.match(overlap, valid, self.positive_iou, self.negative_iou, force_best=True)
        best = ops.max(ops.where(valid[:, None], overlap, -1), axis=-1)
        labels = sampling.balanced(
            ops.equal(kind, 1), ops.equal(kind, 0), seed, self.sampled, self.positive_fraction, salt=0x59A1
        )
        # An anchor that is not positive is its own target, whose code is 0 and always finite.
        target = ops.where(ops.equal(kind, 1)[..., None], batched_gather(boxes, index), anchors)
        return {
            'labels': labels,
            'targets': ops.stop_gradient(boxes_lib.encode(target, anchors)),
            'matched': ops.sum(ops.cast(best >= self.positive_iou, 'int32'), axis=-1),
        }

    def propose(
        self, anchors: Sequence[np.ndarray], logits: Sequence[Any], deltas: Sequence[Any], size: Any, training: bool
    ) -> Proposals:
        """Selects the best boxes of all maps. No gradient flows through them.

        Args:
          anchors: anchors of each map.
          logits: logits of each map, as `call` returns them.
          deltas: deltas of each map, as `call` returns them.
          size: int32 [B, 2], height and width of each image within its padding; boxes are clipped to it.
          training: whether the limits of training apply, or those of evaluation.
        """
        limits = self.train_limits if training else self.eval_limits
        boxes, scores, levels = [], [], []
        for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
            count = min(limits.pre_nms, anchor.shape[0])
            score, index = ops.top_k(ops.stop_gradient(logit), count)
            anchor = ops.take(ops.convert_to_tensor(anchor, dtype=self.exact), index, axis=0)
            boxes.append(boxes_lib.decode(batched_gather(ops.stop_gradient(delta), index), anchor))
            scores.append(score)
            levels.append(np.full((1, count), level, np.int32))
        boxes = boxes_lib.clip(ops.concatenate(boxes, axis=1), size)
        sides = boxes[..., 2:] - boxes[..., :2]
        kept = ops.all(ops.logical_and(sides > 0, sides >= self.min_size), axis=-1)
        # Logits, not sigmoids: those of two good proposals may be equal.
        scores = ops.where(kept, ops.concatenate(scores, axis=1), -float('inf'))
        levels = ops.zeros_like(scores, dtype='int32') + ops.convert_to_tensor(np.concatenate(levels, axis=1))
        index, valid = nms(boxes, scores, self.nms_iou, limits.proposals, levels)
        return Proposals(ops.where(valid[..., None], batched_gather(boxes, index), 0), valid)


def _from_torchvision(
    tensors: dict[str, np.ndarray], num_convs: int, ratios: tuple[float, ...], octaves: int
) -> dict[str, np.ndarray]:
    """Converts tensors of torchvision, which orders a cell's anchors by its own ratios and a code by x before y."""
    arrays = {}
    for i in range(num_convs):
        # Files from before torchvision 0.13 have a single convolution without a number.
        theirs = f'rpn.head.conv.{i}' if f'rpn.head.conv.{i}.0.weight' in tensors else 'rpn.head.conv'
        arrays |= torch_tensors.conv(tensors, theirs, f'rpn_convs/conv{i + 1}')
    arrays |= torch_tensors.conv(tensors, 'rpn.head.cls_logits', 'logits')
    arrays |= torch_tensors.conv(tensors, 'rpn.head.bbox_pred', 'deltas')
    if sorted(ratios) != sorted(TORCHVISION_RATIOS) or octaves != 1:
        return torch_tensors.under('rpn', arrays)  # Anchors of other shapes: keep the order.
    order = [TORCHVISION_RATIOS.index(ratio) for ratio in ratios]
    for name in ('logits/kernel', 'logits/bias', 'deltas/kernel', 'deltas/bias'):
        if name not in arrays:
            continue
        code = 4 if name.startswith('deltas') else 1
        value = np.moveaxis(arrays[name], -1, 0)
        if value.shape[0] != code * len(order):
            continue
        value = value.reshape(len(order), code, *value.shape[1:])[order]
        if code == 4:
            value = value[:, [1, 0, 3, 2]]
        arrays[name] = np.moveaxis(value.reshape(-1, *value.shape[2:]), 0, -1)
    return torch_tensors.under('rpn', arrays)
