"""Data sets of TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seg.datasets import class_maps
from seg.datasets.base import check_target
from seg.datasets.builders import prepare
from seg.datasets.described import Described
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.label_maps import legend as legends
from seg.datasets.label_maps.legend import Legend
from seg.datasets.label_maps.semantic import Classes
from seg.datasets.records import fields, layout, tfds_folder
from seg.datasets.records.array_files import ArrayFiles
from seg.datasets.records.data_set import InstanceRecords, LabelRecords, PaintedRecords, Source
from seg.drawing.palette import instance_palette, voc_palette
from seg.errors import UserError, shown
from seg.number_checks import check_whole
from seg.registry import datasets
from seg.structures import DatasetInfo

_PART = 'datasets.tfds'
_LARGEST = (512, 512)  # Of `--topology` for a set that is not prepared, in pixels.


@datasets.register('tfds', free=('data_dir',))
def tfds(
    *,
    name: str,
    split: str = 'train',
    version: str | None = None,
    data_dir: str | None = None,
    features: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_values: Sequence[int] | None = None,
    target: str = 'label_map',
    verify: bool = True,
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
) -> LabelRecords | InstanceRecords | Described:
    """A set of TensorFlow Datasets (TFDS), or one written by `--mode=convert`.

    A set that is not on this machine is prepared by the first run: by TFDS; 'voc2012_segmentation',
    'coco2017_instances' and 'camvid11' by this package. One in TFRecord files, which cannot be read by position, is
    copied once into ArrayRecord files: beside the original, or in `~/.cache/seg/records`.

    Sets of `--mode=convert` need no setting but `name` and `split`. For others, `features` says which feature is what:
    `image`; `label`, an image of one channel with the class of each pixel; for instances `classes` and `masks` of the
    objects, and optionally `boxes`, `is_crowd` and `area`; and `image_name` and `image_id`. Masks are run lengths as
    text, in COCO's compressed form, or an image of one channel for each object. Boxes are TFDS' normalised ones, or
    float32 [4] y0, x0, y1, x1 in pixels.

    Args:
      name: the set's name in TFDS, such as 'oxford_iiit_pet' or 'cityscapes/semantic_segmentation'; or the folder of a
        prepared set.
      split: 'train', 'train[:80%]', 'train[100:200]', 'train+test', …
      version: such as '4.0.0'. None: the newest one.
      data_dir: the folder in which TFDS keeps prepared sets. None: `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
      features: as above, such as {'label': 'segmentation_mask', 'masks': 'objects/mask'}.
      class_names: names of the classes. None: those that the set states.
      values: the label value of each class, such as (1, 2, 3). None: 0, 1, 2, …
      ignore_values: label values that are ignored. None: 255, unless it is the value of a class.
      target: supplied; 'label_map' or 'instances'. A set of instances gives label maps, too: class 0 is the
        background, and later instances lie above earlier ones.
      verify: whether `verify()` decodes every record. Otherwise it reads headers only: sizes and formats.
      classes: a subset of the classes, in the wanted order; the others are void.
      merge: {name of a class in the set: name of the class that it belongs to}.
      void: names of classes that are ignored; instances of them are crowds, which count nowhere.

    Raises:
      UserError: if the set, the split or a feature is missing, a file is damaged, or a setting is out of its range.
    """
    check_target(_PART, target, ['label_map', 'instances'])
    if not isinstance(name, str) or not name:
        raise UserError(
            f'{_PART}.name = {shown(name)}: expected the name of a set of TensorFlow Datasets, such as '
            "'oxford_iiit_pet', or the folder of a prepared one."
        )
    settings = {'classes': classes, 'merge': merge, 'void': void}
    wanted = prepare.published(name, target, split if isinstance(split, str) else '')

    def fetch():
        folder = prepare.prepared(f'{_PART}.name = {name!r}', wanted, data_dir) if wanted else name
        builder = tfds_folder.find(_PART, folder, None if wanted else version, data_dir)
        return read(
            *(_PART, builder, split, target, verify, features, class_names, values, ignore_values), **settings
        )  # fmt: skip

    full = '/'.join(filter(None, [wanted.name, wanted.config])) if wanted else name
    place = prepare.root(data_dir) if wanted else data_dir
    if tfds_folder.on_disk(_PART, full, wanted.version if wanted else version, place):
        return fetch()
    if wanted is None:
        tfds_folder.known(_PART, name, version, data_dir)
    names = tuple(classes or ('class 0', 'class 1'))
    if class_names is not None:
        names = class_maps.class_map(_PART, class_names, **settings).names
    refusal = f'{_PART}.name = {shown(name)}: this set is not prepared.'
    return Described(DatasetInfo(f'{name}/{split}', names, 1, _LARGEST), target, refusal, fetch)


def read(
    part: str,
    builder: Any,
    split: str,
    target: str,
    verify: bool = True,
    features: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_values: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
) -> LabelRecords | InstanceRecords:
    """Reads a split of a prepared set.

    Args:
      part: the data set's gin key, for messages.
      builder: from `tfds_folder.find`.
      (the others as for `tfds`)
    """
    root = str(builder.data_dir)
    facts = layout.read_metadata(part, builder)
    found = fields.find(part, builder.info.features, features, target)
    source = Source(
        part=part,
        split=split,
        root=root,
        name=builder.info.name,
        files=ArrayFiles(
            f'{part}, split {split!r} of {root}',
            tfds_folder.parts(part, builder, split),
            tfds_folder.INFO,
            tfds_folder.damaged(builder),
        ),
        fields=found,
        whole_ids=facts.image_ids == 'int',
    )
    by_class = 'label' not in found
    names = _names(part, class_names, facts, found['classes' if by_class else 'label'], root)
    mapping = class_maps.class_map(part, names, classes, merge, void)
    ignore, colors = facts.ignore_label, facts.colors or ()
    if len(colors) != len(names):
        colors = instance_palette(len(names)) if by_class else voc_palette(len(names))
    colors = tuple(tuple(colors[n]) for n in mapping.origins)
    original = facts.original_ids or ()
    original = original if len(original) == len(names) else range(len(names))
    if by_class:
        if unread := [key for key, each in (('values', values), ('ignore_values', ignore_values)) if each is not None]:
            raise UserError(f'{part}.{unread[0]}: the set has objects and no label maps. Leave it out.')
        made = Classes(names=mapping.names, original_ids=_ids(original, mapping), colors=colors)
        build = PaintedRecords if target == 'label_map' else InstanceRecords
        return build(source, mapping, made, ignore, verify)
    stored = tuple(range(len(names))) if values is None else _checked_values(part, values, names)
    kept = ignore if facts.stored_ignore is None else facts.stored_ignore
    ignored = class_maps.ignored_values(part, ignore_values, () if kept in stored else (kept,))
    if both := [value for value in stored if value in ignored]:
        raise UserError(f'{part}.ignore_values has {both[0]}, which is a class. Expected other values.')
    legend = Legend(
        names=names,
        values=stored,
        ids=legends.class_ids(mapping, ignore),
        ignored=ignored,
        origin=f'{part}.class_names' if class_names is not None else root,
        ignore=ignore,
    )
    original = original if values is None else stored
    made = Classes(names=mapping.names, original_ids=_ids(original, mapping), colors=colors)
    hint = f'The setting {part}.values states the value of each class, {part}.ignore_values what is ignored.'
    return LabelRecords(source, legend, made, verify, hint)


def _ids(original: Sequence[int], mapping: class_maps.ClassMap) -> tuple[int, ...] | None:
    """`DatasetInfo.original_ids`: the ids of the classes in the set; None if they count up from 0."""
    ids = tuple(int(original[n]) for n in mapping.origins)
    return None if ids == tuple(range(len(ids))) else ids


def _names(part: str, given: Any, facts: layout.Metadata, field: fields.Field, root: str) -> tuple[str, ...]:
    """The names of the stored classes: those of the setting, else those of the set."""
    stated = tuple(field.names or facts.class_names or ())
    if given is None:
        if not stated:
            raise UserError(
                f'{part}.class_names = None: {root} does not name the classes of {field.key!r}. Name them, one for '
                f'each value from 0 on, or for each value in {part}.values.'
            )
        return stated
    if not isinstance(given, tuple | list) or not all(isinstance(name, str) for name in given):
        raise UserError(f"{part}.class_names = {shown(given)}: expected a tuple of names, such as ('road', 'car').")
    if fault := names_files.fault_of(list(given)):
        raise UserError(f'{part}.class_names {fault}.')
    if field.names and len(given) != len(field.names):
        raise UserError(
            f'{part}.class_names = {shown(tuple(given))}: {len(given)} names; {field.key!r} has {len(field.names)} '
            'classes. Expected one name for each.'
        )
    return tuple(given)


def _checked_values(part: str, values: Any, names: Sequence[str]) -> tuple[int, ...]:
    slot = f'{part}.values'
    if not isinstance(values, tuple | list):
        raise UserError(f'{slot} = {shown(values)}: expected a tuple of label values, such as (1, 2, 3).')
    stored = tuple(check_whole(f'{slot}[{i}]', value, 0, 2**16 - 1) for i, value in enumerate(values))
    if len(set(stored)) < len(stored) or len(stored) != len(names):
        raise UserError(
            f'{slot} = {shown(stored)}: expected a different value for each of the {len(names)} classes, '
            f'{shown(tuple(names))}.'
        )
    return stored
