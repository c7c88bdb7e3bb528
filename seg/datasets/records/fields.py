"""Which keys of a record hold the image and its annotations, and in which form: from the features of a set of TFDS."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from seg.errors import UserError, shown

# Forms of the values of a field.
IMAGE, TEXT, NUMBER, REAL, NORMALISED, PIXELS, RUNS, IMAGES = (
    'image',
    'text',
    'number',
    'real',
    'normalised boxes',
    'boxes in pixels',
    'run lengths',
    'images',
)
# For each key of an example, or other field: the names and the forms that it may have.
_FIELDS = {
    'image': (('image',), {IMAGE}),
    'image_name': (('image_name', 'file_name', 'filename', 'image/filename'), {TEXT}),
    'image_id': (('image_id', 'image/id'), {TEXT, NUMBER}),
    'label': (('label', 'segmentation_mask', 'segmentation_label'), {IMAGE}),
    'boxes': (('objects/bbox',), {NORMALISED, PIXELS}),
    'classes': (('objects/label',), {NUMBER}),
    'is_crowd': (('objects/is_crowd',), {NUMBER}),
    'area': (('objects/area',), {NUMBER, REAL}),
    'masks': (('objects/mask',), {RUNS, IMAGES}),
}
_NEEDED = {'label_map': ('image', 'label'), 'instances': ('image', 'classes', 'masks')}
_MEANING = {
    'image': 'an image of three channels or one',
    'label': 'an image of one channel, the class of each pixel',
    'classes': 'the class of each instance',
    'masks': "the mask of each instance: run lengths as text, in COCO's compressed form, or an image of one channel",
}


class Field(NamedTuple):
    """A feature of a record.

    Attributes:
      key: its key in the record.
      form: the form of its values.
      of_instances: whether it has a value for each instance.
      names: names of its values, if it is a class.
    """

    key: str
    form: str
    of_instances: bool = False
    names: tuple[str, ...] = ()


def find(part: str, features: Any, setting: Mapping[str, str] | None, target: str) -> dict[str, Field]:
    """The fields of an example.

    Args:
      part: the data set's gin key, for messages.
      features: the `FeaturesDict` of the set.
      setting: the setting `features`: for a field the key of its feature; others are found by their usual names.
      target: 'label_map' or 'instances'. Without label maps, the fields of instances are found for both.

    Returns:
      The fields that the records have, by 'image', 'image_name', 'image_id', and the keys of the target.

    Raises:
      UserError: if the setting names a field or a feature that is not there, or a needed field is not found.
    """
    slot, known = f'{part}.features', dict(_walk(features))
    if setting is not None and not isinstance(setting, Mapping):
        raise UserError(f"{slot} = {shown(setting)}: expected a dict, such as {{'label': 'segmentation_mask'}}.")
    setting = dict(setting or {})
    for name, key in setting.items():
        if name not in _FIELDS:
            raise UserError(f'{slot} has {shown(name)}, expected {", ".join(map(repr, _FIELDS))}.')
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            guess = f' Did you mean {near[0]!r}?' if near else ''
            raise UserError(f'{slot}[{name!r}] = {shown(key)}: there is no such feature.{guess} {_listed(known)}')
        if _form(name, known[key]) is None:
            raise UserError(
                f'{slot}[{name!r}] = {shown(key)}: this feature is {_described(known[key])}. Expected '
                f'{_MEANING.get(name, " or ".join(sorted(_FIELDS[name][1])))}. {_listed(known)}'
            )
    found = {}
    for name, (usual, _) in _FIELDS.items():
        keys = [setting[name]] if name in setting else [key for key in usual if key in known]
        fitting = [(key, form) for key in keys if (form := _form(name, known[key]))]
        if fitting:
            key, form = fitting[0]
            found[name] = Field(key, form, known[key][1] > 0, tuple(getattr(known[key][0], 'names', None) or ()))
    needed = 'instances' if target == 'label_map' and 'label' not in found and 'masks' in found else target
    for name in _NEEDED[needed]:
        if name not in found:
            raise UserError(
                f'{slot} = {shown(setting or None)}: the task learns from target {target!r}, and no feature is '
                f'{_MEANING[name]}. {_listed(known)} Name it: {slot} = {{{name!r}: …}}.'
            )
    keep = {'image', 'image_name', 'image_id'} | ({'label'} if needed == 'label_map' else _FIELDS.keys() - {'label'})
    return {name: field for name, field in found.items() if name in keep}


def _walk(feature: Any, path: str = '', depth: int = 0) -> Iterator[tuple[str, tuple[Any, int]]]:
    """Yields for each key the feature, and the number of sequences that it is in."""
    if type(feature).__name__ == 'Sequence':  # First, because it has the attributes of what it holds.
        yield from _walk(feature.feature, path, depth + 1)
    elif hasattr(feature, 'items'):
        for name, each in feature.items():
            yield from _walk(each, f'{path}/{name}' if path else name, depth)
    else:
        yield path, (feature, depth)


def _form(name: str, known: tuple[Any, int]) -> str | None:
    """The form of a feature as the field `name`; None if it cannot be that field."""
    feature, depth = known
    kind, shape = type(feature).__name__, tuple(feature.shape)
    per_instance = name in ('boxes', 'classes', 'is_crowd', 'area', 'masks')
    if depth != int(per_instance):
        return None
    if kind in ('Image', 'LabeledImage'):
        channels = shape[-1]
        if name == 'image' or (name in ('label', 'masks') and channels == 1):
            return IMAGES if name == 'masks' else IMAGE
        return None
    if kind == 'BBoxFeature':
        form = NORMALISED
    elif kind == 'Text':
        form = RUNS if name == 'masks' else TEXT
    elif kind == 'ClassLabel':
        form = NUMBER
    elif kind in ('Tensor', 'Scalar'):
        number = np.dtype(feature.get_serialized_info().np_dtype)  # Encoded ones are bytes.
        if shape == (4,) and number == np.float32:
            form = PIXELS
        elif shape == () and number.kind in 'biuf':
            form = REAL if number.kind == 'f' else NUMBER
        else:
            return None
    else:
        return None
    return form if form in _FIELDS[name][1] else None


def _described(known: tuple[Any, int]) -> str:
    feature, depth = known
    return f'{type(feature).__name__} of shape {tuple(feature.shape)}' + (' in a sequence' if depth else '')


def _listed(known: Mapping[str, Any]) -> str:
    """The features, for a message."""
    return f'Features: {", ".join(f"{key} ({_described(each)})" for key, each in sorted(known.items()))}.'
