"""COCO's scores against pycocotools', on made-up images with everything that goes wrong in real ones."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.metrics.coco_ap import MASK_STEPS, CocoAP
from tests.metrics import scenes

NAMES = ('cell', 'straße', 'c $x$', 'd')


def metric(names=NAMES, **settings):
    return CocoAP(num_classes=len(names), class_names=names, **settings)


def scored(truth, values, names=NAMES, **settings):
    made = metric(names, **settings)
    made.add(values, truth)
    return made


def agree(made, truth, values):
    """All numbers that pycocotools gives are ours, to 1e-6, and no AP or AR beyond them."""
    expected = scenes.reference_scores(
        scenes.reference(truth, values, made.num_classes, made.max_detections), made.class_names
    )
    result = made.result()
    assert {name for name in result if name.startswith(('box_', 'mask_'))} == set(expected)
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-6), name
    return result


@pytest.mark.parametrize(
    'settings',
    [
        {'seed': 0},
        {'seed': 1, 'ties': True},
        {'seed': 2, 'crowds': 0.5},
        {'seed': 3, 'empty': (0, 1, 2), 'blind': (0, 3)},
        {'seed': 4, 'places': 60, 'num_classes': 1},
    ],
    ids=str,
)
def test_scores_are_those_of_pycocotools(settings):
    truth, values = scenes.make(**settings)
    result = agree(scored(truth, values), truth, values)
    assert 0 < result['mask_ap'] < 1 and result['max_detections'] == 100


def test_twelve_numbers_of_the_summary(capsys):
    """In pycocotools' own order."""
    truth, values = scenes.make(5, images=8)
    result = scored(truth, values).result()
    names = ['ap', 'ap50', 'ap75', *(f'ap_{a}' for a in scenes.AREAS[1:]), 'ar1', 'ar10', 'ar100']
    names += [f'ar_{a}' for a in scenes.AREAS[1:]]
    for kind, evaluation in scenes.reference(truth, values, 4).items():
        evaluation.summarize()
        for name, value in zip(names, evaluation.stats, strict=True):
            assert result.get(f'{kind}_{name}', -1) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize('limit', [1, 3, 10, 12, 500])
def test_more_detections_than_the_limit(limit):
    truth, values = scenes.make(6, places=70, num_classes=2)
    result = agree(scored(truth, values, max_detections=limit), truth, values)
    assert result['max_detections'] == limit
    assert {n for n in result if n[:6] == 'box_ar' and n[6] != '_'} == {
        f'box_ar{n}' for n in {1, min(10, limit), limit}
    }


def test_first_instance_counts():
    """pycocotools takes a match with id 0 for no match, so the ids are our own, not those of the files."""
    box = (10, 10, 60, 70)
    truth = [scenes.annotations([(box, 0, False)], 100, 100)]
    values = scenes.values([[(truth[0].boxes[0], 0.9, 0)]], 3, np.random.default_rng(0))
    wrong = scenes.reference_scores(scenes.reference(truth, values, 4, first_id=0), NAMES)
    assert wrong['box_ap'] == 0.0
    result = agree(scored(truth, values), truth, values)
    assert result['box_ap'] == 1.0 and result['recall'] == 1.0


def test_huge_and_tiny_instances():
    """One instance fills the image, one is a pixel; both are found."""
    whole, pixel = (-300, -300, 500, 600), (50, 40, 51, 41)
    truth = [scenes.annotations([(whole, 1, False), (pixel, 0, False)], 200, 300)]
    assert list(truth[0].area) == [200 * 300, 1]
    values = scenes.values([[(truth[0].boxes[0], 0.9, 1), (truth[0].boxes[1], 0.8, 0)]], 3, np.random.default_rng(0))
    values['masks'][:] = MASK_STEPS
    result = agree(scored(truth, values), truth, values)
    assert result['mask_ap'] == result['box_ap'] == result['mask_ap_small'] == result['mask_ap_large'] == 1.0
    assert 'mask_ap_medium' not in result


def test_classes_absent_from_the_truth():
    """They have no AP and do not count in the mean; their detections are false."""
    truth, values = scenes.make(7, num_classes=2)
    values['classes'][values['classes'] == 0] = 3
    made = scored(truth, values)
    result = agree(made, truth, values)
    assert {n for n in result if n.startswith('mask_ap/')} <= {'mask_ap/cell', 'mask_ap/straße'}
    table = {row['name']: row for row in made.details()['instances']['classes']}
    assert table['d']['objects'] == 0 and table['d']['detections'] > 0 and table['d']['mask_ap'] is None


def test_no_detection_at_all():
    truth, values = scenes.make(8, blind=range(6))
    made = scored(truth, values)
    result = made.result()
    assert result['box_ap'] == result['mask_ap'] == result['mask_ar100'] == result['recall'] == 0.0
    assert result['f1'] == result['threat_score'] == result['detections'] == 0
    assert 'precision' not in result and 'best_threshold' not in result
    assert len(made.charts()) == 3 and made.details()['instances']['best']['threshold'] is None


def test_no_instance_at_all():
    with pytest.raises(UserError, match='no instance was evaluated.* 0 image'):
        metric().result()
    truth, values = scenes.make(9, empty=range(6))
    with pytest.raises(UserError, match='no instance was evaluated.* 6 image'):
        scored(truth, values).result()
    truth, values = scenes.make(9, crowds=1.0)
    with pytest.raises(UserError, match='hold [1-9][0-9]* crowd'):
        scored(truth, values).result()


def test_absent_area_ranges_are_explained_once(caplog):
    truth = [scenes.annotations([((10, 10, 20, 20), 0, False)], 100, 100)]
    values = scenes.values([[((10, 10, 20, 20), 0.9, 0)]], 2, np.random.default_rng(0))
    made = scored(truth, values)
    with caplog.at_level(logging.INFO, 'absl'):
        result = made.result()
        made.reset()
        made.add(values, truth)
        assert made.result() == result
    assert not {'box_ap_large', 'box_ar_medium', 'mask_ap_medium'} & set(result) and result['mask_ap_small'] > 0
    (line,) = [record.getMessage() for record in caplog.records if 'area range' in record.getMessage()]
    assert 'medium, large' in line and '*_ar_large' in line


@pytest.mark.parametrize('seed', range(4))
def test_best_threshold(seed):
    """Against pycocotools' matches and every threshold there is."""
    truth, values = scenes.make(seed + 20, ties=seed % 2 == 1, crowds=0.3)
    limit = 3
    evaluation = scenes.reference(truth, values, 4, limit)['mask']
    scores, right = [], []
    for image in evaluation.evalImgs:
        if image and image['aRng'] == evaluation.params.areaRng[0]:
            counts = ~image['dtIgnore'][0].astype(bool)
            scores += list(np.array(image['dtScores'])[counts])
            right += list(image['dtMatches'][0][counts] > 0)
    scores, right = np.array(scores), np.array(right)
    instances = sum(int(np.sum(~t.is_crowd)) for t in truth)
    options = []
    for threshold in np.unique(scores):
        tp, fp = int(np.sum(right[scores >= threshold])), int(np.sum(~right[scores >= threshold]))
        options.append((2 * tp / (tp + fp + instances), threshold, tp, fp))
    f1, threshold, tp, fp = max(options)
    result = scored(truth, values, max_detections=limit).result()
    expected = {
        'f1': f1, 'best_threshold': threshold, 'precision': tp / (tp + fp), 'recall': tp / instances,
        'threat_score': tp / (instances + fp), 'objects': instances,
    }  # fmt: skip
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_splitting_over_batches_changes_nothing():
    truth, values = scenes.make(10)
    whole, split = scored(truth, values), metric()
    for at in (slice(0, 1), slice(1, 4), slice(4, 6)):
        split.add({key: value[at] for key, value in values.items()}, truth[at])
    assert whole.result() == split.result() and whole.details() == split.details()
    split.reset()
    split.add(values, truth)
    assert whole.result() == split.result(), 'a result is of what was added since the reset'
    split.add(values, truth)
    assert split.result()['objects'] == 2 * whole.result()['objects'], 'and of all of it'


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'bfloat16'])
def test_rows(jit, dtype):
    random = np.random.default_rng(0)
    boxes, masks = random.uniform(0, 64, (2, 5, 4)), random.random((2, 5, 7, 7))
    batch = {'size': np.int32([[64, 48], [32, 64]]), 'native_size': np.int32([[640, 480], [16, 128]])}
    predictions = {
        'boxes': tf.constant(boxes, 'float64' if dtype == 'float64' else 'float32'),
        'scores': tf.constant(random.random((2, 5)), dtype),
        'classes': tf.constant(random.integers(-1, 4, (2, 5)), tf.int32),
        'masks': tf.constant(masks, dtype),
    }
    found = tf.function(metric().rows, jit_compile=jit)(
        {key: tf.constant(value) for key, value in batch.items()}, predictions
    )
    scale = np.array([[10, 10, 10, 10], [0.5, 2, 0.5, 2]])[:, None]
    np.testing.assert_allclose(found['boxes'].numpy(), boxes * scale, rtol=1e-6)
    probabilities = predictions['masks'].numpy().astype(np.float32)
    np.testing.assert_allclose(found['masks'].numpy() / MASK_STEPS, probabilities, atol=1e-5)
    assert [found[key].dtype.name for key in found] == ['float32', 'float32', 'int32', 'uint16']


def test_impossible_numbers_are_refused():
    truth, values = scenes.make(11, images=2, empty=(), blind=())

    def with_(key, value):
        return {**values, key: np.where(np.arange(values[key].shape[1]).reshape(-1, *[1] * (values[key].ndim - 2)) == 0,
                                        value, values[key])}  # fmt: skip

    with pytest.raises(UserError, match='1 predicted class.* of image 0 .*not in 0 to 3, such as 7'):
        scored(truth, with_('classes', np.int32(7)))
    for key in ('scores', 'boxes'):
        with pytest.raises(UserError, match='score or a box that is not finite'):
            scored(truth, with_(key, np.float32(np.nan)))
    with pytest.raises(UserError, match='true class'):
        scored([t._replace(classes=t.classes + 4) for t in truth], values)
    with pytest.raises(UserError, match='4 different class names, one per class; received 3'):
        CocoAP(num_classes=4, class_names=('a', 'b', 'c'))
    with pytest.raises(UserError, match='max_detections = 0'):
        metric(max_detections=0)


def test_truth_scores_one():
    truth, values = scenes.make(12, crowds=0.3)
    made = metric(max_detections=8)
    made.add(values, truth)
    before = made.result()
    made.self_test([(str(i), each) for i, each in enumerate(truth)])
    assert made.result() == before


def test_truth_that_cannot_be_is_refused():
    (truth, *_), _ = scenes.make(13, images=1, empty=(), crowds=0.0)
    made = metric()
    made.self_test([('cells/val, image 7', truth)])
    height, width = truth.height, truth.width
    empty = scenes.coco_mask.encode(np.zeros((height, width), np.uint8, order='F'))
    flat = truth.boxes.copy()
    flat[0, 2] = flat[0, 0]
    for change, message in (
        ({'classes': truth.classes + 4}, 'cells/val, image 7, instance 0: its class .* is not in 0 to 3'),
        ({'boxes': flat}, 'instance 0: its box .* has no area'),
        ({'masks': [empty, *truth.masks[1:]]}, 'instance 0: its mask has no pixel'),
        ({'height': height + 1}, f'instance 0: its mask is for {height} x {width} pixels'),
        ({'boxes': truth.boxes[:, [1, 0, 3, 2]] + np.float32([0, 150, 0, 150])}, 'boxes and masks do not belong tog'),
        ({'area': truth.area[1:]}, "'area': \\d+"),
    ):
        with pytest.raises(UserError, match=message):
            made.self_test([('cells/val, image 7', truth._replace(**change))])


def test_truth_above_the_limit_is_not_checked(caplog):
    truth, _ = scenes.make(14, crowds=0.0, empty=())
    many = [('', t) for t in truth if len(t.classes) > 1]
    with caplog.at_level(logging.WARNING, 'absl'):
        metric(max_detections=1).self_test(many)
    assert 'no image has between 1 and 1 instances' in caplog.text


def test_details_and_charts():
    truth, values = scenes.make(15)
    made = scored(truth, values)
    found = json.loads(json.dumps(made.details(), allow_nan=False))['instances']
    result = made.result()
    assert [row['name'] for row in found['classes']] == list(NAMES)
    assert sum(row['objects'] for row in found['classes']) == result['objects']
    assert found['classes'][0]['mask_ap'] == pytest.approx(result['mask_ap/cell'], abs=1e-6)
    assert found['best']['threshold'] == pytest.approx(result['best_threshold'], abs=1e-6)
    curves = found['precision_recall']
    assert np.mean(curves['mask_50']) == pytest.approx(result['mask_ap50'], abs=1e-4)
    assert np.mean(curves['box_75']) == pytest.approx(result['box_ap75'], abs=1e-4)
    counts = found['score_histogram']
    assert len(counts['edges']) == 21 and sum(counts['right'] + counts['wrong']) <= result['detections']
    images = made.charts()
    assert [image.tag for image in images] == ['precision_recall', 'class_ap', 'score_histogram']
    assert all(p.pixels.dtype == np.uint8 and p.pixels.ndim == 3 and not p.photo for p in images)
