"""Heads of Mask R-CNN: settings, what they choose, and weights of torchvision's layouts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.heads.box import box
from seg.heads.instance_mask import mask
from seg.heads.roi_sampler import Rois, Truth
from seg.heads.rpn import rpn
from seg.known_classes import COCO_CLASSES
from seg.layers.norm import NormFactory
from seg.ops import boxes as boxes_lib
from seg.weights.warm_start import Init
from tests.weights import torch_files

NORM = NormFactory('frozen')
C = 6


def built(maker, num_classes=3, **settings):
    layer = maker(num_classes=num_classes, norm=NORM, **settings)
    layer.build((1, 8, 8, C))
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.5))
    return layer


@pytest.mark.parametrize(
    ('maker', 'settings', 'message'),
    [
        (rpn, {'channels': 0}, r'heads.rpn.channels = 0'),
        (rpn, {'train_proposals': 1.5}, r'heads.rpn.train_proposals = 1.5'),
        (rpn, {'nms_iou': 1.1}, r'heads.rpn.nms_iou = 1.1'),
        (rpn, {'negative_iou': 0.8}, r'heads.rpn.negative_iou = 0.8: .*positive_iou = 0.7'),
        (rpn, {'anchor_ratios': (1.0, -2.0)}, r'heads.rpn.anchor_ratios\[1\] = -2.0'),
        (rpn, {'anchor_ratios': 1.0}, r'heads.rpn.anchor_ratios = 1.0'),
        (rpn, {'min_size': -1}, r'heads.rpn.min_size = -1'),
        (box, {'fc': 1024}, r'heads.box.fc = 1024'),
        (box, {'fc': (0,)}, r'heads.box.fc\[0\] = 0'),
        (box, {'score_threshold': -0.1}, r'heads.box.score_threshold = -0.1'),
        (box, {'code_weights': (1.0, 1.0)}, r'heads.box.code_weights = \(1.0, 1.0\)'),
        (box, {'code_weights': (1.0, 1.0, 0, 1.0)}, r'heads.box.code_weights\[2\] = 0'),
        (box, {'sampled': 3}, r'heads.box.positive_fraction = 0.25: .*heads.box.sampled = 3'),
        (mask, {'roi_size': 0}, r'heads.mask.roi_size = 0'),
        (mask, {'convs': (8, True)}, r'heads.mask.convs\[1\] = True'),
    ],
)
def test_settings_out_of_range(maker, settings, message):
    with pytest.raises(UserError, match=message):
        maker(num_classes=3, norm=NORM, **settings)


def proposals(**settings):
    head = built(rpn, train_pre_nms=50, train_proposals=20, **settings)
    anchors = head.anchors((64, 64), (8, 16))
    rng = np.random.default_rng(1)
    logits = [tf.constant(rng.normal(size=(2, len(a))).astype('float32')) for a in anchors]
    deltas = [tf.constant(rng.normal(size=(2, len(a), 4), scale=0.3).astype('float32')) for a in anchors]
    size = tf.constant(np.int32([[64, 64], [30, 40]]))
    return head, anchors, logits, deltas, size, head.propose(anchors, logits, deltas, size, True)


def test_proposals_by_loops():
    """Best of each level, decoded, cut off at the image, suppressed within their level, best of all."""
    head, anchors, logits, deltas, size, found = proposals(anchor_scale=2.0, min_size=4.0)
    for b in range(2):
        candidates = []
        for level in range(2):
            boxes = boxes_lib.decode(deltas[level][b], tf.constant(anchors[level]))
            boxes = boxes_lib.clip(boxes[None], size[b : b + 1])[0].numpy()
            best = np.argsort(-logits[level][b].numpy(), kind='stable')[:50]
            overlaps, kept = boxes_lib.iou(boxes, boxes).numpy(), []
            for i in best:
                if (boxes[i, 2:] - boxes[i, :2]).min() < 4:
                    continue
                if not kept or overlaps[i, kept].max() <= 0.7:
                    kept.append(i)
            candidates += [(float(logits[level][b][i]), boxes[i]) for i in kept]
        candidates = [x for _, x in sorted(candidates, key=lambda pair: -pair[0])][:20]
        count = int(tf.reduce_sum(tf.cast(found.valid[b], tf.int32)))
        assert count == len(candidates) > 5
        np.testing.assert_allclose(found.boxes[b, :count], candidates, atol=1e-4)
        assert not found.boxes[b, count:].numpy().any()


def test_anchors_targets():
    head = built(rpn, sampled=16)
    anchors = head.anchors((64, 64), (8, 16))
    every = np.concatenate(anchors)
    boxes = tf.constant(np.float32([[[4, 4, 60, 60], [0, 0, 0, 0]]]))
    targets = head.targets(anchors, boxes, tf.constant([[True, False]]), tf.constant([[1, 2]]))
    labels = targets['labels'].numpy()[0]
    assert (labels >= 0).sum() == 16 and (labels == 1).sum() >= 1
    overlap = boxes_lib.iou(every, boxes[0].numpy()).numpy()[:, 0]
    assert targets['matched'][0] == (overlap >= 0.7).sum()
    for i in np.flatnonzero(labels == 1):
        back = boxes_lib.decode(targets['targets'][0, i], tf.constant(every[i]))
        np.testing.assert_allclose(back, boxes[0, 0], atol=1e-3)
        assert overlap[i] >= 0.7 or overlap[i] == overlap.max()
    assert (overlap[labels == 0] < 0.3).all()
    assert not targets['targets'].numpy()[0][(overlap < 0.3) & (overlap < overlap.max())].any()


def test_sampled_rois():
    head = built(box, sampled=12, positive_fraction=0.5)
    truth = Truth(
        tf.constant(np.float32([[[0, 0, 20, 20], [30, 30, 60, 60]], [[0, 0, 0, 0], [0, 0, 0, 0]]])),
        tf.constant([[2, 0], [-1, -1]]),
        tf.constant([[True, True], [False, False]]),
    )
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 40, (2, 30, 2))
    proposed = np.concatenate([corners, corners + 15], -1).astype('float32')
    valid = np.ones((2, 30), bool)
    valid[1, 5:] = False
    rois = head.sampler.sample(tf.constant(proposed), tf.constant(valid), truth, tf.constant([[1, 2], [3, 4]]))
    boxes, classes = rois.boxes.numpy(), rois.classes.numpy()
    for region, label in zip(boxes[0], classes[0], strict=True):
        overlap = boxes_lib.iou(region[None], truth.boxes[0]).numpy()[0]
        assert label == ([3, 1][overlap.argmax()] if overlap.max() >= 0.5 else 0)
    assert 2 <= (classes[0] > 0).sum() <= 6 and (classes[0] >= 0).all()
    # Of the image without instances: its five proposals, and no positives.
    assert sorted(classes[1]) == [-1] * 7 + [0] * 5 and not boxes[1][classes[1] < 0].any()
    np.testing.assert_allclose(np.sort(boxes[1][classes[1] == 0], 0), np.sort(proposed[1, :5], 0))
    targets = head.targets(rois, truth).numpy()
    assert np.isfinite(targets).all() and not targets[classes <= 0].any()
    for b, r in np.argwhere(classes > 0):
        back = boxes_lib.decode(tf.constant(targets[b, r]), tf.constant(boxes[b, r]), head.code_weights)
        np.testing.assert_allclose(back, truth.boxes[b, rois.index[b, r]], atol=1e-3)


@pytest.mark.parametrize('agnostic', [False, True])
def test_detections_by_loops(agnostic):
    head = built(box, class_agnostic=agnostic, score_threshold=0.1, max_detections=9, pre_nms=1000)
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 30, (2, 25, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (2, 25, 2))], -1).astype('float32')
    probabilities = rng.dirichlet((1, 1, 1, 1), (2, 25)).astype('float32')
    deltas = rng.normal(size=(2, 25, 1 if agnostic else 3, 4)).astype('float32')
    valid, size = rng.uniform(size=(2, 25)) < 0.8, tf.constant(np.int32([[64, 64], [40, 45]]))
    given = [tf.constant(x) for x in (boxes, valid, probabilities, deltas)]
    found = {name: x.numpy() for name, x in head.detector.detect(*given, head.code_weights, size).items()}
    for b in range(2):
        candidates = []
        for label in range(3):
            moved = boxes_lib.decode(deltas[b, :, 0 if agnostic else label], boxes[b], head.code_weights)
            moved = boxes_lib.clip(moved[None], size[b : b + 1])[0].numpy()
            scores, overlaps, kept = probabilities[b, :, label + 1], boxes_lib.iou(moved, moved).numpy(), []
            for i in np.argsort(-scores):
                if not valid[b, i] or scores[i] <= 0.1 or (moved[i, 2:] - moved[i, :2]).min() < 0.01:
                    continue
                if not kept or overlaps[i, kept].max() <= 0.5:
                    kept.append(i)
            candidates += [(scores[i], label, moved[i]) for i in kept]
        candidates = sorted(candidates, key=lambda x: -x[0])[:9]
        assert len(candidates) == (found['classes'][b] >= 0).sum()
        for i, (score, label, moved) in enumerate(candidates):
            assert found['classes'][b, i] == label
            np.testing.assert_allclose(found['scores'][b, i], score)
            np.testing.assert_allclose(found['boxes'][b, i], moved, atol=1e-4)


@pytest.mark.parametrize('agnostic', [False, True])
def test_mask_head_is_a_deconvolution_and_a_convolution(agnostic):
    head = built(mask, convs=(5,), deconv=4, roi_size=3, class_agnostic=agnostic)
    rng = np.random.default_rng(0)
    crops = rng.normal(size=(2, 7, 3, 3, C)).astype('float32')
    classes = rng.integers(0, 3, (2, 7))
    logits = head(tf.constant(crops), tf.constant(classes.astype('int32')))
    x = head.convs(crops.reshape(14, 3, 3, C))
    kernel = head.deconv.kernel.numpy().reshape(5, 2, 2, 4).transpose(1, 2, 3, 0)
    x = tf.nn.conv2d_transpose(x, kernel, (14, 6, 6, 4), 2, 'VALID') + head.deconv.bias.value
    x = tf.nn.relu(x) @ tf.transpose(head.classify.kernel.value) + head.classify.bias.value
    x = tf.reshape(x, (2, 7, 6, 6, -1)).numpy()
    for b, r in np.ndindex(2, 7):
        expected = x[b, r, ..., 0 if agnostic else classes[b, r]]
        np.testing.assert_allclose(logits[b, r], expected, atol=1e-5)


def test_convolutions_before_the_box():
    head = built(box, convs=(8, 8), fc=(12,), use_norm=True, roi_size=4)
    logits, deltas = head(tf.zeros((2, 5, 4, 4, C)))
    assert logits.shape == (2, 5, 4) and deltas.shape == (2, 5, 3, 4)
    paths = [variable.path for variable in head.variables]
    assert 'box_head/convs/conv2/norm/gamma' in paths and 'box_head/fc1/kernel' in paths


def rpn_state(channels, convs=1, old=False):
    rng = np.random.default_rng(0)
    names = ['rpn.head.conv'] if old else [f'rpn.head.conv.{i}.0' for i in range(convs)]
    shapes = {f'{name}.weight': (channels, channels, 3, 3) for name in names}
    shapes |= {f'{name}.bias': (channels,) for name in names}
    shapes |= {'rpn.head.cls_logits.weight': (3, channels, 1, 1), 'rpn.head.cls_logits.bias': (3,)}
    shapes |= {'rpn.head.bbox_pred.weight': (12, channels, 1, 1), 'rpn.head.bbox_pred.bias': (12,)}
    return {name: rng.normal(size=shape).astype('float32') for name, shape in shapes.items()}


def assign(layer, state):
    arrays = layer.published.convert(state)
    assert {v.path: v.shape for v in layer.variables} == {name: value.shape for name, value in arrays.items()}
    for variable in layer.variables:
        variable.assign(arrays[variable.path])


@pytest.mark.parametrize('old', [False, True])
def test_anchors_in_another_order_than_torchvisions(old):
    """The same number for the same anchor."""
    state = rpn_state(C, old=old)
    x = tf.constant(np.random.default_rng(3).normal(size=(1, 4, 4, C)).astype('float32'))
    results = []
    for ratios in ((0.5, 1.0, 2.0), (1.0, 2.0, 0.5)):
        head = rpn(num_classes=3, norm=NORM, channels=C, anchor_ratios=ratios)
        head.build((1, 4, 4, C))
        assign(head, state)
        (logits,), (deltas,) = head([x])
        (anchors,) = head.anchors((16, 16), (4,))
        order = np.lexsort(anchors.T)
        results.append((anchors[order], logits.numpy()[0][order], deltas.numpy()[0][order]))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_several_convolutions_of_an_rpn():
    head = rpn(num_classes=3, norm=NORM, channels=C, num_convs=2)
    head.build((1, 4, 4, C))
    assign(head, rpn_state(C, convs=2))


def box_state(classes, bins, fc=8):
    rng = np.random.default_rng(0)
    shapes = {
        'roi_heads.box_head.fc6.weight': (fc, C * bins**2),
        'roi_heads.box_head.fc6.bias': (fc,),
        'roi_heads.box_head.fc7.weight': (fc, fc),
        'roi_heads.box_head.fc7.bias': (fc,),
        'roi_heads.box_predictor.cls_score.weight': (classes, fc),
        'roi_heads.box_predictor.cls_score.bias': (classes,),
        'roi_heads.box_predictor.bbox_pred.weight': (4 * classes, fc),
        'roi_heads.box_predictor.bbox_pred.bias': (4 * classes,),
    }
    return {name: rng.normal(size=shape).astype('float32') for name, shape in shapes.items()}


@pytest.mark.parametrize(('theirs', 'ours'), [(4, 3), (91, 90), (91, 80)])
def test_classes_of_the_box_head(theirs, ours):
    """COCO's classes 1, 2, …, 90 with gaps, where ours are its 80 classes."""
    state = box_state(theirs, 2)
    head = box(num_classes=ours, norm=NORM, fc=(8, 8), roi_size=2)
    head.build((1, 4, 4, C))
    assign(head, state)
    crops = np.random.default_rng(3).normal(size=(1, 5, 2, 2, C)).astype('float32')
    logits, deltas = head(tf.constant(crops))
    x = crops[0].transpose(0, 3, 1, 2).reshape(5, -1)
    for name in ('box_head.fc6', 'box_head.fc7'):
        x = np.maximum(x @ state[f'roi_heads.{name}.weight'].T + state[f'roi_heads.{name}.bias'], 0)
    scores, codes = (
        x @ state[f'roi_heads.box_predictor.{name}.weight'].T + state[f'roi_heads.box_predictor.{name}.bias']
        for name in ('cls_score', 'bbox_pred')
    )
    ids = list(COCO_CLASSES) if ours == 80 else list(range(1, theirs))
    np.testing.assert_allclose(logits[0], scores[:, [0, *ids]], atol=1e-4)
    codes = codes.reshape(5, theirs, 4)[:, ids][..., [1, 0, 3, 2]]
    np.testing.assert_allclose(deltas[0], codes, atol=1e-4)


def test_rows_of_coco_classes(tmp_path):
    """A file for COCO and a data set of two classes, one of which is COCO's: its rows and the background's are kept."""
    state = box_state(91, 2) | {'backbone.body.x': np.zeros(1, 'float32')}
    heads = {'box_head': box(num_classes=2, norm=NORM, fc=(8, 8), roi_size=2)}
    heads['box_head'].build((1, 4, 4, C))
    before = [v.numpy() for v in heads['box_head'].classify.variables]
    torch_files.write_zip(str(tmp_path / 'coco.pth'), state)
    report = Init(weights=str(tmp_path / 'coco.pth'), min_fraction=0.5).apply(heads, ['helmet', 'car'])
    assert 'rows of 1 of 2 (car)' in report
    kernel, bias = (v.numpy() for v in heads['box_head'].classify.variables)
    theirs = {name: state[f'roi_heads.box_predictor.cls_score.{name}'] for name in ('weight', 'bias')}
    np.testing.assert_array_equal(kernel[:, [0, 2]], theirs['weight'][[0, 3]].T)  # 3 is a car.
    np.testing.assert_array_equal(kernel[:, 1], before[0][:, 1])
    np.testing.assert_array_equal(bias, [theirs['bias'][0], before[1][1], theirs['bias'][3]])
    codes = state['roi_heads.box_predictor.bbox_pred.bias'].reshape(91, 4)[3][[1, 0, 3, 2]]
    np.testing.assert_array_equal(heads['box_head'].shift.bias.numpy()[4:], codes)


def test_coco_ids():
    ids = list(COCO_CLASSES)
    assert len(ids) == 80 and ids[0] == 1 and ids[-1] == 90 and 12 not in ids and 83 not in ids


@pytest.mark.parametrize('old', [False, True])
def test_names_of_the_mask_head(old):
    rng = np.random.default_rng(0)
    names = ['mask_fcn1', 'mask_fcn2'] if old else ['0.0', '1.0']
    shapes = {f'roi_heads.mask_head.{name}.weight': (C, C, 3, 3) for name in names}
    shapes |= {f'roi_heads.mask_head.{name}.bias': (C,) for name in names}
    shapes |= {'roi_heads.mask_predictor.conv5_mask.weight': (C, 5, 2, 2)}
    shapes |= {'roi_heads.mask_predictor.conv5_mask.bias': (5,)}
    shapes |= {'roi_heads.mask_predictor.mask_fcn_logits.weight': (91, 5, 1, 1)}
    shapes |= {'roi_heads.mask_predictor.mask_fcn_logits.bias': (91,)}
    state = {name: rng.normal(size=shape).astype('float32') for name, shape in shapes.items()}
    head = mask(num_classes=80, norm=NORM, convs=(C, C), deconv=5)
    head.build((1, 4, 4, C))
    assign(head, state)
    np.testing.assert_array_equal(
        head.classify.kernel[11], state['roi_heads.mask_predictor.mask_fcn_logits.weight'][13, :, 0, 0]
    )


@pytest.mark.parametrize('maker', [rpn, box, mask])
def test_file_of_something_else(maker):
    """Nothing to take, and no complaint: the backbone's own is the one to make."""
    assert maker(num_classes=3, norm=NORM).published.convert({'conv1.weight': np.zeros((8, 3, 7, 7))}) == {}


def test_outputs_start_small():
    """Near-uniform scores, boxes as proposed, masks of one half."""
    keras.utils.set_random_seed(0)
    x = tf.random.stateless_normal((1, 20, 7, 7, C), (0, 1))
    head = box(num_classes=3, norm=NORM, fc=(32, 32))
    head.build((1, 8, 8, C))
    logits, deltas = head(x)
    assert np.abs(logits).max() < 0.5 and np.abs(deltas).max() < 0.1
    head = mask(num_classes=3, norm=NORM, convs=(8,), deconv=8)
    head.build((1, 8, 8, C))
    assert np.abs(head(tf.repeat(tf.repeat(x, 2, 2), 2, 3), tf.zeros((1, 20), tf.int32))).max() < 0.1


def test_relabel_keeps_empty_places():
    head = built(box)
    truth = Truth(tf.constant([[[0.0, 0, 10, 10]]]), tf.constant([[1]]), tf.constant([[True]]))
    rois = Rois(tf.zeros((1, 3, 4)), tf.constant([[2, 0, -1]]), tf.zeros((1, 3), tf.int32))
    moved = tf.constant([[[0.0, 0, 4, 10], [0, 0, 9, 10], [0, 0, 10, 10]]])
    np.testing.assert_array_equal(head.sampler.relabel(moved, rois, truth).classes, [[0, 2, -1]])
