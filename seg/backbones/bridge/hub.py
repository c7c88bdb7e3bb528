"""Weights of ZeroModels' models: addresses of their files, and their conversion by the library itself.

Files of the Hugging Face hub, or of the server that the environment variable HF_ENDPOINT names, are downloaded by this
project, which resumes, checks and caches them, and are read as safetensors or HDF5: nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file

from seg.backbones.bridge.rewrite import arrays, fresh_names
from seg.errors import UserError
from seg.structures import Published

Fetch = Callable[..., str]
FILES = {'zeromodels': 'model.weights.h5', 'hf': 'model.safetensors', 'timm': 'model.safetensors'}


def published(name: str, family: str, make: Callable[..., keras.Model], added: str = '') -> Published:
    """Returns the weights of a model: `init.weights` may be 'imagenet', 'zeromodels:…', 'hf:…' or 'timm:…'.

    Args:
      name: of the model.
      family: module of `zeromodels.models`.
      make: builds the model; `make(kind)` another class with its settings.
      added: see `Published`.
    """

    def load(weights: str, fetch: Fetch) -> dict[str, np.ndarray]:
        if weights == 'imagenet':
            weights = _default(name, family)
        hub, _, wanted = weights.partition(':')
        repository = wanted if hub == 'hf' else f'{hub}/{wanted}'
        endpoint = os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'
        url = f'{endpoint.rstrip("/")}/{repository}/resolve/main/{FILES[hub]}'
        path = fetch(url, name=f'{repository.replace("/", "--")}--{FILES[hub]}')
        source = make()
        try:
            with fresh_names():
                _CONVERSIONS[hub](source, path, make)
        except Exception as error:  # Of the library and its readers: any.
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
            raise UserError(
                f'init.weights = {weights!r}: {path} does not fit {name}: {reason}. Name weights of this model, or '
                'remove a damaged file.'
            ) from error
        return arrays(source)

    return Published(title=f'Weights of {name}', convert=no_file, load=load, added=added)


def _from_hub(source: keras.Model, path: str, make: Callable[[str], keras.Model]) -> None:
    """ZeroModels' own file is that of the classifier, if the family has one."""
    kind = type(source).__name__.removesuffix('Model') + 'ImageClassify'
    module = importlib.import_module(type(source).__module__.rpartition('.')[0])
    if not hasattr(module, kind):
        source.load_weights(path)
        return
    whole = make(kind)
    whole.load_weights(path)
    importlib.import_module('zeromodels.conversion').copy_weights_by_path_suffix(whole, source)


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Context in which the library converts arrays without torch: it asks only whether they are torch's tensors."""
    if importlib.util.find_spec('torch') is not None:
        yield
        return
    nobody = type('Nobody', (), {})
    torch = types.ModuleType('torch')
    torch.Tensor, torch.nn = nobody, types.SimpleNamespace(Module=nobody)
    sys.modules['torch'] = torch
    try:
        yield
    finally:
        del sys.modules['torch']


def _from_tensors(source: keras.Model, path: str, make: Callable[[str], keras.Model]) -> None:
    kind = type(source)
    convert = kind.transfer_from_timm if kind.HF_MODEL_TYPE is None else kind.transfer_from_hf
    with without_torch():
        convert(source, load_file(path))


_CONVERSIONS = {'zeromodels': _from_hub, 'hf': _from_tensors, 'timm': _from_tensors}


def tables(family: str) -> Iterator[tuple[str, Any]]:
    """Yields the names and values of what the library has beside the conversions of a family's weights."""
    module = importlib.import_module(f'zeromodels.models.{family}')
    for info in pkgutil.iter_modules(module.__path__):
        if info.name.startswith('convert_'):
            yield from vars(importlib.import_module(f'{module.__name__}.{info.name}')).items()


def _default(name: str, family: str) -> str:
    """The weights of ImageNet-1k that the library lists first for a model."""
    for table, variants in tables(family):
        if table.endswith('_VARIANTS') and isinstance(variants, dict):
            fitting = [key for key, about in variants.items() if isinstance(about, dict) and about.get('model') == name]
            fitting += [key for key in variants if key == name]
            if fitting:
                return f'zeromodels:{next((key for key in fitting if "in1k" in key), fitting[0])}'
    raise UserError(f"init.weights = 'imagenet': the library names none for {name}. Name some: 'timm:…' or 'hf:…'.")


def no_file(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise UserError(
        "init.weights: a backbone of another library reads no file of this kind. Name its weights: 'imagenet', "
        "'zeromodels:NAME', 'hf:ORG/NAME' or 'timm:NAME'."
    )
