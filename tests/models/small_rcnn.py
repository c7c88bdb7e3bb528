"""A small Mask R-CNN for tests; as a program, runs it on the backend of the environment.

KERAS_BACKEND=jax python -m tests.models.small_rcnn in.npz out.npz
"""

import sys

import numpy as np

from seg.backbones.resnet import resnet18
from seg.decoders import fpn as fpn_lib
from seg.heads import box as box_lib
from seg.heads import instance_mask as mask_lib
from seg.heads import rpn as rpn_lib
from seg.losses import rois, rpn
from seg.models.cascade_rcnn import cascade_rcnn
from seg.models.mask_rcnn import mask_rcnn
from seg.registry import backbones, decoders, heads, temporary

CLASSES = 3
FEW = {'train_pre_nms': 60, 'eval_pre_nms': 50, 'train_proposals': 40, 'eval_proposals': 30}


def make(cascade=False, agnostic=False, **settings):
    """Builds it through the registries, from parts whose settings are bound as gin would bind them."""
    with temporary():

        @backbones.register('narrow')
        def narrow(*, output_stride, norm):
            """ResNet-18 of a quarter of the width."""
            return resnet18(output_stride=output_stride, norm=norm, width=0.25)

        @decoders.register('narrow')
        def narrow_decoder(*, backbone, norm):
            """The pyramid with few channels."""
            return fpn_lib.fpn(backbone=backbone, norm=norm, channels=8)

        @heads.register('narrow_rpn')
        def narrow_rpn(*, num_classes, norm):
            """Few proposals."""
            return rpn_lib.rpn(num_classes=num_classes, norm=norm, channels=8, sampled=32, anchor_scale=4.0, **FEW)

        def narrow_box(name, iou, scale):
            def build(*, num_classes, norm):
                """Few regions and units."""
                return box_lib.box(
                    num_classes=num_classes,
                    norm=norm,
                    class_agnostic=cascade or agnostic,
                    positive_iou=iou,
                    code_weights=(10.0 * scale, 10.0 * scale, 5.0 * scale, 5.0 * scale),
                    sampled=24,
                    fc=(16, 16),
                    max_detections=12,
                    score_threshold=0.3,
                )

            return heads.register(name)(build)

        @heads.register('narrow_mask')
        def narrow_mask(*, num_classes, norm):
            """Few channels."""
            return mask_lib.mask(
                num_classes=num_classes, norm=norm, convs=(8,), deconv=8, roi_size=6, class_agnostic=agnostic
            )

        parts = {
            'backbone': narrow,
            'decoder': narrow_decoder,
            'rpn': narrow_rpn,
            'mask_head': narrow_mask,
        }
        if not cascade:
            parts['box_head'] = narrow_box('narrow_box', 0.5, 1)
            return mask_rcnn(num_classes=CLASSES, **{**parts, **settings})
        stages = [('first', 0.5, 1), ('second', 0.6, 2), ('third', 0.7, 3)]
        parts['box_heads'] = [narrow_box(*stage) for stage in stages]
        return cascade_rcnn(num_classes=CLASSES, **{**parts, **settings})


def randomize(model, seed=0):
    """Sets every variable to noise that keeps activations of order one."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        kind = variable.path.rpartition('/')[2]
        if kind == 'kernel':
            fan_in = variable.shape[-1] if 'mask_logits' in variable.path else np.prod(variable.shape[:-1])
            variable.assign(rng.normal(size=variable.shape, scale=fan_in**-0.5))
        elif kind == 'gamma':  # Small at the end of a residual branch, so that the sums do not grow.
            scale = 0.3 if 'conv2' in variable.path else 1.0
            variable.assign(scale * rng.uniform(0.7, 1.3, size=variable.shape))
        elif kind == 'moving_variance':
            variable.assign(rng.uniform(0.7, 1.3, size=variable.shape))
        else:
            variable.assign(rng.normal(size=variable.shape, scale=0.1))


def batch(count, size, instances=4, dtype='float32', seed=1):
    """Images with random instances; every second image has one instance fewer than there is place for."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6, (count, instances, 2)) * np.array(size)
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (count, instances, 2)) * np.array(size)], -1)
    classes = rng.integers(0, CLASSES, (count, instances))
    classes[::2, -1], boxes[::2, -1] = -1, 0
    return {
        'image': rng.uniform(0, 255, (count, *size, 3)).astype(dtype),
        'size': np.tile(np.int32(size), (count, 1)),
        'seed': rng.integers(0, 2**31 - 1, (count, 2)).astype('int32'),
        'boxes': boxes.astype('float32'),
        'classes': classes.astype('int32'),
        # Not of 0 and 255 alone: halfway between them, rounding would decide.
        'masks': rng.integers(0, 256, (count, instances, 8, 8)).astype('uint8'),
    }


def losses():
    """All loss functions by name."""
    makers = (rpn.rpn_score, rpn.rpn_box, rois.box_class, rois.box_regression, rois.mask)
    return {maker.__name__: maker(num_classes=CLASSES) if maker is rois.box_class else maker() for maker in makers}


if __name__ == '__main__':
    import jax

    given = np.load(sys.argv[1])
    model = make()
    for variable in model.variables:
        variable.assign(given[variable.path])
    inputs = {name.partition(':')[2]: given[name] for name in given.files if name.startswith('batch:')}
    state = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]

    @jax.jit  # Both at once: what they have in common is compiled once.
    def run(batch):
        return [model.stateless_call(*state, batch, training=training)[0] for training in (False, True)]

    found, learned = run(inputs)
    results = {name: np.asarray(value) for name, value in found.items()}
    for name, loss in losses().items():
        term = loss(learned, {}, 0)
        results[f'loss:{name}'] = np.stack([term.total, term.weight])
    np.savez(sys.argv[2], **results)
