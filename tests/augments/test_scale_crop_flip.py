"""Random scale, crop and mirror image."""

import numpy as np
import pytest
import tensorflow as tf

from seg.augments.scale_crop_flip import scale_crop_flip
from seg.errors import UserError
from seg.ops.sizes import fitted_size, rounded
from seg.structures import PAD_PIXEL

IGNORE = 255


def blocks(height=60, width=80):
    """An image whose red tells its label: blocks of 20 x 20 pixels, no two alike."""
    label = (np.arange(height)[:, None] // 20 * (-(-width // 20)) + np.arange(width)[None, :] // 20).astype(np.int32)
    image = np.stack([label * 10.0, np.full(label.shape, 50.0), np.full(label.shape, 90.0)], axis=-1)
    return {'image': tf.constant(image, tf.float32), 'label': tf.constant(label), 'size': tf.constant([height, width])}


def ramp(height=40, width=50):
    """An image whose colours are the row and column that each pixel was at."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing='ij')
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.float32)
    label = (rows * 100 + columns).astype(np.int32)
    return {'image': tf.constant(image), 'label': tf.constant(label), 'size': tf.constant([height, width])}


def made(augment, example, count=20):
    graph = tf.function(augment)
    return [{k: v.numpy() for k, v in graph(example, tf.constant([3, i])).items()} for i in range(count)]


@pytest.mark.parametrize('step', [0.25, 0.0])
def test_image_and_label_stay_aligned_and_padding_is_below_and_right(step):
    example = blocks()
    for result in made(scale_crop_flip(ignore_label=IGNORE, size=(64, 96), scale_step=step), example, 40):
        image, label, (height, width) = result['image'], result['label'], result['size']
        assert image.shape == (64, 96, 3) and label.shape == (64, 96)
        assert (label[:height, :width] != IGNORE).all()
        assert (label[height:] == IGNORE).all() and (label[:, width:] == IGNORE).all()
        np.testing.assert_array_equal(image[height:], np.tile(np.float32(PAD_PIXEL), [64 - height, 96, 1]))
        np.testing.assert_array_equal(image[:, width:], np.tile(np.float32(PAD_PIXEL), [64, 96 - width, 1]))
        agree = np.abs(image[:height, :width, 0] - 10 * label[:height, :width]) < 0.5
        assert agree.mean() > 0.8
        # They differ beside the borders of blocks only.
        inner = np.ones(agree.shape, bool)
        for axis in (0, 1):
            border = np.diff(label[:height, :width], axis=axis) != 0
            for shift in (-1, 0, 1, 2):
                inner &= ~np.roll(np.pad(border, [(0, int(axis == 0)), (0, int(axis == 1))]), shift, axis)
        assert inner.any() and agree[inner].all()


def test_pixels_are_areas_in_image_and_label():
    """Scaled by s, the pixel at i came from (i + 0.5) / s - 0.5, up to the edge of the window."""
    for scale in (0.5, 0.75, 2.0):
        augment = scale_crop_flip(ignore_label=IGNORE, size=(90, 110), min_scale=scale, max_scale=scale, flip=False)
        result = made(augment, ramp(), 1)[0]
        height, width = round(40 * scale), round(50 * scale)
        assert result['size'].tolist() == [height, width]
        rows = np.clip((np.arange(height) + 0.5) * 40 / height - 0.5, 0, 39)
        columns = np.clip((np.arange(width) + 0.5) * 50 / width - 0.5, 0, 49)
        np.testing.assert_allclose(result['image'][:height, :width, 0], np.tile(rows[:, None], [1, width]), atol=1e-3)
        np.testing.assert_allclose(result['image'][:height, :width, 1], np.tile(columns, [height, 1]), atol=1e-3)
        nearest = np.floor((np.arange(height) + 0.5) * 40 / height)[:, None] * 100
        nearest = nearest + np.floor((np.arange(width) + 0.5) * 50 / width)
        np.testing.assert_array_equal(result['label'][:height, :width], nearest)


def test_crops_are_exact_windows_and_reach_every_place():
    example = ramp()
    starts = set()
    for result in made(
        scale_crop_flip(ignore_label=IGNORE, size=(38, 49), min_scale=1, max_scale=1, flip=False), example, 80
    ):
        top, left = result['image'][0, 0, :2].astype(int)
        starts.add((top, left))
        np.testing.assert_array_equal(result['image'], example['image'][top : top + 38, left : left + 49])
        np.testing.assert_array_equal(result['label'], example['label'][top : top + 38, left : left + 49])
        assert result['size'].tolist() == [38, 49]
    assert starts == {(top, left) for top in range(3) for left in range(2)}


def test_half_of_the_images_are_mirrored_and_stay_at_the_top_left():
    example = ramp()
    mirrored = 0
    for result in made(scale_crop_flip(ignore_label=IGNORE, size=(45, 64), min_scale=1, max_scale=1), example, 100):
        assert result['size'].tolist() == [40, 50]
        flipped = result['image'][0, 0, 1] != 0
        mirrored += flipped
        step = -1 if flipped else 1
        np.testing.assert_array_equal(result['image'][:40, :50], example['image'][:, ::step])
        np.testing.assert_array_equal(result['label'][:40, :50], example['label'][:, ::step])
    assert 30 < mirrored < 70


def test_scales():
    def heights(**settings):
        augment = scale_crop_flip(ignore_label=IGNORE, size=(200, 200), **settings)
        return [int(result['size'][0]) for result in made(augment, ramp(), 80)]

    assert set(heights()) == {20, 30, 40, 50, 60, 70, 80}
    assert set(heights(min_scale=0.5, max_scale=0.6, scale_step=0.25)) == {20}
    continuous = heights(min_scale=0.5, max_scale=2.0, scale_step=0)
    assert len(set(continuous)) > 30 and min(continuous) < 24 and max(continuous) > 75 and max(continuous) <= 80


@pytest.mark.parametrize('scale', [0.5, 0.7, 0.75, 1.25, None])
def test_sizes_are_those_of_an_evaluation(scale):
    """With a fixed factor as at evaluation with this factor, and without one as fitted into a canvas."""
    draw, crop = np.random.default_rng(0), (1000, 900)
    sizes = draw.integers(1, 140 if scale else 2500, [1500, 2])
    settings = {'fit': True} if scale is None else {}
    low = scale or 1.0
    augment = scale_crop_flip(ignore_label=IGNORE, size=crop, min_scale=low, max_scale=low, **settings)
    found = [
        tuple(int(side) for side in window)
        for window in tf.data.Dataset.from_tensor_slices(sizes.astype(np.int32)).map(
            lambda valid: augment._sizes(tf.constant(0.3), valid)[2]
        )
    ]
    assert found == [
        fitted_size(tuple(map(int, size)), crop)
        if scale is None
        else tuple(max(1, int(rounded(int(side) * scale))) for side in size)
        for size in sizes
    ]


def test_scaling_below_one_half_is_smoothed():
    checkers = np.indices([64, 64]).sum(axis=0)[..., None] % 2 * np.full(3, 200.0)
    example = {'image': tf.constant(checkers, tf.float32), 'size': tf.constant([64, 64])}
    augment = scale_crop_flip(ignore_label=IGNORE, size=(16, 16), min_scale=0.25, max_scale=0.25)
    result = made(augment, example, 1)[0]
    assert 'label' not in result
    np.testing.assert_allclose(result['image'][1:-1, 1:-1], 100, atol=5)


def test_only_the_valid_region_is_used():
    example = ramp()
    example['size'] = tf.constant([10, 20])
    for result in made(scale_crop_flip(ignore_label=IGNORE, size=(64, 64)), example, 20):
        height, width = result['size']
        assert result['image'][:height, :width, 0].max() < 10 and result['image'][:height, :width, 1].max() < 20


def test_the_seed_decides_and_other_keys_pass():
    example = {**blocks(), 'index': tf.constant(5)}
    augment = scale_crop_flip(ignore_label=IGNORE, size=(32, 32))
    results = made(augment, example, 10)
    for i, result in enumerate(results):
        again = augment(example, tf.constant([3, i]))
        np.testing.assert_allclose(result['image'], again['image'], atol=1e-4)
        np.testing.assert_array_equal(result['label'], again['label'])
        assert result['index'] == 5
    assert len({result['label'].tobytes() for result in results}) > 7


def test_shapes_are_static_for_images_of_any_size():
    spec = {
        'image': tf.TensorSpec([None, None, 3]),
        'label': tf.TensorSpec([None, None], tf.int32),
        'size': tf.TensorSpec([2], tf.int32),
    }
    augment = tf.function(scale_crop_flip(ignore_label=IGNORE, size=(33, 65)))
    outputs = augment.get_concrete_function(spec, tf.TensorSpec([2], tf.int32)).structured_outputs
    assert (
        outputs['image'].shape == (33, 65, 3) and outputs['label'].shape == (33, 65) and outputs['size'].shape == (2,)
    )
    tiny = {'image': tf.zeros([1, 1, 3]), 'label': tf.zeros([1, 1], tf.int32), 'size': tf.constant([1, 1])}
    assert min(augment(tiny, tf.constant([0, 0]))['size'].numpy()) >= 1


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'size': 513}, r'scale_crop_flip.size = 513: expected \(height, width\)'),
        ({'size': (0, 5)}, r'scale_crop_flip.size = \(0, 5\)'),
        ({'min_scale': 0}, r'scale_crop_flip.min_scale = 0'),
        ({'min_scale': 3.0}, r'min_scale = 3.0, augments.scale_crop_flip.max_scale = 2.0'),
        ({'max_scale': 'large'}, r"augments.scale_crop_flip.max_scale = 'large'"),
        ({'scale_step': -1}, r'augments.scale_crop_flip.scale_step = -1'),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        scale_crop_flip(ignore_label=IGNORE, **settings)
