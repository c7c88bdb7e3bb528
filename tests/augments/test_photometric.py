"""Changes of brightness, contrast, saturation and hue."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from seg.augments.photometric import photometric
from seg.errors import UserError
from seg.structures import PAD_PIXEL

OFF = {'brightness': 0, 'contrast': 0, 'saturation': 0, 'hue': 0, 'probability': 1}


def example(size=(10, 12), frame=(16, 16), low=80, high=170):
    image = np.tile(np.float32(PAD_PIXEL), [*frame, 1])
    image[: size[0], : size[1]] = np.random.default_rng(0).uniform(low, high, [*size, 3])
    return {'image': tf.constant(image), 'label': tf.zeros(frame, tf.int32), 'size': tf.constant(size)}


def results(count=40, given=None, **settings):
    given = given or example()
    augment = photometric(**{**OFF, **settings})
    return given['image'].numpy(), [augment(given, tf.constant([1, i]))['image'].numpy() for i in range(count)]


def test_padding_labels_and_shapes_stay_and_values_are_clipped():
    given = example(low=0, high=255)
    augment = photometric(brightness=0.5, contrast=1, saturation=1, hue=0.5, probability=1)
    for i in range(10):
        made = augment(given, tf.constant([7, i]))
        assert made['image'].shape == (16, 16, 3) and made['label'] is given['label']
        assert made['image'].numpy().min() >= 0 and made['image'].numpy().max() <= 255
        inside = np.zeros([16, 16], bool)
        inside[:10, :12] = True
        np.testing.assert_array_equal(
            made['image'].numpy()[~inside], np.tile(np.float32(PAD_PIXEL), [16 * 16 - 120, 1])
        )
        assert np.abs(made['image'].numpy() - given['image'].numpy())[inside].max() > 1


def test_the_same_seed_gives_the_same_result_in_eager_and_graph():
    given, augment = example(), photometric(probability=1)
    eager = augment(given, tf.constant([1, 2]))['image'].numpy()
    graph = tf.function(augment)(given, tf.constant([1, 2]))['image'].numpy()
    np.testing.assert_allclose(eager, graph, atol=1e-4)
    np.testing.assert_array_equal(eager, photometric(probability=1)(given, tf.constant([1, 2]))['image'])
    assert np.abs(eager - augment(given, tf.constant([1, 3]))['image'].numpy()).max() > 1


def test_brightness_adds_up_to_its_range():
    image, made = results(brightness=0.1)
    shifts = [(new - image)[:10, :12] for new in made]
    for shift in shifts:
        np.testing.assert_allclose(shift, shift.mean(), atol=1e-3)
    means = [shift.mean() for shift in shifts]
    assert -25.5 <= min(means) < -15 and 15 < max(means) <= 25.5


def test_contrast_scales_around_the_mean_grey_of_the_valid_region():
    image, made = results(contrast=0.4)
    inside = image[:10, :12]
    grey = (inside @ np.array([0.299, 0.587, 0.114])).mean()
    factors = []
    for new in made:
        ratio = (new[:10, :12] - grey) / np.where(abs(inside - grey) > 5, inside - grey, np.nan)
        np.testing.assert_allclose(ratio[~np.isnan(ratio)], np.nanmean(ratio), atol=1e-2)
        factors.append(np.nanmean(ratio))
    assert 0.6 <= min(factors) < 0.75 and 1.25 < max(factors) <= 1.4


def test_saturation_leaves_grey_values_and_scales_the_distance_from_grey():
    image, made = results(saturation=0.5)
    weights = np.array([0.299, 0.587, 0.114])
    grey = (image[:10, :12] @ weights)[..., None]
    factors = []
    for new in made:
        np.testing.assert_allclose((new[:10, :12] @ weights)[..., None], grey, atol=0.1)
        factors.append(np.linalg.norm(new[:10, :12] - grey) / np.linalg.norm(image[:10, :12] - grey))
    assert 0.5 <= min(factors) < 0.7 and 1.3 < max(factors) <= 1.501


def test_hue_turns_colours_and_leaves_grey():
    grey = {'image': tf.fill([4, 4, 3], 99.0), 'size': tf.constant([4, 4])}
    for new in results(5, grey, hue=0.2)[1]:
        np.testing.assert_allclose(new, 99.0, atol=0.1)
    red = {'image': tf.tile(tf.constant([180.0, 100.0, 100.0]), [16])}
    red = {'image': tf.reshape(red['image'], [4, 4, 3]), 'size': tf.constant([4, 4])}
    hues = [colorsys.rgb_to_hsv(*new[0, 0] / 255)[0] for new in results(40, red, hue=0.1)[1]]
    turned = [(hue + 0.5) % 1 - 0.5 for hue in hues]
    assert min(turned) < -0.05 and max(turned) > 0.05 and max(map(abs, turned)) < 0.15


def test_probability():
    image, made = results(100, brightness=0.5, probability=0.3)
    changed = sum(np.abs(new - image).max() > 0.01 for new in made)
    assert 15 < changed < 45
    image, made = results(5, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, probability=0)
    for new in made:
        np.testing.assert_allclose(new, image, atol=1e-3)


@pytest.mark.parametrize(
    ('name', 'value', 'most'),
    [
        ('brightness', -0.1, '1'),
        ('contrast', 1.5, '1'),
        ('saturation', 2, '1'),
        ('hue', 0.6, '0.5'),
        ('probability', 2, '1'),
    ],
)
def test_settings_out_of_range_are_refused(name, value, most):
    with pytest.raises(UserError, match=rf'augments.photometric.{name} = {value}: .*{most}\.'):
        photometric(**{name: value})
