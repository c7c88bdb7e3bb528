"""Weights of other libraries' models: addresses of their files, which the library itself converts.

Files of the Hugging Face hub, or of the server that the environment variable HF_ENDPOINT names, are downloaded by this
project, which resumes, checks and caches them, and are read as safetensors or HDF5: nothing in them is executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import numpy as np

from seg.backbones.bridge.rewrite import arrays, fresh_names
from seg.errors import UserError
from seg.structures import Published

Fetch = Callable[..., str]


class Loader(NamedTuple):
    """How weights of one kind are read.

    Attributes:
      file: the name of their file in a repository of the hub.
      make: builds the library's model with the weights of a file.
    """

    file: str
    make: Callable[[str], keras.Model]


def published(name: str, loaders: Mapping[str, Loader], default: Callable[[], str], added: str = '') -> Published:
    """Returns the weights of a model: `init.weights` may be 'imagenet', or one of the loaders' kinds and a name.

    It may also be the path of a file of one of these kinds, which its extension tells.

    Args:
      name: of the model.
      loaders: by kind: 'hf' for 'hf:ORG/NAME'; others stand for the organisation of their name, as 'timm' does.
      default: returns the library's own weights of ImageNet, such as 'timm:…'; '' if it has none.
      added: see `Published`.
    """

    by_ending = {os.path.splitext(loader.file)[1]: loader for loader in loaders.values()}

    def load(weights: str, fetch: Fetch) -> dict[str, np.ndarray]:
        asked, weights = weights, default() if weights == 'imagenet' else weights
        hub, _, wanted = weights.partition(':')
        if hub not in loaders and (loader := by_ending.get(os.path.splitext(weights)[1])):
            return read(loader.make, weights, asked, name)
        if hub not in loaders:
            kinds = ' or '.join("'hf:ORG/NAME'" if kind == 'hf' else f"'{kind}:NAME'" for kind in loaders)
            fault = f'takes no {hub!r} weights' if hub else 'has no weights of ImageNet that the library names'
            raise UserError(f'init.weights = {asked!r}: {name} {fault}. Name others: {kinds}.')
        repository = wanted if hub == 'hf' else f'{hub}/{wanted}'
        endpoint = os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'
        file = loaders[hub].file
        path = fetch(
            f'{endpoint.rstrip("/")}/{repository}/resolve/main/{file}', name=f'{repository.replace("/", "--")}--{file}'
        )
        return read(loaders[hub].make, path, weights, name)

    return Published(title=f'Weights of {name}', load=load, endings=tuple(by_ending), added=added)


def read(make: Callable[[str], keras.Model], path: str, weights: str, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of the model that `make` builds with the weights of a file.

    Raises:
      UserError: naming `weights`, the setting, if the file does not fit the model called `name`.
    """
    try:
        with fresh_names():
            return arrays(make(path))
    except Exception as error:  # Of the library and its readers: any.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
        raise UserError(
            f'init.weights = {weights!r}: {path} does not fit {name}: {reason}. Name weights of this model, or '
            'remove a damaged file.'
        ) from error
