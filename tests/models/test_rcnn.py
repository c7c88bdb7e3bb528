"""Mask R-CNN and Cascade R-CNN as wholes: shapes, images without instances, precisions, compilers, backends."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.decoders.deeplab_v3plus import deeplab_v3plus
from seg.errors import UserError
from seg.heads.box import box
from seg.heads.semantic import semantic
from seg.models.mask_rcnn import _truth
from seg.registry import heads, temporary
from tests.models import small_rcnn

K, SIZE = small_rcnn.CLASSES, (64, 96)
ANCHORS = 3 * sum(-(-SIZE[0] // s) * -(-SIZE[1] // s) for s in (4, 8, 16, 32, 64))
KINDS = {'mask_rcnn': {}, 'cascade_rcnn': {'cascade': True}, 'agnostic': {'agnostic': True}}


def tensors(batch):
    return {name: tf.constant(value) for name, value in batch.items()}


def losses_of(model, batch):
    outputs = model(batch, training=True)
    return {name: loss(outputs, {}, 0) for name, loss in small_rcnn.losses().items()}


def step(model):
    """A function from a batch to the losses, as the executor divides them, and the gradients of their sum."""
    variables = [variable.value for variable in model.trainable_variables]

    def run(batch):
        with tf.GradientTape() as tape:
            terms = losses_of(model, batch)
            losses = {
                name: tf.math.divide_no_nan(tf.reduce_sum(term.total), tf.reduce_sum(tf.stop_gradient(term.weight)))
                for name, term in terms.items()
            }
            total = sum(losses.values())
        return losses, tape.gradient(total, variables)

    return run


@pytest.fixture(scope='module', params=KINDS)
def kind(request):
    model = small_rcnn.make(**KINDS[request.param])
    small_rcnn.randomize(model)
    return request.param, model


@pytest.fixture(scope='module')
def model():
    model = small_rcnn.make(frozen_stages=2)
    small_rcnn.randomize(model)
    return model


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def test_training_outputs(kind):
    name, model = kind
    outputs = model(small_rcnn.batch(2, SIZE), training=True)
    channels = K if name == 'mask_rcnn' else 1
    assert {key: (tuple(x.shape), x.dtype.name) for key, x in outputs['rpn'].items()} == {
        'logits': ((2, ANCHORS), 'float32'),
        'deltas': ((2, ANCHORS, 4), 'float32'),
        'labels': ((2, ANCHORS), 'int32'),
        'targets': ((2, ANCHORS, 4), 'float32'),
        'matched': ((2,), 'int32'),
    }
    assert len(outputs['boxes']) == (3 if name == 'cascade_rcnn' else 1)
    for stage in outputs['boxes']:
        assert {key: (tuple(x.shape), x.dtype.name) for key, x in stage.items()} == {
            'class_logits': ((2, 24, K + 1), 'float32'),
            'deltas': ((2, 24, channels, 4), 'float32'),
            'classes': ((2, 24), 'int32'),
            'targets': ((2, 24, 4), 'float32'),
            'weight': ((), 'float32'),
        }
        np.testing.assert_array_equal(stage['classes'] < 0, outputs['boxes'][0]['classes'] < 0)
    assert {key: (tuple(x.shape), x.dtype.name) for key, x in outputs['masks'].items()} == {
        'logits': ((2, 6, 12, 12, 1), 'float32'),
        'targets': ((2, 6, 12, 12), 'float32'),
        'classes': ((2, 6), 'int32'),
    }
    assert all(np.isfinite(x).all() for x in tf.nest.flatten(outputs))
    # True boxes are candidates themselves, so that there are positives in any case, and these come first.
    first = outputs['boxes'][0]['classes'].numpy()
    assert (first > 0).sum(1).min() > 0
    np.testing.assert_array_equal(np.sort(first > 0, 1)[:, ::-1], first > 0)
    labels = outputs['rpn']['labels'].numpy()
    assert (labels == 1).sum(1).min() > 0 and ((labels >= 0).sum(1) == 32).all()


def test_detections(kind):
    _, model = kind
    batch = small_rcnn.batch(2, SIZE)
    batch['size'] = np.int32([SIZE, (40, 50)])
    for key in ('seed', 'boxes', 'classes', 'masks'):
        del batch[key]
    found = {name: x.numpy() for name, x in model(batch, training=False).items()}
    assert {name: (x.shape, x.dtype.name) for name, x in found.items()} == {
        'boxes': ((2, 12, 4), 'float32'),
        'scores': ((2, 12), 'float32'),
        'classes': ((2, 12), 'int32'),
        'masks': ((2, 12, 12, 12), 'float32'),
    }
    there = found['classes'] >= 0
    assert there.any() and (found['scores'][there] > 0.3).all() and found['classes'].max() < K
    assert (np.diff(found['scores'], axis=1) <= 0).all() and (found['scores'][~there] == 0).all()
    assert (found['boxes'] >= 0).all() and (found['boxes'][1] <= [40, 50, 40, 50]).all()
    assert (found['masks'] >= 0).all() and (found['masks'] <= 1).all() and (found['masks'][~there] == 0).all()


def test_parts(kind):
    name, model = kind
    more = ['box_head_2', 'box_head_3'] if name == 'cascade_rcnn' else []
    assert list(model.parts) == ['backbone', 'decoder', 'rpn', 'box_head', *more, 'mask_head']
    owned = [id(v) for part in model.parts.values() for v in part.variables]
    assert sorted(owned) == sorted(id(v) for v in model.variables)
    again = small_rcnn.make(**KINDS[name])
    for part, layer in model.parts.items():
        paths = [variable.path for variable in layer.variables]
        assert paths == [variable.path for variable in again.parts[part].variables]
        assert paths and len(set(paths)) == len(paths)
    assert model.output_stride == 32


def test_result_does_not_depend_on_the_batch(model):
    batch = small_rcnn.batch(3, SIZE)
    batch['size'] = np.int32([SIZE, (64, 60), (30, 96)])
    whole = model(batch, training=False)
    for i in range(3):
        alone = model({name: value[i : i + 1] for name, value in batch.items()}, training=False)
        np.testing.assert_array_equal(alone['classes'][0], whole['classes'][i])
        for name in ('boxes', 'scores', 'masks'):
            np.testing.assert_allclose(alone[name][0], whole[name][i], atol=2e-3)


def test_choices_depend_on_the_seed_alone(model):
    batch = small_rcnn.batch(2, SIZE)
    batch = {name: np.repeat(value[:1], 2, 0) for name, value in batch.items()}
    batch['seed'] = np.int32([[1, 2], [1, 3]])
    one, again = (model(batch, training=True)['rpn']['labels'].numpy() for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one[0] != one[1]).any()


def test_images_without_instances(kind):
    """Negatives only, and no boxes or masks."""
    _, model = kind
    batch = small_rcnn.batch(2, SIZE)
    batch['boxes'][0], batch['classes'][0] = 0, -1
    outputs = model(batch, training=True)
    assert not (outputs['rpn']['labels'][0] == 1).numpy().any() and outputs['rpn']['matched'][0] == 0
    assert all((stage['classes'][0] <= 0).numpy().all() for stage in outputs['boxes'])
    terms = {name: loss(outputs, {}, 0) for name, loss in small_rcnn.losses().items()}
    assert terms['mask'].weight[0] == 0 and terms['mask'].total[0] == 0
    assert terms['box_regression'].total[0] == 0 and terms['box_class'].weight[0] > 0
    assert all(np.isfinite(term.total).all() for term in terms.values())


def test_batch_without_instances(model):
    """Losses without instances are 0, and every gradient is finite."""
    batch = small_rcnn.batch(2, SIZE)
    batch['boxes'][:], batch['classes'][:] = 0, -1
    losses, gradients = step(model)(tensors(batch))
    assert losses['mask'] == losses['box_regression'] == losses['rpn_box'] == 0 < losses['rpn_score']
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients if g is not None)


def test_an_instance_without_area_is_padding(model):
    batch = small_rcnn.batch(2, SIZE)
    batch['boxes'][:, 0, 2] = batch['boxes'][:, 0, 0]
    without = {**batch, 'classes': batch['classes'].copy()}
    without['classes'][:, 0] = -1
    one, other = (model(each, training=True) for each in (batch, without))
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


def test_boxes_outside_the_image(model):
    """An image of one pixel in a canvas of padding; instances that lie outside of it."""
    batch = small_rcnn.batch(2, SIZE)
    batch['size'] = np.int32([[1, 1], [2, 96]])
    found = model(batch, training=False)
    assert all(np.isfinite(x).all() for x in found.values())
    assert all(np.isfinite(term.total).all() for term in losses_of(model, batch).values())


def test_compiled_detection_equals_plain(model):
    batch = tensors(small_rcnn.batch(2, SIZE))
    plain = model(batch, training=False)
    compiled = tf.function(lambda batch: model(batch, training=False), jit_compile=True)(batch)
    np.testing.assert_array_equal(compiled['classes'], plain['classes'])
    for name in ('boxes', 'scores', 'masks'):
        np.testing.assert_allclose(compiled[name], plain[name], atol=2e-3)


def test_frozen_stages(model):
    """c2 and all layers before it have no gradient and are not trained; all others are."""
    frozen = {v.path for v in model.backbone.variables if v.path.startswith(('stem', 'stage2'))}
    trained = {v.path for v in model.backbone.trainable_variables}
    moving = {v.path for v in model.backbone.variables if 'moving' in v.path}
    assert trained == {v.path for v in model.backbone.variables} - frozen - moving and frozen
    _, gradients = step(model)(tensors(small_rcnn.batch(2, SIZE)))
    missing = [v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None]
    assert not missing
    with pytest.raises(UserError, match=r'models.mask_rcnn.frozen_stages = 7: .*resnet18'):
        small_rcnn.make(frozen_stages=7)


@pytest.mark.parametrize(('precision', 'dtype'), [('mixed_bfloat16', 'float32'), ('float64', 'float64')])
def test_precisions(precision, dtype, policy):
    policy(precision)
    model = small_rcnn.make()
    small_rcnn.randomize(model)
    batch = tensors(small_rcnn.batch(2, SIZE, dtype=dtype))
    outputs, found = model(batch, training=True), model(batch, training=False)
    # Targets of masks are 0 and 1 in any case.
    del outputs['masks']['targets']
    flat = tf.nest.flatten([outputs, found])
    assert {x.dtype.name for x in flat if x.dtype.is_floating} == {dtype}
    assert all(np.isfinite(x).all() for x in flat)
    assert model.mask_head.convs.compute_dtype == precision.removeprefix('mixed_')
    terms = losses_of(model, batch)
    assert {x.dtype.name for term in terms.values() for x in (term.total, term.weight)} == {dtype}


@pytest.mark.bfloat16
def test_boxes_are_not_rounded(policy):
    """In bfloat16, 301 pixels would be 302: boxes at the border of the image show it."""
    policy('mixed_bfloat16')
    model = small_rcnn.make()
    small_rcnn.randomize(model)
    batch = small_rcnn.batch(1, (320, 64))
    batch['size'] = np.int32([[301, 64]])
    _, deltas = model.rpn(list(model.decoder(model.backbone(batch['image']), batch['size']).values()))
    anchors = model.rpn.anchors((320, 64), list(model.strides.values()))
    logits = [tf.constant(anchor[None, :, 2]) for anchor in anchors]  # The lowest are the best.
    proposals = model.rpn.propose(anchors, logits, deltas, tf.constant(batch['size']), True)
    assert proposals.boxes.dtype == 'float32' and np.max(proposals.boxes) == 301


def test_equals_jax(tmp_path):
    model = small_rcnn.make()
    small_rcnn.randomize(model)
    batch = small_rcnn.batch(2, SIZE)
    batch['size'] = np.int32([SIZE, (50, 90)])
    weights = {f'{v.path}': v.numpy() for v in model.variables}
    np.savez(tmp_path / 'in.npz', **{f'batch:{k}': v for k, v in batch.items()}, **weights)
    command = [sys.executable, '-m', 'tests.models.small_rcnn', tmp_path / 'in.npz', tmp_path / 'out.npz']
    subprocess.run(command, check=True, env={**os.environ, 'KERAS_BACKEND': 'jax'})
    theirs = np.load(tmp_path / 'out.npz')
    for name, value in model(batch, training=False).items():
        np.testing.assert_allclose(theirs[name], value, atol=2e-3, err_msg=name)
    for name, term in losses_of(model, batch).items():
        np.testing.assert_allclose(theirs[f'loss:{name}'], [term.total, term.weight], rtol=1e-4, err_msg=name)


def test_cascade_gets_stricter():
    """Every head compares the same regions by its own overlap; boxes that did not move lose positives only."""
    model = small_rcnn.make(cascade=True)
    assert [head.sampler.positive_iou for head in model.box_heads] == [0.5, 0.6, 0.7]
    assert [head.code_weights[0] for head in model.box_heads] == [10, 20, 30]
    for head in model.box_heads:
        head.shift.kernel.assign(tf.zeros_like(head.shift.kernel.value))
    outputs = model(small_rcnn.batch(2, SIZE), training=True)
    positive = [stage['classes'].numpy() > 0 for stage in outputs['boxes']]
    assert all((~one & other).sum() == 0 for one, other in zip(positive, positive[1:], strict=False))


def test_cascade_stage_weights():
    """The paper's 1, 1/2, 1/4 by default, on the losses and so on the gradient at the features that the heads share."""
    model = small_rcnn.make(cascade=True)
    small_rcnn.randomize(model)
    assert model.stage_weights == (1.0, 0.5, 0.25)
    batch = small_rcnn.batch(2, SIZE)
    outputs = model(batch, training=True)
    assert [float(stage['weight']) for stage in outputs['boxes']] == [1.0, 0.5, 0.25]
    maps = list(model.decoder(model.backbone(batch['image'], training=True), size=batch['size']).values())[:4]
    truth = _truth(batch, 'float32')
    rois = model.box_heads[0].sampler.sample(tf.constant(batch['boxes']), truth.valid, truth, batch['seed'])

    def slopes(weights):
        model.stage_weights = weights
        with tf.GradientTape() as tape:
            tape.watch(maps)
            stages = model._train_boxes(maps, rois, truth, batch['size'])
            terms = [small_rcnn.losses()[name]({'boxes': stages}, {}, 0) for name in ('box_class', 'box_regression')]
            total = sum(tf.reduce_sum(term.total) for term in terms)
        return [np.asarray(g) for g in tape.gradient(total, maps)]

    first, second, third = (slopes(weights) for weights in np.eye(3).tolist())
    for together, a, b, c in zip(slopes((1.0, 0.5, 0.25)), first, second, third, strict=True):
        np.testing.assert_allclose(together, a + b / 2 + c / 4, rtol=1e-4, atol=1e-5 * np.abs(together).max())
    assert all(np.abs(g).max() > 0 for g in (first[0], second[0], third[0]))


def test_cascade_masks_train_on_the_first_rois():
    model = small_rcnn.make(cascade=True)
    small_rcnn.randomize(model)
    outputs = model(small_rcnn.batch(2, SIZE), training=True)
    first, last = (outputs['boxes'][i]['classes'].numpy() for i in (0, -1))
    masks = outputs['masks']['classes'].numpy()
    for i in range(2):
        np.testing.assert_array_equal(masks[i][masks[i] > 0], first[i][first[i] > 0])
        assert (first[i] > 0).sum() > (last[i] > 0).sum()


def test_cascade_refuses():
    for weights in ((1, 0.5), (1, 0.5, -1), (1, 0.5, float('nan')), '1', None, 1):
        with pytest.raises(UserError, match=r'models.cascade_rcnn.stage_weights') as info:
            small_rcnn.make(cascade=True, stage_weights=weights)
        assert str(weights[2] if type(weights) is tuple and len(weights) == 3 else weights) in str(info.value)
    with pytest.raises(UserError, match=r'models.cascade_rcnn.box_heads = \[\]'):
        small_rcnn.make(cascade=True, box_heads=[])
    with pytest.raises(UserError, match=r'models.cascade_rcnn.box_heads: .*@heads.box without'):
        small_rcnn.make(cascade=True, box_heads=box)
    with pytest.raises(UserError, match=r'models.cascade_rcnn.box_heads\[0\]: .*heads.box.class_agnostic = True'):
        small_rcnn.make(cascade=True, box_heads=[box])
    with temporary():

        @heads.register('few')
        def few(*, num_classes, norm):
            """Other regions than the first head's."""
            return box(num_classes=num_classes, norm=norm, class_agnostic=True, sampled=100)

        @heads.register('many')
        def many(*, num_classes, norm):
            """Those of the recipe."""
            return box(num_classes=num_classes, norm=norm, class_agnostic=True)

        with pytest.raises(UserError, match=r'models.cascade_rcnn.box_heads\[1\]: sampled = 100, but 512 '):
            small_rcnn.make(cascade=True, box_heads=[many, few])


def test_refuses_parts_of_another_kind():
    with pytest.raises(UserError, match='models.mask_rcnn.rpn: @heads.semantic .*SemanticHead; .*RPN'):
        small_rcnn.make(rpn=semantic)
    with pytest.raises(UserError, match='models.mask_rcnn.decoder: .*features.*; .*p2, p3, p4, p5'):
        small_rcnn.make(decoder=deeplab_v3plus)
