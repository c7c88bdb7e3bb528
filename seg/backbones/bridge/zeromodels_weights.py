"""Weights of ZeroModels' models: the library's own conversion of its files, timm's and Hugging Face's."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
from safetensors.numpy import load_file

from seg.backbones.bridge.hub import Loader


def loaders(make: Callable[..., keras.Model]) -> dict[str, Loader]:
    """The loaders of a model.

    Args:
      make: builds the model; `make(kind)` another class with its settings.
    """

    def made(convert: Callable[..., None]) -> Callable[[str], keras.Model]:
        def model(path: str) -> keras.Model:
            source = make()
            convert(source, path, make)
            return source

        return model

    return {
        'zeromodels': Loader('model.weights.h5', made(_from_hub)),
        'hf': Loader('model.safetensors', made(_from_tensors)),
        'timm': Loader('model.safetensors', made(_from_tensors)),
    }


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


def tables(family: str) -> Iterator[tuple[str, Any]]:
    """Yields the names and values of what the library has beside the conversions of a family's weights."""
    module = importlib.import_module(f'zeromodels.models.{family}')
    for info in pkgutil.iter_modules(module.__path__):
        if info.name.startswith('convert_'):
            yield from vars(importlib.import_module(f'{module.__name__}.{info.name}')).items()


def default(name: str, family: str) -> str:
    """The weights of ImageNet-1k that the library lists first for a model of `zeromodels.models`; '' if none."""
    for table, variants in tables(family):
        if table.endswith('_VARIANTS') and isinstance(variants, dict):
            fitting = [key for key, about in variants.items() if isinstance(about, dict) and about.get('model') == name]
            fitting += [key for key in variants if key == name]
            # Those of MIIL read pixels in 0..1, unlike timm's own for the same models.
            fitting = [key for key in fitting if 'miil' not in key] or fitting
            if fitting:
                return f'zeromodels:{next((key for key in fitting if "in1k" in key), fitting[0])}'
    return ''
