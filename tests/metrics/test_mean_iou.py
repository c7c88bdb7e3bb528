"""Mean IoU against a count by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.metrics.mean_iou import MeanIoU, image_mean_iou

IGNORE = 255


def make(k=4, names=None, ignore=IGNORE):
    return MeanIoU(num_classes=k, class_names=names or tuple(f'c{i}' for i in range(k)), ignore_label=ignore)


def images(seed=0, b=4, h=6, w=5, k=4, high=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, high or k, (b, h, w)).astype(np.int32)
    labels[rng.random((b, h, w)) < 0.3] = IGNORE
    return labels, rng.integers(0, high or k, (b, h, w)).astype(np.int32)


def update(metric, labels, classes, weight=None, jit=False):
    weight = np.ones(len(labels), np.float32) if weight is None else np.asarray(weight, np.float32)

    @tf.function(jit_compile=jit)
    def step(labels, classes, weight):
        return metric.update({'label': labels, 'weight': weight}, {'classes': classes})

    return {k: v.numpy() for k, v in step(tf.constant(labels), tf.constant(classes), tf.constant(weight)).items()}


def count(labels, classes, k=4):
    matrix = np.zeros((k, k), np.int64)
    for t, p in zip(labels.ravel(), classes.ravel(), strict=True):
        if t != IGNORE:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize('jit', [False, True])
def test_counts_every_labelled_pixel_once(jit):
    labels, classes = images()
    values = update(make(), labels, classes, weight=[1, 1, 0, 1], jit=jit)
    np.testing.assert_array_equal(values['confusion'], count(labels[[0, 1, 3]], classes[[0, 1, 3]]))
    assert all(v.dtype == np.int32 for v in values.values())
    assert not values['invalid_labels'].any() and not values['invalid_predictions'].any()


def test_result_is_the_definition():
    metric = make(names=('Background', 'cat', 'dog', 'cow'))
    labels, classes = images(1)
    metric.add(update(metric, labels, classes))
    valid = labels != IGNORE
    ious = [
        np.sum(valid & (labels == c) & (classes == c)) / np.sum(valid & ((labels == c) | (classes == c)))
        for c in range(4)
    ]
    recalls = [np.mean(classes[labels == c] == c) for c in range(4)]
    result = metric.result()
    assert result['miou'] == pytest.approx(np.mean(ious), abs=1e-15)
    assert result['miou_without_background'] == pytest.approx(np.mean(ious[1:]), abs=1e-15)
    assert result['pixel_accuracy'] == pytest.approx(np.mean(labels[valid] == classes[valid]), abs=1e-15)
    assert result['mean_accuracy'] == pytest.approx(np.mean(recalls), abs=1e-15)
    assert [result[f'iou/{name}'] for name in metric.class_names] == pytest.approx(ious, abs=1e-15)
    assert result['pixels'] == valid.sum() and result['miou_classes'] == 4
    assert metric.confusion.dtype == np.int64 and metric.confusion.shape == (4, 4)


def test_splitting_over_batches_changes_nothing():
    labels, classes = images(2, b=6)
    whole, split = make(), make()
    whole.add(update(whole, labels, classes))
    for at in (slice(0, 1), slice(1, 3), slice(3, 6)):
        split.add(update(split, labels[at], classes[at]))
    assert whole.result() == split.result()
    np.testing.assert_array_equal(whole.confusion, split.confusion)
    split.reset()
    assert not split.confusion.any()


def test_replicas_sum_to_the_whole():
    labels, classes = images(3)
    metric = make()
    parts = [update(metric, labels[i : i + 2], classes[i : i + 2]) for i in (0, 2)]
    summed = {name: sum(p[name] for p in parts) for name in parts[0]}
    np.testing.assert_array_equal(summed['confusion'], update(metric, labels, classes)['confusion'])


def test_absent_class_is_left_out_and_a_falsely_predicted_one_is_zero():
    metric = make(names=('background', 'cat', 'dog', 'cow'))
    labels = np.array([[[0, 0, 1, 1]]], np.int32)
    classes = np.array([[[0, 0, 1, 2]]], np.int32)
    metric.add(update(metric, labels, classes))
    result = metric.result()
    assert 'iou/cow' not in result and result['iou/dog'] == 0.0
    assert result['miou'] == pytest.approx((1 + 0.5 + 0) / 3) and result['miou_classes'] == 3
    assert result['mean_accuracy'] == pytest.approx(0.75)


def test_perfect_prediction_scores_one_without_the_other_keys_of_a_background():
    metric = make()
    labels, _ = images(4)
    metric.add(update(metric, labels, np.where(labels == IGNORE, 0, labels).astype(np.int32)))
    result = metric.result()
    assert result['miou'] == result['pixel_accuracy'] == 1.0
    assert 'miou_without_background' not in result


def test_predicted_ids_under_ignored_pixels_do_not_matter():
    labels, classes = images(5)
    values = update(make(), labels, np.where(labels == IGNORE, 99, classes).astype(np.int32))
    np.testing.assert_array_equal(values['confusion'], count(labels, classes))
    assert not values['invalid_predictions'].any()


@pytest.mark.parametrize('jit', [False, True])
def test_ids_that_are_no_class_are_counted_and_named(jit):
    metric = make()
    labels, classes = images(6)
    labels[0, 0, :3] = 4, 254, -7
    labels[1, 0, 0] = 70000
    with pytest.raises(UserError, match=r'4 labels .*below 0 \(1 pixels\), 4 \(1 .*254 \(1 .*above 255 \(1 '):
        metric.add(update(metric, labels, classes, jit=jit))
    assert not metric.confusion.any()

    labels, classes = images(6)
    labels[0, 0, 0], classes[0, 0, 0] = 1, 21
    with pytest.raises(UserError, match=r'1 predicted ids .*: 21 \(1 pixels\)'):
        metric.add(update(metric, labels, classes, jit=jit))


def test_without_images_there_is_no_score():
    metric = make()
    with pytest.raises(UserError, match='no labelled pixel'):
        metric.result()
    labels, classes = images(7)
    metric.add(update(metric, np.full_like(labels, IGNORE), classes))
    metric.add(update(metric, labels, classes, weight=[0, 0, 0, 0]))
    with pytest.raises(UserError, match='no labelled pixel'):
        metric.result()


def test_host_sums_pass_32_bits():
    metric = make(2)
    values = {
        'confusion': np.array([[2**31 - 1, 0], [0, 1]], np.int32),
        'invalid_labels': np.zeros(258, np.int32),
        'invalid_predictions': np.zeros(258, np.int32),
    }
    for _ in range(4):
        metric.add(values)
    assert metric.confusion[0, 0] == 4 * (2**31 - 1)
    assert metric.result()['pixels'] == 2**33


def test_ids_and_ignore_label_of_any_kind():
    labels, classes = images(8)
    metric = make(ignore=0)
    values = update(metric, np.where(labels == IGNORE, 0, labels).astype(np.int32), classes)
    metric.add(values)
    assert not metric.confusion[0].any()
    one = make(1)
    one.add(update(one, np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.int64)))
    assert one.result()['miou'] == 1.0


def test_class_names_must_fit():
    with pytest.raises(UserError, match='3 different class names'):
        make(3, names=('a', 'b', 'a'))
    with pytest.raises(UserError, match='2 different class names'):
        make(2, names=('a', 'b', 'c'))


def test_charts():
    metric = make()
    labels, classes = images(9)
    metric.add(update(metric, labels, classes))
    made = metric.charts()
    assert [image.tag for image in made] == ['confusion_matrix', 'class_iou', 'class_pixels']
    assert all(image.pixels.dtype == np.uint8 and not image.photo for image in made)


def test_details_are_plain_numbers():
    metric = make(2, names=('background', 'straße'))
    labels = np.array([[[0, 0, 1, IGNORE]]], np.int32)
    metric.add(update(metric, labels, np.array([[[0, 1, 1, 0]]], np.int32)))
    expected = {'confusion': {'class_names': ['background', 'straße'], 'pixels': [[1, 1], [0, 1]]}}
    assert json.loads(json.dumps(metric.details())) == expected


@pytest.mark.parametrize('jit', [False, True])
def test_score_of_each_image(jit):
    """Each by itself, as the whole metric gives it for that image alone."""
    labels, classes = images(10, b=5, high=3)
    labels[1] = IGNORE
    labels[2, 0, 0] = 77  # No class: counts nowhere.
    score = tf.function(lambda *args: image_mean_iou(*args, 4, IGNORE), jit_compile=jit)
    scores = score(tf.constant(labels), tf.constant(classes)).numpy()
    assert scores.shape == (5,) and scores.dtype == np.float32 and np.isnan(scores[1])
    labels[2, 0, 0] = IGNORE
    for i in (0, 2, 3, 4):
        metric = make()
        metric.add(update(metric, labels[i : i + 1], classes[i : i + 1]))
        assert scores[i] == pytest.approx(metric.result()['miou'], abs=1e-6)


def test_score_of_an_image_with_an_absent_and_a_falsely_predicted_class():
    labels = np.array([[[0, 0, 1, 1]]], np.uint8)
    score = image_mean_iou(tf.constant(labels), tf.constant([[[0, 0, 1, 2]]], tf.int64), 4, IGNORE)
    assert score.numpy() == pytest.approx([(1 + 0.5 + 0) / 3])
