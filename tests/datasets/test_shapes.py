"""The drawn scenes: reproducible, labelled correctly, and without classes that colour alone distinguishes."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from seg.datasets.shapes import shapes
from seg.drawing.palette import instance_palette
from seg.errors import UserError


def scenes(dataset, indices):
    """Examples as numpy arrays. (For a few scenes, drawing eagerly is faster than making a graph.)"""
    examples = [dataset.load(tf.constant(index, tf.int64)) for index in indices]
    return [
        {key: value.to_list() if key == 'masks' else value.numpy() for key, value in example.items()}
        for example in examples
    ]


def scenes_by_graph(dataset, count):
    return list(tf.data.Dataset.range(count).map(dataset.load).as_numpy_iterator())


def digest(examples):
    return hashlib.sha256(b''.join(example['label'].tobytes() for example in examples)).hexdigest()


def test_an_example_has_static_shapes_and_the_documented_types():
    element = tf.data.Dataset.range(1).map(shapes(size=(96, 64)).load).element_spec
    assert element == {'image': tf.TensorSpec([96, 64, 3], tf.uint8), 'label': tf.TensorSpec([96, 64], tf.int32)}


def test_a_scene_depends_on_seed_split_and_index_alone():
    first = scenes(shapes(seed=3), range(6))
    assert digest(first) == digest(scenes(shapes(seed=3), range(6)))
    assert digest(first[4:]) == digest(scenes(shapes(seed=3, num_examples=5), [4, 5]))
    assert digest(first) != digest(scenes(shapes(seed=4), range(6)))
    assert len({digest([example]) for example in first}) == 6


def test_two_traces_agree_and_eager_calls_with_them():
    first = scenes_by_graph(shapes(seed=3), 4)
    assert digest(first) == digest(scenes_by_graph(shapes(seed=3), 4))
    for drawn, again in zip(first, scenes(shapes(seed=3), range(4)), strict=True):
        # A graph may order the same arithmetic differently, so that a pixel here and there is rounded differently.
        assert (drawn['label'] != again['label']).mean() < 1e-3
        assert (np.abs(drawn['image'].astype(int) - again['image'].astype(int)) > 1).mean() < 1e-3


def test_any_index_can_be_drawn():
    far = scenes(shapes(), [0, 2**31, 2**31 + 1, 2**62, 2**63 - 1])
    assert len({digest([example]) for example in far}) == 5


def test_val_is_the_same_for_every_seed_and_never_train():
    val = scenes(shapes(split='val', seed=1), range(4))
    assert digest(val) == digest(scenes(shapes(split='val', seed=2), range(4)))
    for seed in (0, 1, 2**32, -1):
        assert digest(val) != digest(scenes(shapes(split='train', seed=seed), range(4)))


def test_info():
    info = shapes(split='val').info
    assert (info.name, info.num_examples, info.max_size, info.num_classes) == ('shapes/val', 128, (128, 128), 8)
    assert info.class_names[0] == 'background' and len(info.colors) == 8
    assert shapes().info.num_examples is None
    assert shapes(num_examples=7).info.num_examples == 7
    instances = shapes(target='instances').info
    assert instances.class_names == info.class_names[1:] and instances.colors == instance_palette(7)
    assert shapes(split='val').image_name(17) == 'val-00017'
    assert shapes().verify() is None


def test_every_class_is_common_and_the_number_of_instances_is_as_set():
    histogram = shapes().class_histogram()
    assert histogram.pixels.sum() == 200 * 128 * 128
    shares = histogram.pixels / histogram.pixels.sum()
    assert 0.5 < shares[0] < 0.8
    assert shares[1:].min() > 0.015
    assert (histogram.present_pixels >= histogram.pixels).all()
    assert histogram.present_pixels[0] == histogram.pixels.sum()  # Ground is seen in every scene.
    counts = [len(e['classes']) for e in scenes(shapes(target='instances', min_objects=2, max_objects=3), range(30))]
    assert set(counts) == {2, 3}


def test_instances_agree_with_the_semantic_label():
    semantic = scenes(shapes(seed=5), range(20))
    instances = scenes(shapes(seed=5, target='instances'), range(20))
    for whole, parts in zip(semantic, instances, strict=True):
        np.testing.assert_array_equal(whole['image'], parts['image'])
        label = np.zeros_like(whole['label'])
        for box, class_id, area, ends in zip(*(parts[k] for k in ('boxes', 'classes', 'area', 'masks')), strict=True):
            mask = np.searchsorted(ends, np.arange(label.size), side='right') % 2
            mask = mask.reshape(label.shape[::-1]).T
            rows, columns = np.nonzero(mask)
            assert area == len(rows) > 0
            np.testing.assert_array_equal(box, [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
            assert not label[mask > 0].any()  # No pixel belongs to two instances.
            label[mask > 0] = class_id + 1
        np.testing.assert_array_equal(label, whole['label'])
        assert not parts['is_crowd'].any()
    assert instances[0]['boxes'].dtype == np.float32 and instances[0]['classes'].dtype == np.int32


def test_annotations_are_the_instances_of_the_batches():
    dataset = shapes(target='instances', split='val', size=(48, 64))
    for index, example in enumerate(tf.data.Dataset.range(3).map(dataset.load)):
        truth = dataset.annotations(index)
        assert (truth.height, truth.width) == (48, 64)
        np.testing.assert_array_equal(truth.boxes, example['boxes'])
        np.testing.assert_array_equal(truth.classes, example['classes'])
        np.testing.assert_array_equal(truth.is_crowd, np.zeros(len(truth.classes), bool))
        assert [coco_mask.area(mask) for mask in truth.masks] == truth.area.tolist()
        boxes = np.array([coco_mask.toBbox(mask) for mask in truth.masks])[:, [1, 0, 3, 2]]
        np.testing.assert_array_equal(truth.boxes[:, 2:] - truth.boxes[:, :2], boxes[:, 2:])


def test_hidden_instances_are_left_out():
    crowded = shapes(target='instances', size=(32, 32), min_objects=40, max_objects=40)
    examples = scenes(crowded, range(5))
    assert all(0 < len(example['classes']) < 40 for example in examples)
    assert all((example['area'] > 0).all() for example in examples)


def test_colour_alone_does_not_give_the_class():
    """The nearest mean colour, fitted to 100 scenes and tried on 60 others, finds little but the ground."""
    names = shapes().info.class_names
    fitted, tried = scenes(shapes(), range(100)), scenes(shapes(split='val'), range(60))
    pixels = np.concatenate([e['image'].reshape(-1, 3) for e in fitted]).astype(np.float32)
    labels = np.concatenate([e['label'].ravel() for e in fitted])
    means = np.stack([pixels[labels == class_id].mean(axis=0) for class_id in range(len(names))])
    confusion = np.zeros([len(names)] * 2, np.int64)
    for example in tried:
        distance = np.linalg.norm(example['image'][..., None, :] - means, axis=-1)
        pairs = example['label'] * len(names) + distance.argmin(axis=-1)
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
    hits = confusion.diagonal()
    iou = hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)
    assert iou.mean() < 0.2


def test_instances_stand_out_from_the_ground():
    """The colour changes along outlines."""
    steps = []
    for example in scenes(shapes(noise=0), range(30)):
        image, is_object = example['image'].astype(float), example['label'] > 0
        outline = is_object[:, 3:] != is_object[:, :-3]
        steps.append(np.linalg.norm(image[:, 3:] - image[:, :-3], axis=-1)[outline].mean())
    assert np.mean(steps) > 50


@pytest.mark.parametrize('instances', [1, 2, 9])
def test_any_number_of_instances_and_any_size(instances):
    example = scenes(shapes(size=(40, 72), min_objects=1, max_objects=instances), [0])[0]
    assert example['image'].shape == (40, 72, 3)
    assert example['label'].max() > 0


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'split': 'test'}, r"shapes.split = 'test'.*'train' and 'val'"),
        ({'target': 'panoptic'}, r"target 'panoptic'.*'label_map' and 'instances'"),
        ({'size': 128}, r'shapes.size = 128: expected \(height, width\)'),
        ({'size': (128, 16)}, r'shapes.size = \(128, 16\).*at least 32'),
        ({'num_examples': 0}, r'shapes.num_examples = 0'),
        ({'min_objects': 5, 'max_objects': 4}, r'datasets.shapes.min_objects = 5, datasets.shapes.max_objects = 4'),
        ({'min_object_size': 99.0}, r'shapes.min_object_size = 99.0: expected 4 to 72 pixels'),
        ({'noise': -1}, r'datasets.shapes.noise = -1'),
        ({'min_objects': 0.5}, r'datasets.shapes.min_objects = 0.5'),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        shapes(**settings)
