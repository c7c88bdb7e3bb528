"""ImageSummary files of every kind, and everything that can be wrong with one."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from seg.prediction import reading

LIMIT = 50  # Megapixels, where a test says nothing else.


def gradient(height=40, width=60):
    """Smooth in x and y, and different in every channel."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)]
    return np.stack(channels, -1).astype(np.uint8)


@pytest.fixture(autouse=True)
def limited():
    with reading.limited(LIMIT):
        yield


@pytest.fixture
def save(tmp_path):
    def save(image, name, **settings):
        path = str(tmp_path / name)
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **settings)
        return path

    return save


def reason(path):
    with pytest.raises(reading.ImageError) as caught:
        reading.read_image(str(path))
    text = str(caught.value)
    assert text and '\n' not in text and 'Traceback' not in text and not text.endswith('.')
    return text


def assert_reads(path, expected, atol=0):
    found = reading.read_image(path)
    assert found.dtype == np.uint8 and found.flags.writeable and found.shape == (*np.shape(expected)[:2], 3)
    np.testing.assert_allclose(found.astype(int), expected, atol=atol)
    assert reading.read_size(path) == found.shape[:2]


@pytest.mark.parametrize('name', ['a.png', 'a.bmp', 'a.tif', 'a.ppm', 'a.webp', 'a.with.wrong_ending'])
def test_lossless_rgb(save, name):
    settings = {'lossless': True} if name.endswith('webp') else {}
    assert_reads(save(gradient(), name, format='PNG' if 'wrong' in name else None, **settings), gradient())


@pytest.mark.parametrize('settings', [{}, {'progressive': True}, {'subsampling': 0}])
def test_jpeg(save, settings):
    assert_reads(save(gradient(), 'a.jpg', quality=97, **settings), gradient(), atol=12)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.tif', 'a.bmp', 'a.gif', 'a.pgm'])
def test_grey(save, name):
    grey = gradient()[..., 0]
    assert_reads(save(grey, name), np.repeat(grey[..., None], 3, -1), atol=2 if name == 'a.jpg' else 0)


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_grey_of_16_bits_is_scaled(save, name):
    """65535 is white: Pillow's own conversion would clip everything above 255."""
    grey = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    expected = np.round(grey / 257)
    assert expected.max() == 255 and len(np.unique(expected)) == 256
    assert_reads(save(grey, name), np.repeat(expected[..., None], 3, -1))


def test_grey_of_16_bits_big_endian_and_turned(save):
    grey = (np.arange(2400).reshape(40, 60) * 20).astype('>u2')
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(grey.astype(np.uint16)), 'a.png', exif=exif)
    expected = np.rot90(np.round(grey / 257), -1)
    assert_reads_turned(path, np.repeat(expected[..., None], 3, -1), atol=0)
    stored = save(Image.frombytes('I;16B', (60, 40), grey.tobytes()), 'a.tif')
    assert_reads(stored, np.repeat(np.round(grey / 257)[..., None], 3, -1))


def test_cmyk(save):
    """As Photoshop writes them, inverted, and as others do."""
    image = Image.fromarray(gradient()).convert('CMYK')
    assert_reads(save(image, 'a.jpg', quality=97), gradient(), atol=14)
    assert_reads(save(image, 'a.tif'), gradient(), atol=1)


def test_palette(save):
    image = Image.fromarray(gradient()).quantize(64)
    expected = np.asarray(image.convert('RGB'))
    for name in ('a.png', 'a.gif', 'a.bmp'):
        assert_reads(save(image, name), expected)
    assert_reads(save(image, 'b.png', transparency=3), expected)


def test_alpha_is_dropped(save):
    alpha = np.full((40, 60, 1), 128, np.uint8)
    alpha[:10] = 0
    assert_reads(save(np.concatenate([gradient(), alpha], -1), 'a.png'), gradient())
    grey = gradient()[..., :1]
    assert_reads(save(np.concatenate([grey, alpha], -1), 'b.png'), np.repeat(grey, 3, -1))


def test_bits(save):
    image = Image.fromarray(gradient()[..., 0] > 99)
    assert image.mode == '1'
    assert_reads(save(image, 'a.png'), np.repeat(255 * (gradient()[..., :1] > 99), 3, -1))


def test_the_first_frame_counts(save):
    frames = [Image.fromarray(np.full((40, 60), value, np.uint8)) for value in (10, 200)]
    for name in ('a.gif', 'a.tif', 'a.webp'):
        path = save(frames[0].convert('RGB'), name, save_all=True, append_images=[frames[1].convert('RGB')])
        assert reading.read_image(path).max() < 30


def assert_reads_turned(path, expected, atol=30):
    found = reading.read_image(path)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(int), expected, atol=atol)


# EXIF's orientation, and how the stored image has to be turned.
TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize('orientation', TURNS)
@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp', 'a.tif'])
def test_orientation(save, orientation, name):
    """As a person sees it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {'quality': 97} if name == 'a.jpg' else {'lossless': True} if name == 'a.webp' else {}
    path = save(gradient(), name, exif=exif, **settings)
    assert_reads_turned(path, TURNS[orientation](gradient()), atol=12 if name == 'a.jpg' else 0)


@pytest.mark.parametrize('exif', [b'Exif\0\0nonsense', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0'])
def test_damaged_exif_is_ignored(save, exif):
    assert reading.read_image(save(gradient(), 'a.jpg', exif=exif)).shape == (40, 60, 3)


# What is wrong with a file.


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.bmp', 'a.tif', 'a.webp', 'a.gif', 'a.ppm'])
@pytest.mark.parametrize('share', [0.02, 0.3, 0.7, 0.95])
def test_cut_off(save, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path = save(noise, name)
    with open(path, 'r+b') as file:
        file.truncate(int(os.path.getsize(path) * share))
    reason(path)


def test_reasons(tmp_path, save):
    (tmp_path / 'empty.jpg').touch()
    assert reason(tmp_path / 'empty.jpg') == 'the file is empty'
    (tmp_path / 'text.jpg').write_text('not an image')
    assert 'known format' in reason(tmp_path / 'text.jpg')
    assert 'not exist' in reason(tmp_path / 'gone.jpg')
    assert 'regular file' in reason(tmp_path)
    path = save(gradient(), 'cut.jpg')
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)
    assert reason(path) == 'the file is truncated'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_no_permission(save):
    path = save(gradient(), 'a.jpg')
    os.chmod(path, 0)
    assert 'permission' in reason(path)


def test_values_without_a_range(save):
    for image in (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int32)):
        assert '8 or 16 bits' in reason(save(image, 'a.tif'))


def test_too_many_pixels(save):
    path = save(Image.new('1', (3000, 2000)), 'a.png')
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with reading.limited(6):
            assert reading.read_image(path).shape == (2000, 3000, 3)  # Without a warning of Pillow's.
        with reading.limited(5.9):
            assert all(slot in reason(path) for slot in ('5.9 million pixels', 'predict.max_megapixels'))
            with pytest.raises(reading.ImageError, match='5.9 million'):
                reading.read_size(path)
    assert before == Image.MAX_IMAGE_PIXELS


def test_no_other_program_is_run(tmp_path, monkeypatch):
    """PostScript is a program."""
    monkeypatch.setattr('subprocess.Popen', lambda *args, **kwargs: pytest.fail('a program was started'))
    path = tmp_path / 'a.jpg'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n')
    assert 'known format' in reason(path)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.bmp', 'a.tif', 'a.webp', 'a.gif', 'a.ppm'])
def test_damage_anywhere(save, name):
    """An image or a reason, whatever the bytes: Pillow's decoders raise many kinds of errors."""
    path = save(gradient(20, 30), name)
    with open(path, 'rb') as file:
        whole = bytearray(file.read())
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for position in random.integers(0, min(len(whole), 400), random.integers(1, 6)):
            damaged[position] = random.integers(256)
        with open(path, 'wb') as file:
            file.write(damaged)
        try:
            image = reading.read_image(path)
        except reading.ImageError as error:
            assert str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3
