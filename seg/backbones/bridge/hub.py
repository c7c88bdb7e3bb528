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

    Args:
      name: of the model.
      loaders: by kind: 'hf' for 'hf:ORG/NAME'; others stand for the organisation of their name, as 'timm' does.
      default: returns the library's own weights of ImageNet, such as 'timm:…'; '' if it has none.
      added: see `Published`.
    """

    def load(weights: str, fetch: Fetch) -> dict[str, np.ndarray]:
        asked, weights = weights, default() if weights == 'imagenet' else weights
        hub, _, wanted = weights.partition(':')
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
        try:
            with fresh_names():
                return arrays(loaders[hub].make(path))
        except Exception as error:  # Of the library and its readers: any.
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
            raise UserError(
                f'init.weights = {weights!r}: {path} does not fit {name}: {reason}. Name weights of this model, or '
                'remove a damaged file.'
            ) from error

    return Published(title=f'Weights of {name}', convert=no_file, load=load, added=added)


def no_file(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise UserError(
        "init.weights: a backbone of another library reads no file of this kind. Name its weights: 'imagenet', "
        "'zeromodels:NAME', 'hf:ORG/NAME' or 'timm:NAME'."
    )
