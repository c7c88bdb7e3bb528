"""Weights of other libraries' models: addresses of their files, which the library itself converts.

Files of the Hugging Face hub, or of the server that the environment variable HF_ENDPOINT names, are downloaded by this
project, which resumes, checks and caches them, and are read as safetensors or HDF5: nothing in them is executed.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
from safetensors import safe_open

from seg.backbones.bridge.rewrite import arrays, fresh_names
from seg.errors import UserError, reason, shown
from seg.structures import Published

Fetch = Callable[..., str]

# Layers of files that no backbone has.
_HEADS = {'head', 'head_dist', 'fc', 'classifier', 'last_linear', 'pre_logits'}


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

    Files of these kinds are also read by path.

    Args:
      name: of the model.
      loaders: by kind: 'hf' for 'hf:ORG/NAME'; others stand for the organisation of their name, as 'timm' does.
      default: returns the library's own weights of ImageNet, such as 'timm:…'; '' if it has none.
      added: see `Published`.
    """
    kinds = ' or '.join("'hf:ORG/NAME'" if kind == 'hf' else f"'{kind}:NAME'" for kind in loaders)

    def load(weights: str, fetch: Fetch) -> dict[str, np.ndarray]:
        asked, weights = weights, default() if weights == 'imagenet' else weights
        hub, _, wanted = weights.partition(':')
        if hub not in loaders:
            fault = f'takes no {hub!r} weights' if hub else 'has no weights of ImageNet that the library names'
            raise UserError(f'init.weights = {asked!r}: {name} {fault}. Name others: {kinds}.')
        repository = wanted if hub == 'hf' else f'{hub}/{wanted}'
        if not re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', repository, re.ASCII):
            raise UserError(f'init.weights = {shown(asked)}: the hub has no such name. Expected {kinds}.')
        file = loaders[hub].file
        path = fetch(f'{_endpoint()}/{repository}/resolve/main/{file}', name=f'{repository.replace("/", "--")}--{file}')
        return read(loaders[hub].make, name, path, weights)

    readers = {loader.file.removeprefix('model'): partial(read, loader.make, name) for loader in loaders.values()}
    return Published(title=f'Weights of {name}', load=load, readers=readers, added=added)


def _endpoint() -> str:
    """The server's address, without a slash at its end."""
    endpoint = os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'
    if not re.match('https?://.', endpoint):
        raise UserError(
            f'The environment variable HF_ENDPOINT is {shown(endpoint)}, expected an address such as '
            "'https://huggingface.co'."
        )
    return endpoint.rstrip('/')


def read(make: Callable[[str], keras.Model], name: str, path: str, weights: str = '') -> dict[str, np.ndarray]:
    """Returns the arrays of a file, by the paths that the variables have in the backbone.

    Args:
      make: builds the library's model with the weights of the file.
      name: of the model.
      path: the file.
      weights: `init.weights`, if it is not the path.

    Raises:
      UserError: if the file does not fit the model.
    """
    try:
        with fresh_names(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Keras names every layer that a file lacks.
            model = make(path)
        if path.endswith('.safetensors'):
            _check_number(path, len(model.variables))
        return arrays(model)
    except UserError:
        raise
    except Exception as error:  # Of the library and its readers: any.
        raise UserError(
            f'init.weights = {weights or path!r}: {path} does not fit {name}: {reason(error)}. Use weights of this '
            'model, and remove a damaged file.'
        ) from error


def _check_number(path: str, variables: int) -> None:
    """Refuses files of larger networks of the same kind: the libraries do not ask for what a model does not have."""
    with safe_open(path, framework='numpy') as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys() if not _HEADS & {*name.split('.')}}
    number = sum(kind.startswith(('F', 'BF')) for kind in kinds.values())
    if variables < 0.9 * number:
        raise ValueError(f'it has {number} arrays, and the model {variables} variables: it is of a larger network')
