"""Reads the tensors of a Keras 2 weight file, the layout of the `*_notop.h5` files of Keras Applications."""

from __future__ import annotations

import os

import h5py
import numpy as np

from seg.errors import UserError
from seg.weights.tensor_file import DamagedFileError


def read(path: str) -> dict[str, np.ndarray]:
    """Reads all weights: `<layer>/…/<weight>:0` is called `<layer>/<weight>`, such as `conv1_conv/kernel`.

    The layer is the group at the top. The names below it repeat it or are what the layer was called in another session;
    Keras does not look at them either.

    Raises:
      DamagedFileError: if the file is missing, truncated, or its data sets are not plain arrays of numbers.
      UserError: if it is another kind of HDF5 file.
    """
    tensors: dict[str, np.ndarray] = {}
    try:
        size = os.path.getsize(path)
        with h5py.File(path, 'r') as file:
            weights = file.get('model_weights', file)  # There where the file holds the model as well.
            if 'layer_names' not in weights.attrs and 'layer_names0' not in weights.attrs:
                raise UserError(
                    f'{path}: expected weights in the layout of Keras 2, which the .h5 files of Keras Applications '
                    'have; this file names no layers.'
                )

            def add(name: str | bytes, item: object) -> None:
                if isinstance(name, bytes):
                    raise DamagedFileError(f'{path}: the name {name!r} in it is no text.')
                if not isinstance(item, h5py.Dataset):
                    return
                layer, _, weight = name.partition('/')
                weight = weight.rpartition('/')[2].removesuffix(':0')
                # A data set may claim any size, or values in another file: what Keras writes lies in this one.
                if item.dtype.kind not in 'fiu' or item.external or item.is_virtual or item.nbytes > size:
                    raise DamagedFileError(f'{path}: {name} is no plain array of numbers.')
                tensors[f'{layer}/{weight}'] = item[()]

            weights.visititems(add)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DamagedFileError(f'{path}: no readable HDF5 file: {error}') from error
    return tensors
