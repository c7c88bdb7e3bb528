"""Images as Python programs have them: what is taken, and what is said about everything else."""

import re

import numpy as np
import pytest
from PIL import Image

from seg.errors import UserError
from seg.serving.pixels import pixels
from tests.prediction import fakes

IMAGE = fakes.noise(6, 8)


class Tensor:
    """What torch's and TensorFlow's tensors have in common."""

    def __array__(self, dtype=None, copy=None):
        return IMAGE


def test_the_same_image_in_every_form(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(IMAGE).save(path)
    bgr = np.ascontiguousarray(IMAGE[..., ::-1])
    for form in (str(path), path, Image.open(path), Image.fromarray(IMAGE), IMAGE, bgr[..., ::-1], Tensor()):
        found = pixels(form, 'image')
        assert found.dtype == np.uint8 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, IMAGE)


def test_greyscale_and_orientation(tmp_path):
    grey = np.repeat(IMAGE[..., :1], 3, -1)
    for form in (IMAGE[..., 0], IMAGE[..., :1], Image.fromarray(IMAGE[..., 0])):
        np.testing.assert_array_equal(pixels(form, 'image'), grey)
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned clockwise to be upright.
    Image.fromarray(IMAGE).save(tmp_path / 'a.png', exif=exif)
    opened = Image.open(tmp_path / 'a.png')
    for form in (tmp_path / 'a.png', opened):
        np.testing.assert_array_equal(pixels(form, 'image'), np.rot90(IMAGE, -1))
    assert opened.size == (8, 6)  # It stays as it is.


@pytest.mark.parametrize(
    ('image', 'named'),
    [
        (IMAGE / np.float32(255), r'float32 \[6, 8, 3\].*0 to 0.9.*255 \* image'),
        (IMAGE.astype(float), r'float64.* image\.round\(\)'),
        (IMAGE / 127.5 - 1, r'float64.*-1 to .*normalises'),
        (np.full((6, 8, 3), np.nan), 'nan to nan'),
        (IMAGE.astype(np.int64), r'int64.*image\.astype'),
        (IMAGE.astype(np.uint16) * 257, r'uint16.*image // 257'),
        (IMAGE > 9, 'bool'),
        (IMAGE.astype(str), 'no brightness'),
        (IMAGE.transpose(2, 0, 1), r'\[3, 6, 8\].*transpose\(1, 2, 0\)'),
        (np.zeros((6, 8, 4), np.uint8), r'\[6, 8, 4\].*alpha'),
        (np.zeros((6, 8, 7), np.uint8), r'\[6, 8, 7\].*three channels'),
        (IMAGE[None], r'\[1, 6, 8, 3\].*list'),
        (IMAGE[0, 0], r'\[3\].*one image'),
        (IMAGE[:0], r'\[0, 8, 3\].*no pixels'),
        (7, 'is 7;.*expected an array'),
        (None, 'is None'),
        (b'bytes', 'is b'),
        ('missing/photo.jpg', r"'missing/photo\.jpg': the file does not exist"),
        ('.', r"'\.' is a folder"),
        (Image.fromarray(np.zeros((2, 2), np.float32)), '32-bit'),
    ],
)
def test_what_is_no_image(image, named):
    with pytest.raises(UserError, match=re.compile(r'images\[3\].*' + named, re.DOTALL)):
        pixels(image, 'images[3]')
