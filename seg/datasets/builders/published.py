"""Facts about a published data set: its files, and how examples are read from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from seg.datasets import image_files
from seg.datasets.builders.archives import Archive
from seg.datasets.label_maps.legend import IGNORE
from seg.errors import UserError, reason, shown
from seg.structures import Annotations, DatasetInfo


class File(NamedTuple):
    """A file of a published set.

    Attributes:
      name: its name in the folder of downloads.
      url: its address.
      size: about, in bytes.
      checksum: 'sha256:…' or 'md5:…' as published; '' if none is.
    """

    name: str
    url: str
    size: int
    checksum: str = ''

    def __str__(self) -> str:
        return f'{self.name} ({self.size / 1e9:.1f} GB) from {self.url}'


class Example(NamedTuple):
    """An example as it is stored.

    Attributes:
      name: name of the image, without ending.
      id: id of the image in result files.
      image: a JPEG or PNG file.
      label: uint8 [H, W], the class of each pixel, 255 where ignored; None for instances.
      annotations: the instances; None for label maps.
    """

    name: str
    id: int
    image: bytes
    label: np.ndarray | None = None
    annotations: Annotations | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """The content of the archives of a set.

    Attributes:
      info: facts about the first split.
      splits: for each split, a function that reads its examples in their order.
    """

    info: DatasetInfo
    splits: Mapping[str, Callable[[], Iterator[Example]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """A published data set in the form that is stored for one target.

    Attributes:
      name: name of the prepared set.
      config: its form, if it has several: another folder for each; '' otherwise.
      target: 'label_map' or 'instances'.
      files: its files.
      splits: names of its splits.
      read: function from the archives, in the order of `files`, to their content.
      description: a sentence.
      homepage: address of a page about it.
      size: of the prepared set, about, in bytes.
      version: of the form in which it is stored.
    """

    name: str
    config: str
    target: str
    files: Sequence[File]
    splits: Sequence[str]
    read: Callable[[Sequence[Archive]], Content]
    description: str
    homepage: str
    size: int
    version: str = '1.0.0'


def label_map(archive: Archive, name: str) -> np.ndarray:
    """The stored values of a PNG of one channel, greyscale or palette; uint8 [H, W].

    Raises:
      UserError: if the file is missing, damaged or of another kind.
    """
    where, content = f'{archive.path}: {shown(name, 120)}', archive.read(name)
    try:
        header = image_files.parse_header(content[:64])
        if header.format != 'png' or header.color_type not in (0, 3):
            raise ValueError('expected a PNG of one channel, greyscale or palette')
        return _decoded(tf.constant(content)).numpy().astype(np.uint8)
    except tf.errors.OpError as error:
        raise UserError(f'{where} cannot be decoded: {reason(error)}. Download the archive again.') from None
    except (ValueError, EOFError) as error:
        raise UserError(f'{where}: {error}. Download the archive again.') from None


def check_map(where: str, image: bytes, values: np.ndarray, num_classes: int) -> None:
    """Refuses a label map that does not fit its image, or has values that are not class ids.

    Args:
      where: the archive and the file, for messages.
      image: a JPEG or PNG file.
      values: uint8 [H, W].
      num_classes: the classes are 0 to `num_classes` - 1, and 255 is ignored.
    """
    try:
        header = image_files.parse_header(image)
    except (ValueError, EOFError) as error:
        raise UserError(f'{where}: its image cannot be read: {error}. Download the archive again.') from None
    if values.shape != (header.height, header.width):
        height, width = values.shape
        raise UserError(
            f'{where} is {width}x{height} pixels, its image {header.width}x{header.height} (width x height). '
            'Download the archive again.'
        )
    unknown = values[(values >= num_classes) & (values != IGNORE)]
    if unknown.size:
        raise UserError(
            f'{where} has the value {unknown[0]}, expected 0 to {num_classes - 1}, or {IGNORE}. Download the archive '
            'again.'
        )


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _decoded(content: tf.Tensor) -> tf.Tensor:
    """The stored values, int32 [H, W], by the operations that read label maps in folders."""
    return image_files.decode_label(content)
