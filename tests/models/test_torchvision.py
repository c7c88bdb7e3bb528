"""Mask R-CNN against torchvision's, stage by stage: a small network by stored results, the real one by running it.

The real one (`-m slow`; torch 2.14.1, torchvision 0.29.2, two images) gave, relative to the largest value of each:
pyramid 3e-6, RPN 2e-6, features of boxes 4e-6, box head 8e-7, mask head 2e-6, targets 7e-8, losses 3e-7; proposals were
within 6e-5 pixels. From the images on, its 200 detections are the same ones: IoU above 0.99998, scores within 6e-6,
and all but one in a million of the masks' pixels.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from seg.backbones.resnet import resnet18, resnet50
from seg.decoders.fpn import fpn
from seg.heads.box import box
from seg.heads.instance_mask import mask
from seg.heads.roi_sampler import Rois, Truth
from seg.heads.rpn import rpn
from seg.losses import rois as roi_losses
from seg.losses import rpn as rpn_losses
from seg.masks.paste import paste
from seg.models.mask_rcnn import mask_rcnn
from seg.ops import boxes as boxes_lib
from seg.ops import matching
from seg.registry import backbones, decoders, heads, temporary
from seg.structures import PAD_PIXEL
from seg.weights.warm_start import Init
from tests.models import torchvision_reference as reference
from tests.weights.torch_files import write_zip

SMALL = reference.SMALL


def build(kind):
    """Our model of the same architecture, whose anchors are torchvision's."""
    case = reference.CASES[kind]
    small = kind == 'small'
    with temporary():

        @backbones.register('parity_backbone')
        def parity_backbone(*, output_stride, norm):
            """The backbone."""
            return (resnet18 if small else resnet50)(output_stride=output_stride, norm=norm)

        @decoders.register('parity_fpn')
        def parity_fpn(*, backbone, norm):
            """The pyramid."""
            return fpn(backbone=backbone, norm=norm, channels=SMALL['channels'] if small else 256)

        @heads.register('parity_rpn')
        def parity_rpn(*, num_classes, norm):
            """The RPN."""
            return rpn(
                num_classes=num_classes,
                norm=norm,
                channels=SMALL['channels'] if small else 256,
                anchor_ratios=(0.5, 1.0, 2.0),
                round_anchors=True,
                min_size=1e-3,
                eval_pre_nms=case.proposals,
                eval_proposals=case.proposals,
            )

        @heads.register('parity_box')
        def parity_box(*, num_classes, norm):
            """The box head; the suppression gets all that is over the threshold."""
            settings = {'fc': (SMALL['fc'],) * 2, 'roi_size': SMALL['box_bins']} if small else {}
            settings |= {'max_detections': case.detections, 'pre_nms': 20000}
            return box(num_classes=num_classes, norm=norm, **settings)

        @heads.register('parity_mask')
        def parity_mask(*, num_classes, norm):
            """The mask head."""
            width = SMALL['mask']
            settings = {'convs': (width,) * 2, 'deconv': width, 'roi_size': SMALL['mask_bins']} if small else {}
            return mask(num_classes=num_classes, norm=norm, **settings)

        return mask_rcnn(
            num_classes=case.classes,
            backbone=parity_backbone,
            decoder=parity_fpn,
            rpn=parity_rpn,
            box_head=parity_box,
            mask_head=parity_mask,
            frozen_stages=2,
        )


class Side:
    """Both sides of one case: their results, and our model with their weights."""

    def __init__(self, kind, folder):
        self.case = reference.CASES[kind]
        path, results = str(folder / 'maskrcnn.pth'), reference.STORED
        if kind == 'full':
            if importlib.util.find_spec('torchvision') is None:
                pytest.skip('torchvision is not installed')
            results = str(folder / 'results.npz')
            # By itself, since torch and TensorFlow in one process can end it.
            command = [sys.executable, '-m', 'tests.models.torchvision_reference', kind, results, path]
            subprocess.run(command, check=True)
        self.theirs = dict(np.load(results))
        shapes = [tuple(int(n) for n in text.split(',') if n) for text in self.theirs['shapes']]
        scales = dict(zip(map(str, self.theirs['scaled']), map(float, self.theirs['scales']), strict=True))
        names = map(str, self.theirs['names'])
        self.state = reference.weights(dict(zip(names, shapes, strict=True)), self.case.seed, scales)
        self.model = build(kind)
        if kind == 'small':
            write_zip(path, self.state)
        self.report = Init(weights=path).apply(self.model.parts)
        canvas = tuple(np.max(self.case.sizes, axis=0))
        image = np.empty((len(self.case.sizes), *canvas, 3), np.float32)
        image[:] = PAD_PIXEL
        for row, part in zip(image, reference.noise_images(self.case), strict=True):
            row[: part.shape[0], : part.shape[1]] = part
        self.size = np.int32(self.case.sizes)
        self.batch = {'image': tf.constant(image), 'size': tf.constant(self.size)}
        self.strides = [self.model.strides[name] for name in ('p2', 'p3', 'p4', 'p5')]
        self.anchors = self.model.rpn.anchors(canvas, list(self.model.strides.values()))
        self.maps = [tf.constant(self.theirs[f'p{level}']) for level in (2, 3, 4, 5, 6)]
        truths = reference.truths(self.case)
        self.truth = Truth(
            tf.stack([truth['boxes'] for truth in truths]),
            tf.stack([truth['classes'].astype(np.int32) for truth in truths]),
            tf.ones((len(truths), self.case.instances), bool),
        )

    def check(self, name, ours, theirs=None, tolerance=1e-3):
        """Compares, relative to the largest value."""
        theirs = self.theirs[name] if theirs is None else theirs
        ours = np.asarray(ours)
        assert ours.shape == theirs.shape, name
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        print(f'{name}: {error:.1e}')
        assert error < tolerance, name

    def split(self, values):
        """Cuts [B, A, ...] into the levels' parts."""
        return tf.split(values, [len(anchors) for anchors in self.anchors], axis=1)

    def there(self, count):
        """bool [B, R]: which of the padded places are taken."""
        number = self.theirs[count]
        return np.arange(number.max())[None] < number[:, None]


@pytest.fixture(scope='module', params=['small', pytest.param('full', marks=pytest.mark.slow)])
def side(request, tmp_path_factory):
    return Side(request.param, tmp_path_factory.mktemp('weights'))


def test_nothing_is_left_over(side):
    """Every variable has a tensor and every tensor a variable, but for counters of batches."""
    count = sum(len(part.variables) for part in side.model.parts.values())
    assert side.report.endswith(f'({len(side.state)} tensors): loaded {count} of {count} variables')

    class Watched(dict):
        read = set()

        def get(self, key, default=None):
            self.read.add(key)
            return super().get(key, default)

        def __getitem__(self, key):
            self.read.add(key)
            return super().__getitem__(key)

        def items(self):
            return [(key, self[key]) for key in self]

    watched = Watched(side.state)
    for name, part in side.model.parts.items():
        if name != 'backbone':
            part.published.convert(watched)
    body = {name: value for name, value in side.state.items() if name.startswith('backbone.body.')}
    arrays = side.model.backbone.published.convert(side.state)
    left = {name for name in side.state if name not in watched.read and name not in body}
    assert not left
    # Of the backbone by number: kernels and normalisations.
    assert len(arrays) == len([name for name in body if not name.endswith('num_batches_tracked')])


def test_pyramid(side):
    maps = side.model.decoder(side.model.backbone(side.batch['image'], training=False), size=side.batch['size'])
    for name, value in maps.items():
        side.check(name, value)


def test_rpn(side):
    side.check('anchors', np.concatenate(side.anchors), tolerance=1e-6)
    logits, deltas = side.model.rpn(side.maps)
    side.check('rpn_logits', tf.concat(logits, 1))
    side.check('rpn_deltas', tf.concat(deltas, 1))


def test_proposals(side):
    logits, deltas = (side.split(side.theirs[name]) for name in ('rpn_logits', 'rpn_deltas'))
    propose = tf.function(lambda: side.model.rpn.propose(side.anchors, logits, deltas, side.batch['size'], False))
    proposals = propose()
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(proposals.valid, tf.int32), 1), side.theirs['num_proposals'])
    for count, ours, theirs in zip(
        side.theirs['num_proposals'], proposals.boxes.numpy(), side.theirs['proposals'], strict=True
    ):
        # torchvision sorts by sigmoids, of which the best ones may be equal in float32 where the logits are not.
        apart = np.abs(ours[:count, None] - theirs[None, :count]).max(-1)
        assert sorted(apart.argmin(1)) == list(range(count))
        assert np.mean(apart.argmin(1) == np.arange(count)) > 0.98
        print(f'proposals: {apart.min(1).max():.1e} pixels')
        assert apart.min(1).max() < 1e-3


def test_features_of_boxes(side):
    for name, head, boxes, count in (
        ('box_crops', side.model.box_heads[0], 'proposals', 'num_proposals'),
        ('mask_crops', side.model.mask_head, 'boxes', 'num_detections'),
    ):
        crops = head.crop(side.maps[:4], side.strides, tf.constant(side.theirs[boxes]))
        there = side.there(count)
        side.check(name, crops.numpy()[:, : there.shape[1]][there], side.theirs[name][:, : there.shape[1]][there])


def test_heads(side):
    there = side.there('num_proposals')
    logits, deltas = side.model.box_heads[0](tf.constant(side.theirs['box_crops']))
    for name, value in (('class_logits', logits), ('box_deltas', deltas)):
        side.check(name, value.numpy()[there], side.theirs[name][there])
    there = side.there('num_detections')
    classes = tf.constant(side.theirs['classes'].astype(np.int32))
    logits = side.model.mask_head(tf.constant(side.theirs['mask_crops']), classes)
    side.check('mask_logits', logits.numpy()[there], side.theirs['mask_logits'][there])


def test_choice_of_detections(side):
    theirs = side.theirs
    probabilities = tf.nn.softmax(tf.constant(theirs['class_logits']))
    proposals, valid = tf.constant(theirs['proposals']), tf.constant(side.there('num_proposals'))
    head = side.model.box_heads[0]
    detect = tf.function(lambda *given: head.detector.detect(*given[:4], head.code_weights, given[4]))
    found = detect(proposals, valid, probabilities, tf.constant(theirs['box_deltas']), side.batch['size'])
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(found['classes'] >= 0, tf.int32), 1), theirs['num_detections'])
    there = side.there('num_detections')
    np.testing.assert_array_equal(found['classes'].numpy()[there], theirs['classes'][there])
    side.check('boxes', found['boxes'])
    side.check('scores', found['scores'])


def test_detections(side):
    """From the image to masks on it: the same set, in any order."""
    found = tf.function(lambda batch: side.model(batch, training=False))(side.batch)
    found = {name: value.numpy() for name, value in found.items()}
    theirs = side.theirs
    if side.case.detections >= 50:
        assert theirs['num_detections'].min() >= 50
    pixels, equal, overlaps, scores = 0, 0, [], []
    for i, count in enumerate(theirs['num_detections']):
        assert np.sum(found['classes'][i] >= 0) == count
        overlap = boxes_lib.iou(tf.constant(theirs['boxes'][i, :count]), tf.constant(found['boxes'][i, :count])).numpy()
        overlap = np.where(theirs['classes'][i, :count, None] == found['classes'][i, None, :count], overlap, 0)
        partner = overlap.argmax(1)
        assert sorted(partner) == list(range(count))
        overlaps += list(overlap.max(1))
        scores += list(np.abs(theirs['scores'][i, :count] - found['scores'][i, partner]))
        masks = 1 / (1 + np.exp(-theirs['mask_logits'][i, :count].astype(np.float64)))
        for j, box_index in enumerate(partner):
            places = [
                paste(masks[j], theirs['boxes'][i, j], *side.size[i]),
                paste(found['masks'][i, box_index], found['boxes'][i, box_index], *side.size[i]),
            ]
            one, other = np.zeros((2, *side.size[i]), bool)
            for canvas, (top, left, patch) in zip((one, other), places, strict=True):
                canvas[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
            y0, x0, y1, x1 = theirs['boxes'][i, j]
            pixels += (y1 - y0) * (x1 - x0)
            equal += (y1 - y0) * (x1 - x0) - np.sum(one != other)
    print(f'IoU {min(overlaps):.6f}, scores {max(scores):.1e}, pixels {equal / pixels:.6f}, {len(scores)} detections')
    assert min(overlaps) > 0.99 and max(scores) < 1e-3 and equal / pixels > 0.999


def test_targets(side):
    """Which anchors and regions are what, and the codes of positive ones."""
    theirs, anchors = side.theirs, tf.constant(np.concatenate(side.anchors))[None]
    head = side.model.rpn
    overlap = boxes_lib.iou(anchors, side.truth.boxes)
    index, kind = matching.match(overlap, side.truth.valid, head.positive_iou, head.negative_iou, force_best=True)
    np.testing.assert_array_equal(kind, theirs['kinds'])
    codes = boxes_lib.encode(tf.gather(side.truth.boxes, index, batch_dims=1), anchors)
    codes *= tf.cast(theirs['labels'] == 1, tf.float32)[..., None]
    side.check('codes', codes)

    head = side.model.box_heads[0]
    rois = Rois(*(tf.constant(theirs[name]) for name in ('rois', 'roi_classes', 'roi_index')))
    rois = Rois(rois.boxes, tf.cast(rois.classes, tf.int32), tf.cast(rois.index, tf.int32))
    assert theirs['roi_classes'].max() > 0
    np.testing.assert_array_equal(head.sampler.relabel(rois.boxes, rois, side.truth).classes, theirs['roi_classes'])
    side.check(
        'roi_codes', head.targets(rois, side.truth), theirs['roi_codes'] * (theirs['roi_classes'] > 0)[..., None]
    )


LOSSES = (
    rpn_losses.rpn_score(),
    rpn_losses.rpn_box(),
    None,
    roi_losses.box_regression(beta=1 / 9),
    roi_losses.mask(),
)


@pytest.mark.parametrize('own', [False, True])
def test_losses(side, own):
    """Of torchvision's sampled sets: with its logits, and with those that our model makes of the images."""
    theirs, model = side.theirs, side.model
    rpn_logits, rpn_deltas = theirs['rpn_logits'], theirs['rpn_deltas']
    class_logits, deltas, mask_logits = (theirs[f'roi_{name}'] for name in ('class_logits', 'deltas', 'mask_logits'))
    if own:
        maps = model.decoder(model.backbone(side.batch['image'], training=True), size=side.batch['size'])
        maps = list(maps.values())
        rpn_logits, rpn_deltas = (tf.concat(parts, 1) for parts in model.rpn(maps, training=True))
        head = model.box_heads[0]
        class_logits, deltas = head(head.crop(maps[:4], side.strides, tf.constant(theirs['rois'])), training=True)
        # Positive ones are not first here, so that their places have to be found.
        positive = [np.flatnonzero(classes > 0) for classes in theirs['roi_classes']]
        boxes = np.zeros((*theirs['mask_classes'].shape, 4), np.float32)
        for row, places, every in zip(boxes, positive, theirs['rois'], strict=True):
            row[: len(places)] = every[places]
        crops = model.mask_head.crop(maps[:4], side.strides, tf.constant(boxes))
        mask_logits = model.mask_head(crops, tf.constant(theirs['mask_classes'].astype(np.int32)) - 1, training=True)
    outputs = {
        'rpn': {
            'logits': tf.convert_to_tensor(rpn_logits),
            'deltas': tf.convert_to_tensor(rpn_deltas),
            'labels': tf.constant(theirs['labels'].astype(np.int32)),
            'targets': tf.constant(theirs['codes']),
            'matched': tf.zeros(len(theirs['labels']), tf.int32),
        },
        'boxes': [
            {
                'class_logits': tf.convert_to_tensor(class_logits),
                'deltas': tf.convert_to_tensor(deltas),
                'classes': tf.constant(theirs['roi_classes'].astype(np.int32)),
                'targets': tf.constant(theirs['roi_codes']),
                'weight': tf.constant(1.0),
            }
        ],
        'masks': {
            'logits': tf.convert_to_tensor(mask_logits)[..., None],
            'targets': tf.constant(theirs['mask_targets']),
            'classes': tf.constant(theirs['mask_classes'].astype(np.int32)),
        },
    }
    values = []
    for loss in LOSSES:
        loss = loss or roi_losses.box_class(num_classes=side.case.classes)
        term = loss(outputs, {}, 0)
        values.append(float(tf.reduce_sum(term.total) / tf.reduce_sum(term.weight)))
    print('losses', values, np.abs(np.array(values) / theirs['losses'] - 1))
    np.testing.assert_allclose(values, theirs['losses'], rtol=1e-4)
