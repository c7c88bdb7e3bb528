"""Reading image and label files: headers in Python, pixels in TensorFlow graphs."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import tensorflow as tf

from seg.datasets import orientation
from seg.files import irregular

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_GREY, _PNG_PALETTE = 0, 3
PNG_COLOR_TYPES = {0: 'greyscale', 2: 'RGB', 3: 'palette', 4: 'greyscale with alpha', 6: 'RGBA'}


class ImageHeader(NamedTuple):
    """The header of an image file.

    Attributes:
      format: 'jpeg' or 'png'.
      height: in stored pixels.
      width: in stored pixels.
      color_type: PNG's colour type (a key of `PNG_COLOR_TYPES`); None for JPEG.
      orientation: EXIF orientation, 1 (upright) to 8; 1 if the file has none.
    """

    format: str
    height: int
    width: int
    color_type: int | None = None
    orientation: int = 1


def read_header(path: str) -> ImageHeader:
    """Reads the header of a JPEG or PNG file; the whole file only if the header is long.

    Raises:
      ValueError: if it is neither, ends within the header, or is not a regular file; the message says what was found.
    """
    if kind := irregular(path):
        raise ValueError(f'it is {kind}, not a file')
    with tf.io.gfile.GFile(path, 'rb') as file:
        head = file.read(16384)
        try:
            return parse_header(head)
        except EOFError:  # A long EXIF block or colour profile comes before the size.
            head += file.read()
    try:
        return parse_header(head)
    except EOFError:
        raise ValueError(f'the file ends within its header, after {len(head)} bytes') from None


def parse_header(head: bytes) -> ImageHeader:
    """Parses the first bytes of a JPEG or PNG file.

    Raises:
      EOFError: if more bytes are needed.
      ValueError: if it is neither format.
    """
    if head.startswith(_PNG_SIGNATURE):
        if len(head) < 33:
            raise EOFError
        width, height, _, color_type = struct.unpack('>IIBB', head[16:26])
        return ImageHeader('png', height, width, color_type)
    if head.startswith(b'\xff\xd8'):
        return _parse_jpeg(head)
    if not head:
        raise ValueError('the file is empty')
    known = {b'GIF8': 'a GIF', b'BM': 'a BMP', b'II*\0': 'a TIFF', b'MM\0*': 'a TIFF', b'RIFF': 'a WebP'}
    found = next((name for magic, name in known.items() if head.startswith(magic)), 'not a known image format')
    raise ValueError(f'its first bytes are not those of a JPEG or PNG file: it is {found}')


def _parse_jpeg(head: bytes) -> ImageHeader:
    position, turn = 2, 1
    while True:
        if position + 4 > len(head):
            raise EOFError
        if head[position] != 0xFF:
            raise ValueError(f'the JPEG header is damaged at byte {position}')
        marker = head[position + 1]
        if marker == 0xFF:  # A fill byte.
            position += 1
            continue
        (length,) = struct.unpack('>H', head[position + 2 : position + 4])
        body = head[position + 4 : position + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # Start of frame, of any coding.
            if len(body) < 5:
                raise EOFError
            height, width = struct.unpack('>HH', body[1:5])
            return ImageHeader('jpeg', height, width, None, turn)
        if marker == 0xE1 and body.startswith(b'Exif\0\0') and turn == 1:
            turn = _exif_orientation(body[6:])
        position += 2 + length


def _exif_orientation(tiff: bytes) -> int:
    order = {b'II': '<', b'MM': '>'}.get(tiff[:2])
    try:
        (directory,) = struct.unpack_from(order + 'I', tiff, 4)
        (entries,) = struct.unpack_from(order + 'H', tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + 'HHIH', tiff, directory + 2 + 12 * entry)
            if tag == 0x0112 and 1 <= value <= 8:
                return value
    except (struct.error, TypeError):  # An image with damaged EXIF is usable.
        pass
    return 1


def decode_image(contents: tf.Tensor, upright: bool = False) -> tf.Tensor:
    """Decodes a JPEG or PNG image, as stored or turned upright.

    Args:
      contents: scalar string, the bytes of the file.
      upright: whether the EXIF orientation of a JPEG file is applied (one of a PNG file never is).

    Returns:
      uint8 [H, W, 3]; grey images are repeated over the channels, alpha is dropped.

    Raises:
      tf.errors.InvalidArgumentError: if the file is damaged or incomplete.
    """

    def jpeg():
        # The decoder's default DCT is fast, but its errors are a few grey levels.
        image = tf.io.decode_jpeg(contents, channels=3, dct_method='INTEGER_ACCURATE')
        return orientation.turned(image, orientation.of_jpeg(contents)) if upright else image

    image = tf.cond(tf.io.is_jpeg(contents), jpeg, lambda: tf.io.decode_png(contents, channels=3))
    return tf.ensure_shape(image, [None, None, 3])


def decode_label(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a label file: a PNG whose samples are class ids, in greyscale or as indices into a palette.

    TensorFlow's decoder returns a palette PNG's colours, which are ambiguous if two entries share a colour. But a
    palette PNG stores its indices exactly as a greyscale PNG stores its samples. So the bytes are changed to greyscale
    before decoding: the colour type and the header's checksum are replaced, and the chunks between header and pixels,
    such as the palette, are removed. This is exact for every palette. It needs no Python in the graph, whose lock and
    whose serial execution under op determinism would cost time.

    Args:
      contents: scalar string, the bytes of a PNG of 1, 2, 4, 8 or 16 bits per sample.

    Returns:
      int32 [H, W], the samples as stored (a 1-bit file gives 0 and 1).

    Raises:
      tf.errors.InvalidArgumentError: if the file is damaged, or not a greyscale or palette PNG.
    """
    is_png = tf.strings.substr(contents, 0, 8) == _PNG_SIGNATURE
    is_long = tf.strings.length(contents) >= 33  # Signature and header.
    # A substring beyond the end would also raise, but its message would contain the whole file.
    with tf.control_dependencies([tf.debugging.Assert(is_png & is_long, ['A label must be a PNG file.'])]):
        contents = tf.identity(contents)
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, 33), tf.uint8), tf.int32)
    bit_depth, color_type = header[24], header[25]
    is_palette = color_type == _PNG_PALETTE
    checks = [tf.debugging.Assert(is_palette | (color_type == _PNG_GREY), ['A label must be palette or greyscale.'])]
    with tf.control_dependencies(checks):
        # The checksum is linear over bits: changing one byte changes it by the same mask for any other bytes.
        mask = tf.where(is_palette, _crc_mask(), tf.zeros([4], tf.int32))
        crc = tf.bitwise.bitwise_xor(header[29:33], mask)
    grey = tf.strings.join(
        [
            tf.strings.substr(contents, 0, 25),
            b'\0',
            tf.strings.substr(contents, 26, 3),
            tf.strings.reduce_join(tf.gather(_BYTES, crc)),
            tf.strings.substr(contents, _first_pixel_chunk(contents), tf.strings.length(contents)),
        ]
    )
    samples = tf.io.decode_png(grey, channels=1, dtype=tf.uint16)[..., 0]
    # The decoder scales samples to the full range of 16 bits by repeating their bits.
    return tf.cast(tf.bitwise.right_shift(samples, tf.cast(16 - bit_depth, tf.uint16)), tf.int32)


def label_bits(contents: tf.Tensor) -> tf.Tensor:
    """Bits per sample of a PNG file that `decode_label` has decoded; uint8."""
    return tf.io.decode_raw(tf.strings.substr(contents, 24, 1), tf.uint8)[0]


_BYTES = [bytes([value]) for value in range(256)]


def _crc_mask() -> tf.Tensor:
    """The change of a PNG header's checksum, byte by byte, if its colour type changes from palette to greyscale."""
    blank = bytearray(b'IHDR' + bytes(13))
    before = zlib.crc32(blank)
    blank[4 + 9] = _PNG_PALETTE
    return tf.constant(list((before ^ zlib.crc32(blank)).to_bytes(4, 'big')), tf.int32)


def _first_pixel_chunk(contents: tf.Tensor) -> tf.Tensor:
    """Byte position of a PNG's first IDAT chunk. (A chunk consists of length, name, data and checksum.)"""

    def is_other(position):
        is_there = tf.debugging.Assert(position + 8 <= tf.strings.length(contents), ['A PNG without pixels.'])
        with tf.control_dependencies([is_there]):
            return tf.strings.substr(contents, position + 4, 4) != b'IDAT'

    def after(position):
        length = tf.io.decode_raw(tf.strings.substr(contents, position, 4), tf.int32, little_endian=False)[0]
        with tf.control_dependencies([tf.debugging.Assert(length >= 0, ['A PNG chunk has a negative length.'])]):
            return [position + 12 + length]

    return tf.while_loop(is_other, after, [tf.constant(33)])[0]
