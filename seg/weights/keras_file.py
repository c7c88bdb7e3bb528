"""Reads the tensors of a Keras 2 weight file, the layout of the `*_notop.h5` files of Keras Applications."""

from __future__ import annotations

import math
import os

import h5py
import numpy as np

from seg import files
from seg.errors import UserError, shown
from seg.weights.tensor_file import DamagedFileError, parsing

# Keras nests a few groups. HDF5 finds each item by its path from the root, so deep nesting takes quadratic time.
_DEEPEST = 32


def read(path: str) -> dict[str, np.ndarray]:
    """Reads all weights; the name of `<layer>/…/<weight>:0` is `<layer>/<weight>`, such as `conv1_conv/kernel`.

    The layer is the top-level group. Group names below it repeat it, or are the layer's name in another session; Keras
    also ignores them.

    Raises:
      DamagedFileError: if the file is missing, truncated, or its data sets are not plain arrays of numbers.
      UserError: if it is another kind of HDF5 file, or cannot be read.
    """
    if kind := files.irregular(path):
        raise UserError(f'{path!r} is {kind}, expected an HDF5 file.')
    with parsing(path, 'HDF5 file'), h5py.File(path, 'r') as file:
        # The group is here if the file also holds the model. A link may lead to another file.
        inside = isinstance(file.get('model_weights', getlink=True), h5py.HardLink)
        return _weights(path, file['model_weights'] if inside else file)


def _weights(path: str, group: h5py.Group) -> dict[str, np.ndarray]:
    if 'layer_names' not in group.attrs and 'layer_names0' not in group.attrs:
        raise UserError(
            f'{path}: expected weights in the layout of Keras 2, which the .h5 files of Keras Applications have; this '
            'file names no layers.'
        )
    left = os.path.getsize(path)  # Bytes that the remaining data sets may have.
    tensors: dict[str, np.ndarray] = {}

    def add(name: str | bytes, item: object) -> None:
        nonlocal left
        if isinstance(name, bytes):
            raise DamagedFileError(f'{path}: the name {shown(name)} in it is not UTF-8.')
        if name.count('/') > _DEEPEST:
            raise DamagedFileError(f'{path}: its groups are nested more than {_DEEPEST} deep.')
        if not isinstance(item, h5py.Dataset):
            return
        # A data set may claim any size, or values in another file; Keras writes all values to this file.
        plain = item.dtype.kind in 'fiu' and item.shape is not None and not item.external and not item.is_virtual
        if plain:
            # Python's integers do not overflow. A chunk is always decompressed as a whole.
            left -= item.dtype.itemsize * max(math.prod(item.shape), math.prod(item.chunks or (0,)))
        if not plain or left < 0:
            raise DamagedFileError(
                f'{path}: {shown(name, 200)} is not a plain array of numbers'
                + (': the arrays up to this one are larger than the file.' if plain else '.')
            )
        layer, _, weight = name.partition('/')
        weight = weight.rpartition('/')[2].removesuffix(':0')
        tensors[f'{layer}/{weight}'] = item[()]

    group.visititems(add)
    return tensors
