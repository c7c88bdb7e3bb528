"""`--raw_heads`: a Mask R-CNN as three networks, between which numpy selects boxes and suppresses those that overlap.

Each format writes them into a folder of its own, with `postprocess.py` and the description, `seg.json`. No network has
a loop, and none has weights of another, so that together they are as large as one file.
"""

from __future__ import annotations

import functools
import os
import shutil
from typing import Any

import tensorflow as tf
from keras import ops

from seg import files
from seg.errors import UserError
from seg.export import formats, network, postprocess
from seg.export.description import Description
from seg.export.formats import Format, Images
from seg.export.model_file import MEMBER
from seg.export.tracing import Traced, images_on
from seg.heads.detector import MIN_SIDE
from seg.models.mask_rcnn import ROI_LEVELS, MaskRCNN
from seg.ops import boxes as boxes_lib

_PARTS = {'regions': ('backbone', 'decoder', 'rpn'), 'boxes': ('box_head',), 'masks': ('mask_head',)}
_MEANINGS = {
    'sizes': network.INPUTS['sizes'],
    'images': network.INPUTS['images'],
    'proposals': 'the box of each anchor, y0, x0, y1, x1 in pixels of the canvas, level by level',
    'objectness': 'logit of each proposal',
    'regions': 'the proposals that numpy selects; 0 in empty rows',
    'candidates': 'the box of each region for each class, or one for all classes',
    'probabilities': 'probability of each class, without background',
    'boxes': 'the detections that numpy selects; 0 in empty rows',
    'classes': 'their classes; -1 in empty rows',
    'masks': 'probabilities over each box; 0 in empty rows',
}


def check_model(task: Any) -> None:
    """Refuses models without heads of this kind.

    Raises:
      UserError: with what to do.
    """
    if not isinstance(getattr(task, 'model', None), MaskRCNN):
        raise UserError(
            f'--raw_heads: expected a run of models.mask_rcnn or models.cascade_rcnn; {type(task).__name__} has no '
            "suppression to leave out. Remove the flag; --probabilities gives the outputs of a class map's head."
        )


class Heads:
    """The three networks of a model, in place of a `Traced` network.

    Attributes:
      networks: returns them by name, for a number of images or any (None).
    """

    def __init__(self, model: MaskRCNN, canvas: tuple[int, int], scratch: str):
        """Stores the model.

        Args:
          model: the model, with its weights.
          canvas: (height, width) of all images.
          scratch: a folder for SavedModels.
        """
        self._model, self._canvas, self._scratch = model, canvas, scratch
        self.networks = functools.cache(self._networks)

    def _networks(self, batch: int | None) -> dict[str, Traced]:
        model, canvas = self._model, self._canvas

        def regions(images: Any, sizes: Any) -> dict[str, Any]:
            batch = network.padded(images, sizes, canvas)
            maps, anchors, logits, deltas = model.score_anchors(batch)
            anchors = ops.concatenate([ops.convert_to_tensor(level) for level in anchors])
            boxes = boxes_lib.clip(boxes_lib.decode(ops.concatenate(deltas, axis=1), anchors), batch['size'])
            return dict(zip(ROI_LEVELS, maps, strict=True)) | {
                'proposals': boxes,
                'objectness': ops.concatenate(logits, axis=1),
            }

        def boxes(p2: Any, p3: Any, p4: Any, p5: Any, regions: Any, sizes: Any) -> dict[str, Any]:
            starts, probabilities, deltas = model.classify([p2, p3, p4, p5], regions, sizes)
            moved = boxes_lib.decode(deltas, starts[:, :, None], model.box_heads[-1].code_weights)
            flat = boxes_lib.clip(ops.reshape(moved, (-1, moved.shape[1] * moved.shape[2], 4)), sizes)
            return {'candidates': ops.reshape(flat, (-1, *moved.shape[1:])), 'probabilities': probabilities[..., 1:]}

        def masks(p2: Any, p3: Any, p4: Any, p5: Any, boxes: Any, classes: Any) -> dict[str, Any]:
            return {'masks': model.segment([p2, p3, p4, p5], boxes, classes)}

        first = self._traced(regions, images_on(canvas))
        found = first.outputs(batch)
        maps = [tf.TensorSpec((None, *found[name].shape[1:]), tf.float32, name) for name in ROI_LEVELS]
        settings = self.settings()
        selected = tf.TensorSpec((None, settings['regions'], 4), tf.float32, 'regions')
        sizes = tf.TensorSpec((None, 2), tf.int32, 'sizes')
        detected = tf.TensorSpec((None, settings['detections'], 4), tf.float32, 'boxes')
        classes = tf.TensorSpec((None, settings['detections']), tf.int32, 'classes')
        return {
            'regions': first,
            'boxes': self._traced(boxes, [*maps, selected, sizes]),
            'masks': self._traced(masks, [*maps, detected, classes]),
        }

    def _traced(self, function: Any, specs: list[tf.TensorSpec]) -> Traced:
        name = function.__name__
        variables = [
            variable
            for part, layer in self._model.parts.items()
            if part.startswith(_PARTS[name])
            for variable in layer.variables
        ]
        return Traced(function, variables, specs, os.path.join(self._scratch, name))

    def outputs(self, batch: int | None) -> dict[str, Any]:
        """The specs of the last network's outputs, see `Traced.outputs`."""
        return self.networks(batch)['masks'].outputs(batch)

    def settings(self) -> dict[str, Any]:
        """The settings of `postprocess`."""
        model = self._model
        rpn, detector = model.rpn, model.box_heads[-1].detector
        levels = rpn.anchors(self._canvas, list(model.strides.values()))
        return {
            'maps': list(ROI_LEVELS),
            'levels': [len(anchors) for anchors in levels],
            'proposals_per_level': rpn.eval_limits.pre_nms,
            'regions': rpn.eval_limits.proposals,
            'region_iou': rpn.nms_iou,
            'smallest_region': rpn.min_size,
            'candidates': detector.pre_nms,
            'score_threshold': detector.score_threshold,
            'detection_iou': detector.nms_iou,
            'smallest_detection': MIN_SIDE,
            'detections': detector.max_detections,
        }

    def describe(self, batch: int | None) -> dict[str, Any]:
        """`Description.heads`."""
        about = {
            name: {
                'inputs': _meanings({spec.name: spec for spec in traced.specs}),
                'outputs': _meanings(traced.outputs(batch)),
            }
            for name, traced in self.networks(batch).items()
        }
        return {'networks': about, 'settings': self.settings()}


def _meanings(specs: dict[str, Any]) -> dict[str, str]:
    """What each input or output is."""
    described = {}
    for name, spec in specs.items():
        shape = ', '.join(['N', *map(str, spec.shape[1:])])
        meaning = _MEANINGS.get(name, 'feature map')
        described[name] = meaning if name in network.INPUTS else f'{spec.dtype.name} [{shape}]: {meaning}'
    return described


def _write(chosen: Format, heads: Heads, path: str, batch: int | None, quantize: str, images: Images) -> None:
    os.makedirs(path)
    for name, traced in heads.networks(batch).items():
        chosen.write(traced, _file(chosen, path, name), batch, quantize, images)
    shutil.copyfile(postprocess.__file__, os.path.join(path, 'postprocess.py'))


def _describe(chosen: Format, path: str, description: Description) -> None:
    for name in postprocess.NETWORKS:
        chosen.describe(_file(chosen, path, name), description)
    files.write_text(os.path.join(path, MEMBER), description.text())


def _file(chosen: Format, path: str, name: str) -> str:
    return os.path.join(path, name + os.path.splitext(chosen.path)[1])


FORMATS = {
    name: chosen._replace(
        path=f'{name}_heads',
        write=functools.partial(_write, chosen),
        describe=functools.partial(_describe, chosen),
    )
    for name, chosen in formats.FORMATS.items()
}
