"""Copy-paste: pixels, masks and boxes of both images' instances after some were pasted over others."""

import numpy as np
import pytest
import tensorflow as tf

from seg.augments import instances
from seg.augments.copy_paste import copy_paste
from seg.errors import UserError
from seg.masks import ragged

SIDE = 48


def drawn(boxes, value, crowds=(), height=SIDE, width=SIDE):
    """An example of rectangles, as `begin` makes it; instance n has the grey value `value` + n."""
    masks, image = np.zeros([len(boxes), height, width], bool), np.zeros([height, width, 3], np.uint8)
    for n, (y0, x0, y1, x1) in enumerate(boxes):
        masks[n, y0:y1, x0:x1] = True
        image[masks[n]] = value + n
    runs = ragged.from_dense(tf.constant(masks))
    found, area = ragged.boxes_and_areas(runs, height)
    return instances.begin(
        {
            'image': tf.constant(image),
            'boxes': found,
            'classes': tf.range(value, value + len(boxes)),
            'is_crowd': tf.constant([n in crowds for n in range(len(boxes))], tf.bool),
            'area': area,
            'masks': runs,
        }
    )


BASE = [(4, 4, 20, 20), (10, 24, 30, 44), (32, 2, 46, 46), (0, 40, 6, 46)]
OTHER = [(8, 12, 24, 30), (26, 20, 40, 40), (1, 1, 5, 5)]
SAME = {'min_scale': 1.0, 'max_scale': 1.0, 'flip': False}  # The other image as it is.


def pasting(other=OTHER, crowds=(), **settings):
    asked = []

    def supply(seed):
        asked.append(seed)
        return drawn(other, 150, crowds)

    return copy_paste(other=supply, **{'probability': 1.0, 'object_probability': 1.0, **SAME, **settings}), asked


def painted(example):
    count = len(example['boxes'])
    whole = tf.tile([[0.0, 0.0, float(SIDE), float(SIDE)]], [count, 1])
    return instances.mask_crops(example['masks'], example['frame'], example['view'], whole, SIDE).numpy() > 0


def result(augment, example, seed=0):
    return augment(example, tf.constant([5, seed]))  # Eagerly: each graph would be used once.


def test_all_instances_of_the_other_image_over_this_one():
    base, other = drawn(BASE, 50), drawn(OTHER, 150)
    made = result(pasting(min_visible=0.0)[0], base)
    cover = painted(other).any(axis=0)
    np.testing.assert_array_equal(made['image'], np.where(cover[..., None], other['image'], base['image']))
    shown = dict(zip(made['classes'].numpy().tolist(), painted(made), strict=True))
    assert list(made['classes'][-3:]) == [150, 151, 152]
    for number, mask in zip(base['classes'].numpy(), painted(base), strict=True):
        np.testing.assert_array_equal(shown[number], mask & ~cover)
    for number, mask in zip(other['classes'].numpy(), painted(other), strict=True):
        np.testing.assert_array_equal(shown[number], mask)
    # Every pixel of an instance has the instance's colour, and boxes and areas are those of the visible masks.
    for n, mask in enumerate(painted(made)):
        assert set(made['image'].numpy()[mask].ravel()) == {float(made['classes'][n])}
        rows, columns = np.nonzero(mask)
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_array_equal(made['boxes'][n], box)
        np.testing.assert_allclose(made['area'][n], mask.sum(), rtol=1e-6)
    assert made['size'].numpy().tolist() == [SIDE, SIDE]


def test_hidden_instances_are_cropped_to_their_visible_part():
    made = result(pasting(min_visible=0.0)[0], drawn(BASE, 50))
    crops = instances.mask_crops(*(made[key] for key in ('masks', 'frame', 'view', 'boxes')), 12).numpy()
    for mask, box, crop in zip(painted(made), made['boxes'].numpy(), crops, strict=True):
        rows, columns = (
            np.floor(box[k] + (np.arange(12) + 0.5) / 12 * (box[k + 2] - box[k])).astype(int) for k in (0, 1)
        )
        np.testing.assert_array_equal(crop > 0, mask[np.ix_(rows, columns)])


def test_instances_that_are_mostly_hidden_are_dropped():
    cover = [(10, 24, 30, 43)]  # 19 of the 20 columns of the second instance.
    for share, left in ((0.0, 1), (0.05, 1), (0.051, 0), (1.0, 0)):
        made = result(pasting(cover, min_visible=share)[0], drawn(BASE, 50))
        assert (made['classes'].numpy() == 51).sum() == left
        assert {50, 52, 53, 150} <= set(made['classes'].numpy())
    made = result(pasting([(10, 24, 30, 44)], min_visible=0.0)[0], drawn(BASE, 50))
    assert 51 not in made['classes'].numpy()


def test_crowds_are_never_pasted():
    made = result(pasting(crowds=(0, 1))[0], drawn(BASE, 50))
    assert sorted(made['classes'].numpy()) == [50, 51, 52, 53, 152]


@pytest.mark.parametrize('other', [[], OTHER])
def test_nothing_to_paste_changes_nothing(other):
    augment, asked = pasting(other, object_probability=0.0 if other else 1.0)
    base = drawn(BASE, 50)
    made = result(augment, base)
    assert len(asked) == 1
    for key in ('image', 'size', 'boxes', 'classes', 'is_crowd', 'area', 'view', 'frame'):
        np.testing.assert_array_equal(made[key], base[key])
    assert made['masks'].to_list() == base['masks'].to_list()
    never = result(pasting(probability=0.0)[0], base)
    np.testing.assert_array_equal(never['image'], base['image'])


def test_onto_an_image_without_instances():
    made = result(pasting()[0], drawn([], 50))
    assert made['classes'].numpy().tolist() == [150, 151, 152]


def test_chance_comes_from_the_seed():
    augment = tf.function(pasting(probability=0.5, min_scale=0.5, max_scale=2.0, flip=True)[0])
    base = drawn(BASE, 50)
    made = [augment(base, tf.constant([5, n])) for n in range(40)]
    for first, n in zip(made, range(5), strict=False):
        second = augment(base, tf.constant([5, n]))
        np.testing.assert_array_equal(first['image'], second['image'])
        np.testing.assert_array_equal(first['view'], second['view'])
    changed = [(example['image'].numpy() != base['image'].numpy()).any() for example in made]
    assert 10 < sum(changed) < 30
    for example in made[:12]:  # Whatever was drawn, boxes hold their masks and lie within the image.
        for mask, box in zip(painted(example), example['boxes'].numpy(), strict=True):
            found = np.argwhere(mask)
            inside = found[((found + 1 > box[:2]) & (found < box[2:])).all(axis=1)]
            assert len(inside) and (box[:2] >= 0).all() and (box[2:] <= SIDE).all()


def test_other_keys_pass_and_shapes_stay_static():
    augment = pasting()[0]
    base = drawn(BASE, 50) | {'index': tf.constant(3)}
    graph = tf.data.Dataset.from_tensors(base).map(lambda e: augment(e, tf.constant([1, 2])))
    assert graph.element_spec['image'] == tf.TensorSpec([SIDE, SIDE, 3], tf.float32)
    assert graph.element_spec['size'] == tf.TensorSpec([2], tf.int32)
    assert graph.element_spec['masks'].dtype == tf.int32
    assert next(iter(graph))['index'] == 3


def test_mistakes():
    with pytest.raises(UserError, match='augments.copy_paste.probability = 1.5'):
        pasting(probability=1.5)
    with pytest.raises(UserError, match='augments.copy_paste.min_scale = 2.0, augments.copy_paste.max_scale = 1.0'):
        pasting(min_scale=2.0)
    with pytest.raises(UserError, match="needs a task whose target is 'instances'"):
        pasting()[0]({'image': tf.zeros([4, 4, 3]), 'size': tf.constant([4, 4])}, tf.constant([0, 0]))
    spec = {'image': tf.TensorSpec([None, None, 3]), 'view': tf.TensorSpec([None, 2, 3])}
    with pytest.raises(UserError, match='Put it after the augment that gives them one size, as @augments.scale_crop'):
        tf.function(pasting()[0]).get_concrete_function(spec, tf.TensorSpec([2], tf.int32))
