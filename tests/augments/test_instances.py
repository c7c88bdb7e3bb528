"""Instances under augments: masks looked up through views, boxes that follow, instances that leave."""

import numpy as np
import pytest
import tensorflow as tf

from seg.augments import instances
from seg.augments.scale_crop_flip import scale_crop_flip
from seg.masks import ragged


def scene(height=37, width=53, count=6, seed=0):
    """An example as a data set gives it, and its masks, bool [N, H, W]: blobs whose grey value tells their number."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    masks, image = np.zeros([count, height, width], bool), np.zeros([height, width, 3], np.uint8)
    for n in range(count):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(3, 12)
        masks[n] = (rows - y) ** 2 + (columns - x) ** 2 * rng.uniform(0.5, 2) < radius**2
        masks[n] |= (rows == int(y)) & (columns == int(x))
        masks[n] &= rng.random([height, width]) < 0.9  # Holes, and many runs.
        masks[n, int(y), int(x)] = True
        image[masks[n]] = 30 * n + 50
    runs = ragged.from_dense(tf.constant(masks))
    boxes, area = ragged.boxes_and_areas(runs, height)
    example = {
        'image': tf.constant(image),
        'boxes': boxes,
        'classes': tf.range(count),
        'is_crowd': tf.constant([n % 4 == 3 for n in range(count)], tf.bool),
        'area': area,
        'masks': runs,
    }
    return example, masks


def crops(example, side):
    return instances.mask_crops(*(example[key] for key in ('masks', 'frame', 'view', 'boxes')), side).numpy()


def reference_crops(masks, view, boxes, side):
    """Nearest sampling of decoded masks at the cells' centres, in the same precision."""
    found = np.zeros([len(boxes), side, side], np.uint8)
    centres = ((np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)).astype(np.float32)
    for n, (mask, ((ay, _, by), (_, ax, bx)), (y0, x0, y1, x1)) in enumerate(zip(masks, view, boxes, strict=True)):
        rows = np.floor(ay * (y0 + (y1 - y0) * centres) + by).astype(int)
        columns = np.floor(ax * (x0 + (x1 - x0) * centres) + bx).astype(int)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]:
                    found[n, i, j] = 255
    return found


def painted(example, height, width):
    """The masks as seen in the augmented image, bool [N, height, width], each pixel looked up at its centre."""
    whole = dict(example, boxes=tf.tile([[0.0, 0.0, float(height), float(width)]], [len(example['boxes']), 1]))
    assert height == width
    return crops(whole, height) > 0


def test_begin_sees_the_image_as_it_is():
    example, _ = scene()
    begun = instances.begin(example, 'float64')
    assert begun['image'].dtype == tf.float64 and begun['size'].numpy().tolist() == [37, 53]
    np.testing.assert_array_equal(begun['view'], np.tile(np.eye(2, 3, dtype=np.float32), [6, 1, 1]))
    np.testing.assert_array_equal(begun['frame'], np.tile([37, 53], [6, 1]))
    assert begun['frame'].dtype == tf.int32


@pytest.mark.parametrize('side', [1, 7, 28])
def test_crops_equal_sampling_of_decoded_masks(side):
    example, masks = scene()
    rng = np.random.default_rng(1)
    view = np.zeros([6, 2, 3], np.float32)
    view[:, 0, 0], view[:, 1, 1] = rng.uniform(-1.5, 1.5, [2, 6])
    view[:, :, 2] = rng.uniform(-5, 60, [6, 2])
    corners = rng.uniform(-4, 50, [6, 2, 2]).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[0, 2:] = boxes[0, :2]  # Of no size.
    begun = instances.begin(example) | {'view': tf.constant(view), 'boxes': tf.constant(boxes)}
    np.testing.assert_array_equal(crops(begun, side), reference_crops(masks, view, boxes, side))


def test_whole_masks_come_back():
    example, masks = scene(40, 40)
    np.testing.assert_array_equal(painted(instances.begin(example), 40, 40), masks)


def test_instances_from_images_of_different_sizes():
    """Frames may differ from instance to instance, as after copy-paste; empty masks may lie between."""
    (first, masks_1), (second, masks_2) = scene(20, 31, 3, 1), scene(45, 12, 2, 2)
    first, second = instances.begin(first), instances.begin(second)
    empty = tf.ragged.constant([[]], tf.int32, ragged_rank=1)
    joined = {key: tf.concat([first[key], second[key][:1], second[key]], 0) for key in ('frame', 'view', 'boxes')} | {
        'masks': tf.concat([first['masks'], empty, second['masks']], 0)
    }
    masks = [*masks_1, np.zeros([45, 12], bool), *masks_2]
    np.testing.assert_array_equal(
        crops(joined, 9), reference_crops(masks, joined['view'].numpy(), joined['boxes'].numpy(), 9)
    )


def test_no_instances_and_static_sides():
    begun = instances.begin(instances.choose(scene()[0], tf.zeros([0], tf.int32)))
    assert crops(begun, 5).shape == (0, 5, 5)
    parts = {key: begun[key] for key in ('masks', 'frame', 'view', 'boxes')}
    spec = {key: tf.TensorSpec([None, *part.shape[1:]], part.dtype) for key, part in parts.items() if key != 'masks'}
    spec['masks'] = tf.RaggedTensorSpec([None, None], tf.int32, 1)
    graph = tf.function(lambda parts: instances.mask_crops(**parts, side=5), input_signature=[spec])
    assert graph.get_concrete_function().output_shapes.as_list() == [None, 5, 5]
    assert graph(parts).shape == (0, 5, 5)


def mirror(example, width):
    return instances.move(example, tf.constant([1.0, -1.0]), tf.constant([0.0, float(width)]), example['size'])


def test_mirrored_twice_is_as_before():
    example, masks = scene(40, 40)
    begun = instances.begin(example)
    once = mirror(begun, 40)
    np.testing.assert_array_equal(painted(once, 40, 40), masks[:, :, ::-1])
    turned = begun['boxes'].numpy() * [1, -1, 1, -1] + [0, 40, 0, 40]
    np.testing.assert_array_equal(once['boxes'].numpy()[:, [0, 3, 2, 1]], turned)
    twice = mirror(once, 40)
    for key in ('boxes', 'view', 'area', 'frame', 'classes'):
        np.testing.assert_array_equal(twice[key], begun[key])
    assert twice['masks'].to_list() == begun['masks'].to_list()


def test_views_compose():
    """Two moves are the one that they amount to, exactly where the numbers are whole or halves."""
    begun = instances.begin(scene(64, 64)[0])
    size = tf.constant([1000, 1000])
    first = instances.move(begun, tf.constant([0.5, 0.25]), tf.constant([3.0, -8.0]), size)
    second = instances.move(first, tf.constant([2.0, -4.0]), tf.constant([5.0, 96.0]), size)
    whole = instances.move(begun, tf.constant([1.0, -1.0]), tf.constant([5.5, 16.0]), size)
    np.testing.assert_array_equal(second['view'], [[[1, 0, 5.5], [0, -1, 16]]] * len(second['view']))
    assert len(whole['view']) <= len(second['view'])


def test_instances_outside_the_image_or_thinner_than_a_pixel_are_dropped():
    boxes = [[0, 0, 5, 5], [10, 10, 20, 20], [4.5, 2, 9, 9], [3, 4, 8, 4.9], [0, 0, 40, 40]]
    count = len(boxes)
    example = instances.begin(scene(40, 40, count)[0]) | {'boxes': tf.constant(boxes, tf.float32)}
    # The window from 4 to 12 in both directions, at half the scale: what is left of each has half of its size.
    moved = instances.move(example, tf.constant([2.0, 2.0]), tf.constant([4.0, 4.0]), tf.constant([4, 4]))
    assert moved['classes'].numpy().tolist() == [1, 2, 4]
    np.testing.assert_array_equal(moved['boxes'], [[3, 3, 4, 4], [0.25, 0, 2.5, 2.5], [0, 0, 4, 4]])
    for key in instances.KEYS:
        assert moved[key].shape[0] == 3
    np.testing.assert_array_equal(moved['area'], example['area'].numpy()[[1, 2, 4]] / 4)


@pytest.mark.parametrize('settings', [{'fit': False}, {'fit': True, 'scale_step': 0.0}])
def test_image_and_masks_stay_aligned(settings):
    """The pixels that an instance's mask covers, seen through its view, have the instance's colour."""
    rows, columns = np.mgrid[:60, :80]
    masks = np.stack([(abs(rows - y) < 9) & (abs(columns - x) < 12) for y, x in ((12, 15), (30, 60), (48, 20))])
    image = np.zeros([60, 80, 3], np.uint8)
    for n, mask in enumerate(masks):
        image[mask] = 80 * (n + 1)
    runs = ragged.from_dense(tf.constant(masks))
    boxes, area = ragged.boxes_and_areas(runs, 60)
    example = instances.begin(
        {'image': tf.constant(image), 'boxes': boxes, 'area': area, 'masks': runs, 'classes': tf.range(3)}
        | {'is_crowd': tf.zeros([3], tf.bool)}
    )
    augment = tf.function(scale_crop_flip(ignore_label=255, size=(64, 64), min_scale=0.5, max_scale=2.0, **settings))
    seen = set()
    for i in range(25):
        result = augment(example, tf.constant([7, i]))
        covers = painted(result, 64, 64)
        height, width = result['size'].numpy()
        for n, box, cover in zip(result['classes'].numpy(), result['boxes'].numpy(), covers, strict=True):
            cover[height:] = cover[:, width:] = False
            found = np.argwhere(cover)
            assert (found + 1 > box[:2]).all() and (found < box[2:]).all()  # The box contains the mask, and closely.
            assert (found.min(axis=0) - box[:2] < 1).all() and (box[2:] - found.max(axis=0) - 1 < 1).all()
            assert (box >= 0).all() and box[2] <= height and box[3] <= width
            inner = cover[1:-1, 1:-1] & cover[2:, 1:-1] & cover[:-2, 1:-1] & cover[1:-1, 2:] & cover[1:-1, :-2]
            colors = result['image'].numpy()[1:-1, 1:-1, 0][inner]
            np.testing.assert_allclose(colors, 80 * (n + 1), atol=1e-3)
            seen.add(n)
    assert seen == {0, 1, 2}


def test_a_factor_of_one_fits():
    example = instances.begin(scene(40, 50)[0])
    augment = scale_crop_flip(ignore_label=255, size=(100, 100), min_scale=1.0, max_scale=1.0, flip=False, fit=True)
    result = augment(example, tf.constant([0, 0]))
    assert result['size'].numpy().tolist() == [80, 100] and result['image'].shape == (100, 100, 3)
    np.testing.assert_allclose(result['boxes'], example['boxes'].numpy() * 2)
    np.testing.assert_allclose(result['area'], example['area'].numpy() * 4)
    np.testing.assert_array_equal(result['view'], [[[0.5, 0, 0], [0, 0.5, 0]]] * len(result['view']))
    narrow = scale_crop_flip(ignore_label=255, size=(10, 100), min_scale=1.0, max_scale=1.0, fit=True)
    assert narrow(example, tf.constant([0, 0]))['size'].numpy().tolist() == [10, 13]  # 12.5
    for side in range(31, 60):  # Whatever is rounded on the way, all of the image is used.
        odd = scale_crop_flip(ignore_label=255, size=(side, side), min_scale=1.0, max_scale=1.0, fit=True)
        assert odd(example, tf.constant([0, 0]))['size'].numpy().tolist() == [round(side * 0.8), side]


def test_instances_are_the_same_for_the_same_seed():
    augment = tf.function(scale_crop_flip(ignore_label=255, size=(32, 32), scale_step=0.0, fit=True))
    example = instances.begin(scene()[0])
    first, again, other = (augment(example, tf.constant([3, n])) for n in (1, 1, 2))
    np.testing.assert_array_equal(first['view'], again['view'])
    assert first['view'].shape != other['view'].shape or (first['view'].numpy() != other['view'].numpy()).any()
