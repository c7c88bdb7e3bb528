"""Label files give the ids that were stored, whatever the palette; headers are read without decoding."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets import image_files

# One trace for all files, as in a pipeline.
decode_label = tf.function(image_files.decode_label, input_signature=[tf.TensorSpec([], tf.string)])
decode_image = tf.function(image_files.decode_image, input_signature=[tf.TensorSpec([], tf.string)])


def encoded(image, form='PNG', **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def ids(bits, shape=(13, 21)):
    return np.random.default_rng(bits).integers(0, 2**bits, shape)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('palette', ['rainbow', 'grey', 'one colour'])
@pytest.mark.parametrize('options', [{}, {'transparency': 0}, {'icc_profile': b'x' * 99, 'dpi': (72, 72)}])
def test_palette_indices_are_exact(bits, palette, options):
    stored = ids(bits)
    image = Image.fromarray(stored.astype(np.uint8)).convert('L')
    image = Image.frombytes('P', image.size, image.tobytes())
    colors = {
        'rainbow': np.random.default_rng(0).integers(0, 256, 768).tolist(),
        'grey': np.repeat(np.arange(256) // 2, 3).tolist(),  # Each grey level twice.
        'one colour': [7, 7, 7] * 256,
    }
    image.putpalette(colors[palette][: 3 * 2**bits])
    contents = encoded(image, bits=bits, **options)
    assert contents[24:26] == bytes([bits, 3])
    np.testing.assert_array_equal(decode_label(contents), stored)


def test_greyscale_samples_are_exact():
    stored = ids(8)
    np.testing.assert_array_equal(decode_label(encoded(Image.fromarray(stored.astype(np.uint8)))), stored)
    stored = ids(16)
    np.testing.assert_array_equal(decode_label(encoded(Image.fromarray(stored.astype(np.uint16)))), stored)
    stored = ids(1)
    contents = encoded(Image.fromarray(stored.astype(bool)))
    assert contents[24:26] == bytes([1, 0])
    np.testing.assert_array_equal(decode_label(contents), stored)


def test_a_damaged_or_foreign_label_raises():
    sound = encoded(Image.fromarray(ids(8).astype(np.uint8)))
    assert decode_label(sound).dtype == tf.int32
    flipped = bytearray(sound)
    flipped[60] ^= 255
    color = encoded(Image.new('RGB', (4, 4)))
    jpeg = encoded(Image.new('L', (4, 4)), 'JPEG')
    for broken in (b'', sound[:20], sound[:40], sound[: len(sound) // 2], bytes(flipped), color, jpeg):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_label(broken)


def test_images_of_each_kind():
    pixels = np.random.default_rng(0).integers(0, 256, [9, 14, 3], dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels))), pixels)
    jpeg = encoded(Image.fromarray(pixels), 'JPEG', quality=95)
    np.testing.assert_allclose(
        decode_image(jpeg).numpy().astype(int), np.array(Image.open(io.BytesIO(jpeg))).astype(int), atol=1
    )
    grey = encoded(Image.fromarray(pixels[..., 0]), 'JPEG')
    assert decode_image(grey).shape == (9, 14, 3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(jpeg[:-40])
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode_image(encoded(Image.fromarray(pixels), 'JPEG', exif=turned)).shape == (9, 14, 3)


def test_headers(tmp_path):
    def header(contents):
        path = tmp_path / 'file'
        path.write_bytes(contents)
        return image_files.read_header(str(path))

    wide = Image.new('RGB', (30, 20))
    assert header(encoded(wide)) == ('png', 20, 30, 2, 1)
    assert header(encoded(wide.convert('P'))) == ('png', 20, 30, 3, 1)
    assert header(encoded(wide, 'JPEG')) == ('jpeg', 20, 30, None, 1)
    assert header(encoded(wide, 'JPEG', progressive=True)) == ('jpeg', 20, 30, None, 1)
    turned = Image.Exif()
    turned[0x0112] = 8
    assert header(encoded(wide, 'JPEG', exif=turned)) == ('jpeg', 20, 30, None, 8)
    # The size lies behind a long colour profile.
    assert header(encoded(wide, 'JPEG', icc_profile=b'x' * 40000)) == ('jpeg', 20, 30, None, 1)
    for broken, message in {
        b'': 'empty',
        encoded(wide)[:20]: 'ends within its header, after 20 bytes',
        encoded(wide, 'JPEG')[:30]: 'ends within its header',
        encoded(wide, 'GIF'): 'JPEG or PNG file: it is a GIF',
        b'<html>' * 9: 'JPEG or PNG',
    }.items():
        with pytest.raises(ValueError, match=message):
            header(broken)
