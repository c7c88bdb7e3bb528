"""EXIF orientation: found in the graph as by the reader of headers, and applied as Pillow applies it."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from seg.datasets import image_files, orientation
from seg.errors import UserError

STRING = [tf.TensorSpec([], tf.string)]
of_jpeg = tf.function(orientation.of_jpeg, input_signature=STRING)
decode = tf.function(lambda contents: image_files.decode_image(contents, upright=True), input_signature=STRING)


def photo(turn, **options):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x010F], exif[0x0112] = 'maker', turn
    pixels = np.random.default_rng(0).integers(0, 256, [3, 4, 3], dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 30)).save(stream, 'JPEG', exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize('turn', range(1, 9))
def test_images_are_turned_as_by_pillow(turn):
    contents = photo(turn)
    assert of_jpeg(contents) == turn == image_files.parse_header(contents).orientation
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))).astype(int)
    found = decode(contents).numpy().astype(int)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 1
    assert orientation.upright((30, 40), turn) == expected.shape[:2]


def test_little_endian_and_other_blocks_before():
    tiff = b'II*\0' + struct.pack('<IH', 8, 1) + struct.pack('<HHIHH', 0x0112, 3, 1, 6, 0) + bytes(4)
    block = b'Exif\0\0' + tiff
    segment = b'\xff\xe1' + struct.pack('>H', 2 + len(block)) + block
    contents = photo(1)
    contents = contents[:2] + b'\xff\xff\xfe\0\5abc' + segment + contents[2:]
    assert of_jpeg(contents) == 6 == image_files.parse_header(contents).orientation


def test_files_without_one():
    stream = io.BytesIO()
    Image.new('RGB', (4, 3)).save(stream, 'PNG')
    for contents in (b'', b'\xff\xd8', photo(1)[:30], stream.getvalue()):
        assert of_jpeg(contents) == 1
    assert decode(stream.getvalue()).shape == (3, 4, 3)


def test_damaged_blocks_are_read_as_in_headers():
    sound, random = photo(6), np.random.default_rng(0)
    compared = 0
    for _ in range(300):
        damaged = bytearray(sound)
        for place in random.integers(2, 90, 3):
            damaged[place] = random.integers(0, 256)
        found = int(of_jpeg(bytes(damaged)))
        assert 1 <= found <= 8
        try:
            expected = image_files.parse_header(bytes(damaged)).orientation
        except (ValueError, EOFError):
            continue
        compared += 1
        assert found == expected
    assert compared > 50


def test_the_setting():
    assert orientation.check('datasets.mine', 'apply') and not orientation.check('datasets.mine', 'ignore')
    with pytest.raises(UserError, match="datasets.mine.orientation = 'aply'"):
        orientation.check('datasets.mine', 'aply')
