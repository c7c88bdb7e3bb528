"""The images of a data set of instances, as files of their own."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import tensorflow as tf

from seg.datasets import checking, image_files, remembered
from seg.datasets.image_files import ImageHeader


class ImageFiles:
    """Images in a folder; `seg.datasets.records` has a class with the same members for images in records.

    Args:
      folder: the folder.
      names: names of the files, relative to it.
      drop: how an image is removed from the data, such as 'remove it from instances.json'.
    """

    def __init__(self, folder: str, names: Sequence[str], drop: str):
        self._names, self._drop = names, drop
        self._files = [posixpath.join(folder, name) for name in names]
        # An eager tensor, because a graph captures it without a copy.
        with tf.init_scope(), tf.device('CPU:0'):
            self._paths = tf.constant(self._files)

    def name(self, index: int) -> str:
        """Name of an image without its ending."""
        return posixpath.splitext(self._names[index])[0]

    def path(self, index: int) -> str | None:
        """The file of an image."""
        return self._files[index]

    def place(self, index: int) -> str:
        """Where an image is, for messages."""
        return self._files[index]

    def encoded(self, index: tf.Tensor) -> tf.Tensor:
        """The bytes of an image, a scalar string; called in graphs."""
        return tf.io.read_file(tf.gather(self._paths, index))

    def headers(self, where: str) -> list[ImageHeader | str]:
        """The header of each image, or its fault; `where` is the split, for messages."""
        title = f'{where}: reading headers'
        return remembered.each(['headers', where], self._each(), self._read_header, ImageHeader, title)

    def decoded(self, where: str) -> list[bool | str]:
        """Decodes each image: True, or its fault; `where` is the split, for messages."""
        return remembered.each(['pixels', where], self._each(), self._decode, bool, f'{where}: decoding images')

    def _each(self) -> list[list[str]]:
        return [[path] for path in self._files]

    def _read_header(self, index: int) -> ImageHeader | str:
        path = self._files[index]
        try:
            return image_files.read_header(path)
        except (ValueError, tf.errors.OpError) as error:
            return f'{path}: not a readable image: {error}. Replace the file, or {self._drop}.'

    def _decode(self, index: int) -> bool | str:
        path = self._files[index]
        try:
            checking.decoded_shape(tf.io.read_file(path))
        except tf.errors.OpError as error:
            return checking.damage(path, error, self._drop)
        return True
