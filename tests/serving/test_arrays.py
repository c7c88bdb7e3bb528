"""Predictions as arrays: their values, sizes and pictures, and how often the model is traced."""

import io
import types

import numpy as np
import pytest
from PIL import Image

from seg.errors import UserError
from seg.prediction.settings import PredictSettings
from seg.serving.arrays import ImagePredictor
from tests.prediction import fakes
from tests.serving import servers


def loaded(predictor=None, batch=None, **settings):
    return ImagePredictor(servers.model(predictor, batch), PredictSettings(**settings))


def test_a_class_map(tmp_path):
    image = fakes.noise(20, 30)
    found = loaded()(image)
    expected = fakes.colours(image)
    np.testing.assert_array_equal(found.classes, expected.argmax(-1))
    np.testing.assert_allclose(found.confidence, expected.max(-1))
    assert found.classes.dtype == np.uint8 and found.confidence.dtype == np.float32
    assert found.class_names == fakes.INFO.class_names and found.image is not image
    drawn = found.overlay()
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    colors = np.array(fakes.COLORS)[found.classes]
    np.testing.assert_allclose(drawn, (image + colors) / 2, atol=1)
    np.testing.assert_array_equal(found.image, image)  # Drawing changes a copy.
    assert 'ClassMap of 30 x 20' in repr(found) and 'red' in repr(found)
    assert Image.open(io.BytesIO(found._repr_jpeg_())).size == (30, 20)


def test_instances():
    image = fakes.noise(20, 30)
    found = loaded(servers.Detector())(image)
    np.testing.assert_allclose(found.boxes, [[2, 4, 10, 20], [0, 0, 6, 6]])
    np.testing.assert_allclose(found.scores, [0.9, 0.4])
    assert found.classes.tolist() == [0, 2]
    expected = np.zeros((2, 20, 30), bool)
    expected[0, 2:10, 4:20] = expected[1, :6, :6] = True
    np.testing.assert_array_equal(found.masks, expected)
    drawn, all_drawn = found.overlay(), found.overlay(min_score=0.3)
    assert (drawn[3, 5] != image[3, 5]).any() and (drawn[1, 1] == image[1, 1]).all()
    assert (all_drawn[1, 1] != image[1, 1]).any()
    np.testing.assert_array_equal(found.image, image)
    assert 'red 0.90, blue 0.40' in repr(found)


def test_no_instances():
    detector = servers.Detector()
    nothing = {'boxes': np.zeros((9, 3, 4)), 'scores': np.zeros((9, 3)), 'classes': np.full((9, 3), -1)}
    call = lambda batch: fakes.Predictions(nothing | {'masks': np.zeros((9, 3, 4, 4))})  # noqa: E731
    detector.__class__ = type('Nothing', (servers.Detector,), {'__call__': lambda self, batch: call(batch)})
    found = loaded(detector)(fakes.noise(5, 6))
    assert found.masks.shape == (0, 5, 6) and found.boxes.shape == (0, 4) and 'nothing' in repr(found)


def test_a_list_of_images_of_any_sizes(tmp_path):
    """Each prediction is that of the image alone; batches have one size, of four images."""
    predictor = servers.Predictor()
    model = loaded(predictor)
    images = [fakes.noise(10 + i, 40 - i, seed=i) for i in range(5)] + [fakes.noise(70, 90)]
    Image.fromarray(images[1]).save(tmp_path / 'b.png')
    found = model([images[0], tmp_path / 'b.png', *images[2:]])
    assert [len(sizes) for sizes in predictor.batches] == [4, 4]
    for image, result in zip(images, found, strict=True):
        alone = model(image)
        assert result.classes.shape == image.shape[:2]
        np.testing.assert_array_equal(result.classes, alone.classes)
        np.testing.assert_array_equal(result.confidence, alone.confidence)
    assert {len(sizes) for sizes in predictor.batches[2:]} == {1}
    assert isinstance(model([images[0]]), list)


def test_large_images_in_tiles():
    predictor = servers.Predictor()
    image = fakes.noise(50, 100)
    found = loaded(predictor, large_pictures='tile')([image, image[:20, :20]])
    np.testing.assert_array_equal(found[0].classes, fakes.colours(image).argmax(-1))
    np.testing.assert_array_equal(found[1].classes, fakes.colours(image[:20, :20]).argmax(-1))
    assert {len(sizes) for sizes in predictor.batches} == {4}


def test_batches_of_a_file_and_of_several_devices():
    """A file with a fixed batch gets no other; several devices divide each."""
    fixed, several = servers.Predictor(), servers.Predictor()
    model = loaded(fixed, batch=2)
    model(fakes.noise(4, 5)), model([fakes.noise(4, 5)] * 3)
    assert [len(sizes) for sizes in fixed.batches] == [2, 2, 2]
    several.replicas = 3
    model = loaded(several)
    model(fakes.noise(4, 5)), model([fakes.noise(4, 5)] * 4)
    assert [len(sizes) for sizes in several.batches] == [3, 6]


def test_what_cannot_be(tmp_path):
    model = loaded()
    with pytest.raises(UserError, match='empty list'):
        model([])
    with pytest.raises(UserError, match=r'images\[1\].*float64'):
        model([fakes.noise(4, 5), np.zeros((4, 5, 3))])
    Image.fromarray(fakes.noise(100, 100)).save(tmp_path / 'a.png')
    with pytest.raises(UserError, match=r'a\.png.*predict\.max_megapixels'):
        loaded(max_megapixels=0.001)(tmp_path / 'a.png')
    with pytest.raises(UserError, match='exported file'):
        _ = model.model
    other = types.SimpleNamespace(path='runs/x', writer=lambda *_: object())
    with pytest.raises(UserError, match='runs/x.*--mode=predict'):
        ImagePredictor(other, PredictSettings())
