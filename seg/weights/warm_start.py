"""Initialises parts of a model from a checkpoint of another run, or from published weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from seg import downloads
from seg.errors import UserError, shown
from seg.run.folder import RunFolder
from seg.weights import published, tensor_file

IMAGENET = 'imagenet'
_NAMES = (
    "There are 'imagenet', 'timm:NAME', 'hf:ORG/NAME', 'zeromodels:NAME', run directories, checkpoints and files of "
    'other libraries (docs/fine_tuning.md).'
)


class Report(str):
    """What was loaded, for the log.

    Attributes:
      files: the checksums of the files, such as 'sha256:0676ba61…', by name.
    """

    files: Mapping[str, str]

    def __new__(cls, text: str, paths: Sequence[str] = ()):
        report = super().__new__(cls, text)
        report.files = {os.path.basename(path): downloads.digest_of(path) for path in paths}
        return report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The initial weights of a new run. A resumed run takes its weights from its own checkpoint.

    If the source is of other classes and tells their names, as checkpoints and files for COCO do, heads take over the
    rows of classes of the same names.

    Attributes:
      weights: 'imagenet' for the published weights of the backbone, from an installed package or downloaded once;
        'timm:NAME', 'hf:ORG/NAME' or 'zeromodels:NAME' for weights of a backbone of another library, downloaded once; a
        file of another library (`.pth`, `.h5`, `.safetensors`) for the backbone, and for the other parts that can read
        it (those of Mask R-CNN read torchvision's); a checkpoint (`ckpt-*.safetensors`) or a `model_dir`, for
        its newest checkpoint; None for random weights. If the checkpoint has averaged weights, these are used.
      parts: names of the parts to initialise, such as ('backbone',); empty for all that the source has. 'imagenet' has
        weights of the backbone only.
      min_fraction: least fraction of the variables of those parts that the source must have, by name and shape.
    """

    weights: str | None = None
    parts: Sequence[str] = ()
    min_fraction: float = 0.9

    def apply(self, parts: Mapping[str, Any], class_names: Sequence[str] = ()) -> Report:
        """Sets the variables of the model's parts. Returns the report that is also logged.

        Args:
          parts: Keras layers by name.
          class_names: names of the model's classes; empty if there are none.

        Raises:
          UserError: if the file, a part or too many variables are missing.
        """
        if not isinstance(self.weights, str | None):
            raise UserError(
                f'init.weights = {shown(self.weights)}: expected a name or a path in quotes, or None. {_NAMES}'
            )
        if self.weights is None:
            report = Report('All weights start at random (init.weights = None).')
            logging.info('%s', report)
            return report
        unknown = [name for name in self.parts if name not in parts]
        if unknown:
            raise UserError(f'init.parts: the model has no part {unknown[0]!r}; it has {", ".join(parts)}.')
        weights = os.path.expanduser(self.weights)
        named = weights == IMAGENET or weights.startswith(published.HUBS)
        backbone_alone = named or published.is_of_library(weights, parts)
        foreign = backbone_alone or weights.endswith(tuple(published.READERS))
        if not foreign:
            chosen = {name: parts[name] for name in self.parts or parts}
            origin, source, theirs = _checkpoint(weights)
            paths = [origin]
            advice = 'Name the parts that the checkpoint has in common with this model in init.parts'
        else:
            readable = published.readable(parts, backbone_alone)
            if not readable or not set(self.parts) <= set(readable):
                quoted = ', '.join(map(repr, readable or ('backbone',)))
                raise UserError(
                    f'init.parts = {tuple(self.parts)!r}: init.weights = {self.weights!r} has weights of the '
                    f'part{"s" if len(readable) > 1 else ""} {quoted} only; this model has {", ".join(parts)}. Remove '
                    'init.parts.'
                )
            path = None if weights == IMAGENET else weights
            origin, found, theirs, paths = published.find({name: parts[name] for name in self.parts or readable}, path)
            chosen = {name: parts[name] for name in found}
            source = {f'{part}/{name}': value for part, each in found.items() for name, value in each.items()}
            advice = 'Choose the backbone and the settings that the weights were made for'
        classes = ''
        if theirs and class_names and theirs != list(class_names):
            classes = _take_rows(chosen, source, theirs, class_names)
        loaded, left = _assign(chosen, source)
        added = getattr(getattr(parts.get('backbone'), 'published', None), 'added', '') if foreign else ''
        wanted = loaded + sum(not (added and name.startswith(f'backbone/{added}')) for name in left)
        report = f'{origin}: loaded {loaded} of {wanted} variables' + _listed(f', re-initialised {len(left)}: ', left)
        report += classes
        if foreign:  # Arrays without a variable: the weights belong to another network, or to another normalisation.
            names = {f'{part}/{variable.path}' for part, layer in chosen.items() for variable in layer.variables}
            more = [name for name in source if name not in names]
            report += _listed(f'; no variables for {len(more)} arrays of the file: ', more)
            wanted = max(wanted, len(source))
        if loaded < self.min_fraction * wanted:
            raise UserError(
                f'init.weights = {self.weights!r}: {report}. At least {self.min_fraction:.0%} must fit. {advice}, or '
                'lower init.min_fraction.'
            )
        logging.info('%s', report)
        return Report(report, paths)


def _take_rows(
    parts: Mapping[str, Any], source: dict[str, np.ndarray], theirs: Sequence[str], ours: Sequence[str]
) -> str:
    """Replaces arrays that have rows for their classes by arrays with rows for ours, and reports on it.

    Rows of classes of the same names, and those that belong to no class, are theirs; the model's others stay.
    """
    shared = [name for name in ours if name in theirs]
    for part, layer in parts.items():
        variables = {variable.path: variable for variable in layer.variables}
        for path, rows in (layer.class_rows() if hasattr(layer, 'class_rows') else {}).items():
            value, name = source.get(f'{part}/{path}'), f'{part}/{path}'
            if value is None or value.ndim != len(variables[path].shape):
                continue
            new = keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variables[path])).copy()
            old, view = (np.moveaxis(array, rows.axis, 0) for array in (value, new))
            if old.shape == (rows.before + rows.each * len(theirs), *view.shape[1:]):
                view[rows.of([*map(ours.index, shared)])] = old[rows.of([*map(theirs.index, shared)])]
                source[name] = new
    names = f' ({", ".join(shared[:4])}{", …" if len(shared) > 4 else ""})' if shared else ''
    return f'; other classes: heads take over the rows of {len(shared)} of {len(ours)}{names}'


def _assign(parts: Mapping[str, Any], source: Mapping[str, np.ndarray]) -> tuple[int, list[str]]:
    """Sets the variables that the source has, by name and shape. Returns their number, and why others were not set."""
    loaded, left = 0, []
    for part, layer in parts.items():
        for variable in layer.variables:
            name = f'{part}/{variable.path}'
            value = source.get(name)
            if value is not None and value.shape == tuple(variable.shape) and value.dtype.kind != 'c':
                variable.assign(value.astype(np.dtype(variable.dtype)))
                loaded += 1
            else:
                left.append(
                    f'{name} {tuple(variable.shape)}'
                    + (f', {_form(value)} in the file' if value is not None else ', not in the file')
                )
    return loaded, left


def _form(value: np.ndarray) -> str:
    return f'{value.shape} of {value.dtype}' if value.dtype.kind == 'c' else f'{value.shape}'


def _listed(intro: str, items: Sequence[str]) -> str:
    return intro + '; '.join(items[:4]) + ('; …' if len(items) > 4 else '') if items else ''


def _checkpoint(weights: str) -> tuple[str, dict[str, np.ndarray], list[str] | None]:
    """Returns the checkpoint's path, its arrays by part and path of the variable, and the classes if it tells them."""
    if os.path.isdir(weights):
        folder = RunFolder(weights)
        steps = folder.checkpoint_steps()
        if not steps:
            raise UserError(f'init.weights = {weights!r}: the folder holds no ckpt-*.safetensors.')
        weights = folder.checkpoint(steps[-1])
    try:
        tensors, metadata = tensor_file.read(_existing(weights))
    except tensor_file.DamagedFileError as error:
        raise tensor_file.DamagedFileError(f'init.weights: {error}. Use another checkpoint.') from error
    if not any(name.startswith(('model/', 'ema/')) for name in tensors):
        raise UserError(
            f'init.weights = {weights!r}: this is no checkpoint of this project, and the backbone does not read it. '
            + _NAMES
        )
    source = {name.removeprefix('model/'): value for name, value in tensors.items() if name.startswith('model/')}
    source |= {name.removeprefix('ema/'): value for name, value in tensors.items() if name.startswith('ema/')}
    names = metadata.get('class_names')
    return weights, source, names if isinstance(names, list) else None


def _existing(weights: str) -> str:
    if not os.path.exists(weights):
        raise UserError(
            f'init.weights = {weights!r}: no such file or folder (working directory {os.getcwd()}). {_NAMES}'
        )
    return weights
