"""Data sets of TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seg.datasets import class_maps
from seg.datasets import orientation as orientations
from seg.datasets.base import check_target
from seg.datasets.builders import prepare
from seg.datasets.described import Described
from seg.datasets.instances.data_set import InstanceData, build
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.label_maps import legend as legends
from seg.datasets.label_maps.legend import Legend
from seg.datasets.label_maps.legends_of_folders import Meaning
from seg.datasets.label_maps.semantic import Classes
from seg.datasets.records import fields, instances, layout, tfds_folder, tfds_index
from seg.datasets.records.record_data import Labels, RecordLabelMaps
from seg.drawing.palette import class_palette, instance_palette
from seg.errors import UserError, shown
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
    orientation: str | None = None,
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
) -> RecordLabelMaps | InstanceData | Described:
    """A set of TensorFlow Datasets (TFDS), or one written by `--mode=convert`.

    A set that is not on this machine is prepared by the first run: by TFDS; 'voc2012_segmentation',
    'coco2017_instances' and 'camvid11' by this package. One in TFRecord files, which cannot be read by position, is
    copied once into ArrayRecord files: beside the original, or in `~/.cache/seg/records`.

    Sets of `--mode=convert` need no setting but `name` and `split`. For others, `features` maps each key to a feature:
    `image`; `label`, an image of one channel with the class of each pixel; for instances `classes` and `masks`, and
    optionally `boxes`, `is_crowd` and `area`; and `image_name` and `image_id`. Masks are run lengths as
    text, in COCO's compressed form, or an image of one channel for each instance. Boxes are TFDS' normalised ones, or
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
      verify: whether `verify()` decodes every record.
      orientation: 'ignore' (the default), or 'apply': images are turned upright by their EXIF orientation; labels must
        fit them.
      classes: a subset of the classes, in the wanted order; the others are void.
      merge: {name of a class in the set: name of the class that it belongs to}.
      void: names of classes that are ignored; instances of them are crowds, which are ignored.

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
            *(_PART, builder, split, target, verify, orientation, features, class_names, values, ignore_values),
            **settings,
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
    orientation: str | None = None,
    features: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_values: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
) -> RecordLabelMaps | InstanceData:
    """Reads a split of a prepared set.

    Args:
      part: the data set's gin key, for messages.
      builder: from `tfds_folder.find`.
      (the others as for `tfds`)
    """
    upright = orientations.check(part, orientation)
    root, facts = str(builder.data_dir), layout.read_metadata(part, builder)
    found = fields.find(part, builder.info.features, features, target)
    by_class = 'label' not in found
    names = _names(part, class_names, facts, found['classes' if by_class else 'label'], root)
    origin = f'{part}.class_names' if class_names is not None else root
    mapping = class_maps.class_map(part, names, classes, merge, void)
    index, records = tfds_index.make(part, split, builder, found, facts.image_ids == 'int')
    name, ignore, colors = builder.info.name, facts.ignore_label, facts.colors or ()
    if len(colors) != len(names):
        colors = instance_palette(len(names)) if by_class else class_palette(names)
    original = facts.original_ids or ()
    original = tuple(original if len(original) == len(names) else range(len(names)))
    if by_class:
        if unread := [key for key, each in (('values', values), ('ignore_values', ignore_values)) if each is not None]:
            raise UserError(f'{part}.{unread[0]}: the set has instances and no label maps. Leave it out.')
        whole = instances.source(
            *(index, records, dict(enumerate(names)), origin, True),
            original_ids=None if original == tuple(range(len(names))) else original,
            name=name,
            ignore=ignore,
            colors=tuple(map(tuple, colors)),
        )
        return build(whole, None, mapping, target, verify, orientation)
    stored = tuple(range(len(names))) if values is None else names_files.check_values(part, values, names)
    kept = ignore if facts.stored_ignore is None else facts.stored_ignore
    ignored = class_maps.ignored_values(part, ignore_values, () if kept in stored else (kept,))
    if both := [value for value in stored if value in ignored]:
        raise UserError(f'{part}.ignore_values has {both[0]}, which is a class. Expected other values.')
    ids = tuple(int((original if values is None else stored)[n]) for n in mapping.origins)
    meaning = Meaning(
        legend=Legend(
            names=names,
            values=stored,
            ids=legends.class_ids(mapping, ignore),
            ignored=ignored,
            origin=origin,
            ignore=ignore,
        ),
        classes=Classes(
            names=mapping.names,
            original_ids=None if ids == tuple(range(len(ids))) else ids,
            colors=tuple(tuple(colors[n]) for n in mapping.origins),
        ),
        counted={},
        remarks=(),
        remedy=f'to {part}.class_names',
        hint=f'The setting {part}.values states the value of each class, {part}.ignore_values the ignored values.',
    )
    return RecordLabelMaps(Labels(index), meaning, verify, upright, name)


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
    given = names_files.check(part, given)
    if field.names and len(given) != len(field.names):
        raise UserError(
            f'{part}.class_names = {shown(given)}: {len(given)} names; {field.key!r} has {len(field.names)} '
            'classes. Expected one name for each.'
        )
    return given
