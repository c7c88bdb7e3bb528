"""Guesses the layout of a folder of images and annotations, and the gin lines that read it.

Only names and the beginnings of files are examined.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from seg.datasets import checking, other_tools
from seg.errors import UserError
from seg.files import irregular

_OF_FOLDERS = 'two folders of images and label maps'
_FEW = 40  # Of more folders, not all pairs are compared.
_LEVELS, _ENTRIES = 6, 500  # Levels of folders, and entries of each, that are examined.
_HEAD = 65536  # Bytes of a text file that are examined.
_IMAGES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')
_LABELS = ('.png', '.tif', '.tiff', '.bmp', '.npy')
_MASK_WORDS = re.compile(r'mask|label|annot|seg|gt|truth|class|target', re.IGNORECASE)
_TRAIN, _VAL = ('train', 'training', 'train2017'), ('val', 'valid', 'validation', 'val2017', 'test', 'testing')
_OF_COCO = re.compile(r'annotations/instances_([^/]+)\.json|([^/]+)/_annotations\.coco\.json')
_OF_INSTANCES = 'gin/maskrcnn_coco.gin'
# What fits that recipe to small data and a machine without a GPU; docs/own_instances.md has the same lines.
_SMALL = (
    'BACKBONE = @backbones.efficientnet_lite0',
    'CROP = (512, 512)',
    'BATCH_SIZE = 8',
    'TRAIN_STEPS = 3000',
    'RunConfig.iterations_per_loop = 10',
    'RunConfig.save_checkpoints_steps = 100',
    'RunConfig.eval_every = 500',
)
_FOR_NUCLEI = (
    '# For many small instances of one class include gin/maskrcnn_nuclei.gin, without the lines from BACKBONE on.'
)
# A suitable recipe for each reader; the first three recipes set the reader themselves.
_RECIPES = {
    'folders': 'gin/deeplab_folder.gin',
    'voc_layout': 'gin/deeplab_camvid.gin',
    'coco': _OF_INSTANCES,
    'cityscapes': 'gin/deeplab_camvid.gin',
    'labelme': _OF_INSTANCES,
    'yolo': _OF_INSTANCES,
    'tfrecord': _OF_INSTANCES,
    'tfds': _OF_INSTANCES,
}
_OF_RECIPE = ('folders', 'voc_layout', 'coco')


class Layout(NamedTuple):
    """A folder that one of the readers reads.

    Attributes:
      title: what the folder is.
      reader: name of the reader, such as 'coco'.
      settings: settings of both splits.
      train: settings of the training data.
      evaluation: settings of the evaluation data.
      other_recipe: the gin file of a suitable training, if it is not the reader's usual one.
    """

    title: str
    reader: str
    settings: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    other_recipe: str | None = None

    @property
    def recipe(self) -> str:
        """The gin file of a suitable training."""
        return self.other_recipe or _RECIPES[self.reader]

    def bindings(self, data_dir: str) -> list[str]:
        """The gin lines after the `include` of the recipe.

        Args:
          data_dir: the folder.
        """
        part, settings = f'datasets.{self.reader}', dict(self.settings)
        macros = {'DATA_DIR': data_dir}
        if self.reader == 'folders':
            macros |= {'IMAGES': settings.pop('images'), 'LABELS': settings.pop('labels')}
        macros |= {'TRAIN_SPLIT': self.train['split'], 'EVAL_SPLIT': self.evaluation['split']}
        lines = [f'{name} = {value!r}' for name, value in macros.items()]
        if self.reader not in _OF_RECIPE:
            lines += [
                f'experiment.train_data = @train/{part}',
                f'experiment.eval_data = @eval/{part}',
                f'{part}.{"name" if self.reader == "tfds" else "data_dir"} = %DATA_DIR',
                f'train/{part}.split = %TRAIN_SPLIT',
                f'eval/{part}.split = %EVAL_SPLIT',
            ]
        for scope, values in (('', settings), ('train/', self.train), ('eval/', self.evaluation)):
            lines += [f'{scope}{part}.{name} = {value!r}' for name, value in values.items() if name != 'split']
        return [*lines, *_SMALL] if self.recipe == _OF_INSTANCES else lines

    def text(self, data_dir: str) -> str:
        """A gin file of its own that reads the folder."""
        lines = [f"include '{self.recipe}'", *self.bindings(data_dir)]
        return '\n'.join([*lines, _FOR_NUCLEI] if self.recipe == _OF_INSTANCES else lines)


def guess(data_dir: str) -> tuple[Layout, str]:
    """Guesses the layout of a folder.

    Returns:
      The layout, and the folder that its reader needs: `data_dir` or one in it.

    Raises:
      UserError: if there is no such folder, if its layout is not known, or if no reader reads it; the message then
        names the export that is read.
    """
    root = os.path.expanduser(data_dir)
    if not os.path.isdir(root):
        what = irregular(root) or ('a file' if os.path.exists(root) else 'nothing there')
        raise UserError(f'--input={data_dir}: there is {what}; expected a folder with images and annotations.')
    files = list(_files(root))
    if other := _of_other_tool(root, files):
        name, (what, remedy) = other
        raise UserError(f'--input={data_dir}: {os.path.join(root, name)} is {what}: {remedy}.')
    for look in (*_LOOKS, _folders):
        if found := look(root, files):
            layout, inside = found
            return layout, posixpath.join(root, inside) if inside else root
    if pair := _best_pair(files, _IMAGES):
        raise UserError(
            f'--input={data_dir}: the folders {checking.first_of(sorted(pair[:2]))} have images of the same names. If '
            'one of them has the label maps, save these as greyscale or palette PNG: JPEG blurs ids.'
        )
    raise UserError(
        f'--input={data_dir}: its layout is not known. {checking.holds(root)}. Known are two folders of images and '
        'label maps, PASCAL VOC, COCO and the exports of its tools, LabelMe, YOLO, Cityscapes, TFRecord files '
        'and sets of TensorFlow Datasets. A '
        'gin file can set folders and globs of other names: see @datasets.folders.'
    )


def described(root: str, reader: str) -> str:
    """What a folder is, if it belongs to another reader or tool; else what it holds. For messages of the reader.

    Args:
      root: the folder.
      reader: name of the reader that does not find its files there, such as 'coco'.
    """
    files = list(_files(root))
    if other := _of_other_tool(root, files):
        name, (what, remedy) = other
        return f'{os.path.join(root, name)} is {what}: {remedy}.'
    for look in (*_LOOKS, _folders):
        try:
            found = look(root, files)
        except UserError:
            continue  # Its reader refuses a file.
        if found and found[0].reader != reader:
            layout, inside = found
            return f'{os.path.join(root, inside)} has {layout.title}: @datasets.{layout.reader} reads it.'
    return f'{checking.holds(root)}.'


def _files(root: str) -> Iterator[str]:
    """Names of files in a folder and below it, with slashes."""
    waiting, seen = [('', 1)], set()
    while waiting:
        folder, level = waiting.pop(0)
        real = os.path.realpath(os.path.join(root, folder))
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in [entry for entry in entries if not entry.name.startswith('.')][:_ENTRIES]:
            name = posixpath.join(folder, entry.name)
            if entry.is_dir() and level < _LEVELS:
                waiting.append((name, level + 1))
            elif entry.is_file():
                yield name


def _head(root: str, name: str) -> str:
    try:
        with open(os.path.join(root, name), 'rb') as file:
            return file.read(_HEAD).decode('utf-8', 'replace')
    except OSError:
        return ''


def _of_other_tool(root: str, files: list[str]) -> tuple[str, tuple[str, str]] | None:
    """The first file of a tool whose projects no reader reads; what it is, and what to do with it."""
    for name in files:
        if not name.endswith('.json'):
            continue
        head = _head(root, name)
        if any(word in head for word in ('_via_settings', '_via_img_metadata')) or (
            '"regions"' in head and '"shape_attributes"' in head
        ):
            return name, other_tools.VIA
        if posixpath.basename(name) == 'meta.json' and '"classes"' in head and '"tags"' in head:
            return name, other_tools.SUPERVISELY
    return None


def _common(title: str, reader: str, train: str, evaluation: str, **settings: Any) -> Layout:
    return Layout(title, reader, settings, {'split': train}, {'split': evaluation})


def _splits(names: list[str]) -> tuple[str, str]:
    """The names of the training and of the evaluation split; the same one if there is no other."""
    train = next((name for word in _TRAIN for name in names if name == word), names[0])
    others = [name for name in names if name != train]
    return train, next((name for word in _VAL for name in others if name == word), others[0] if others else train)


def _cityscapes(root: str, files: list[str]) -> tuple[Layout, str] | None:
    tops = {name.split('/')[0] for name in files}
    if not {'leftImg8bit', 'gtFine'} <= tops:
        return None
    return _common('the layout of Cityscapes', 'cityscapes', 'train', 'val'), ''


def _voc(root: str, files: list[str]) -> tuple[Layout, str] | None:
    for inside in ('', 'VOC2012', 'VOCdevkit/VOC2012'):
        images, labels, lists = (
            [name for name in files if name.startswith(posixpath.join(inside, folder, ''))]
            for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation')
        )
        if images and labels and lists:
            names = sorted(posixpath.splitext(posixpath.basename(name))[0] for name in lists)
            return _common('the layout of PASCAL VOC', 'voc_layout', *_splits(names)), inside
    return None


def _yolo(root: str, files: list[str]) -> tuple[Layout, str] | None:
    settings = [name for name in files if posixpath.basename(name) in ('data.yaml', 'dataset.yaml')]
    texts = [name for name in files if name.endswith('.txt') and 'labels' in name.split('/')[:-1]]
    if not settings and not texts:
        return None
    inside = posixpath.dirname(settings[0]) if settings else ''
    words = {word for name in texts for word in name.split('/')[:-1]}
    there = [word for word in (*_TRAIN, *_VAL) if word in words]
    if settings:
        there = re.findall(r'^(train|val|test)\s*:\s*\S', _head(root, settings[0]), re.MULTILINE) or there
    train, evaluation = _splits(there) if there else ('train', 'val')
    return _common("YOLO's layout", 'yolo', train, evaluation), inside


def _json(root: str, files: list[str]) -> tuple[Layout, str] | None:
    """COCO's files, of any tool, and LabelMe's."""
    coco = []
    for name in [name for name in files if name.endswith('.json')][:_ENTRIES]:
        head = _head(root, name)
        if '"shapes"' in head:
            return _common('files of LabelMe', 'labelme', 'train', 'val'), ''
        if _OF_COCO.fullmatch(name) or '"images"' in head or '"annotations"' in head or '"categories"' in head:
            coco.append(name)
    if not coco:
        return None
    title, splits = "COCO's format", {}
    for name in coco:
        if place := _OF_COCO.fullmatch(name):
            splits[place[1] or place[2]] = name
    if len(splits) > 1:
        return _common(title, 'coco', *_splits(sorted(splits))), ''
    if len(coco) == 1:
        return _common(f'{title}, one file for all images', 'coco', 'train', 'val'), ''
    train, evaluation = _splits_of_files(coco)
    return (
        Layout(
            title,
            'coco',
            {},
            {'split': 'train', 'annotations': train},
            {'split': 'val', 'annotations': evaluation},
        ),
        '',
    )


def _splits_of_files(names: list[str]) -> tuple[str, str]:
    train = next((name for name in names if 'train' in posixpath.basename(name).lower()), names[0])
    others = [name for name in names if name != train]
    return train, next((name for name in others if re.search('val|test', posixpath.basename(name).lower())), others[0])


def _tfrecord(root: str, files: list[str]) -> tuple[Layout, str] | None:
    """TFRecord files in one folder."""
    # Imported here, because they import this module for messages.
    from seg.datasets.records import tfrecord_files, tfrecord_index

    found = [name for name in files if tfrecord_files.looks_like_records(posixpath.basename(name))]
    if not found:
        return None
    inside = posixpath.dirname(found[0])
    found = [name for name in found if posixpath.dirname(name) == inside]
    names = sorted({re.split('[-.]', posixpath.basename(name))[0] for name in found})
    if not any(name in (*_TRAIN, *_VAL) for name in names):  # The split may be another word of the name.
        words = {word for name in found for word in re.split(r'[\W_]+', posixpath.basename(name))}
        names = [word for word in (*_TRAIN, *_VAL) if word in words] or names
    layout = _common('TFRecord files', 'tfrecord', *_splits(names))
    if tfrecord_index.has_label_maps('datasets.tfrecord', [os.path.join(root, name) for name in found]):
        layout = layout._replace(other_recipe='gin/deeplab_camvid.gin')
    return layout, inside


def _tfds(root: str, files: list[str]) -> tuple[Layout, str] | None:
    """A prepared set of TensorFlow Datasets, the first one in the folder."""
    from seg.datasets.records import fields, tfds_folder

    names = tfds_folder.INFO, 'features.json'
    folders = [{posixpath.dirname(name) for name in files if posixpath.basename(name) == each} for each in names]
    if not (both := sorted(set.intersection(*folders))):
        return None
    inside = both[0]
    builder = tfds_folder.opened('datasets.tfds', os.path.join(root, inside))
    layout = _common('a set of TensorFlow Datasets', 'tfds', *_splits([*builder.info.splits] or ['train']))
    if 'label' in fields.find('datasets.tfds', builder.info.features, None, 'label_map'):
        layout = layout._replace(other_recipe='gin/deeplab_camvid.gin')
    return layout, inside


# Each recognises files that no other layout has, and gives the layout and the folder in `root` that the reader needs.
_LOOKS = (_tfds, _cityscapes, _voc, _yolo, _json, _tfrecord)


def _best_pair(files: list[str], of_labels: Collection[str]) -> tuple[str, str, Collection[str]] | None:
    """The folders of images and of label maps, and all folders; label maps have the endings `of_labels`."""
    stems: dict[str, set[str]] = {}
    endings: dict[str, set[str]] = {}
    for name in files:
        stem, ending = posixpath.splitext(posixpath.basename(name))
        if ending.lower() in (*_IMAGES, *_LABELS):
            folder = posixpath.dirname(name)
            stems.setdefault(folder, set()).add(stem)
            endings.setdefault(folder, set()).add(ending.lower())
    best: tuple[tuple[int, int, int], str, str] | None = None
    for images, labels in _pairs_of_folders(sorted(stems)):
        if not endings[labels] <= set(of_labels) or not endings[images] <= set(_IMAGES):
            continue
        shared = _shared(stems[images], stems[labels])
        if not shared:
            continue
        words = bool(_MASK_WORDS.search(labels)) - bool(_MASK_WORDS.search(images))
        rank = (words, '.jpg' in endings[images] or '.jpeg' in endings[images], shared)
        if best is None or rank > best[0]:
            best = rank, images, labels
    return best and (best[1], best[2], stems)


def _folders(root: str, files: list[str]) -> tuple[Layout, str] | None:
    """Two folders with files of the same names, one of which can hold label maps."""
    found = _best_pair(files, _LABELS)
    if found is None:
        return None
    images, labels, stems = found
    if several := _in_each_folder(images, labels, stems):
        return _common(_OF_FOLDERS, 'folders', 'train', 'val', images=several[0], labels=several[1]), ''
    words = set((*_TRAIN, *_VAL))
    pattern = [
        posixpath.join(*('{split}' if part in words else part for part in folder.split('/')))
        for folder in (images, labels)
    ]
    there = sorted({part for folder in stems for part in folder.split('/')} & words)
    title = _OF_FOLDERS
    if len(there) > 1 and all('{split}' in folder for folder in pattern):
        train, evaluation = _splits(there)
        return _common(title, 'folders', train, evaluation, images=pattern[0], labels=pattern[1]), ''
    return _common(title, 'folders', 'train', 'val', images=images, labels=labels), ''


def _pairs_of_folders(folders: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of folders that may hold images and labels: of few folders all pairs, of many those beside each other."""
    if len(folders) <= _FEW:
        yield from itertools.permutations(folders, 2)
        return
    for _, beside in itertools.groupby(sorted(folders, key=posixpath.dirname), key=posixpath.dirname):
        yield from itertools.permutations(list(beside)[:_FEW], 2)


def _in_each_folder(images: str, labels: str, folders: Collection[str]) -> tuple[str, str] | None:
    """Globs for two folders that lie, by the same names, in several folders, such as one for each patient."""
    parent, of_images, of_labels = posixpath.dirname(images), posixpath.basename(images), posixpath.basename(labels)
    if not parent or parent != posixpath.dirname(labels) or set(parent.split('/')) & {*_TRAIN, *_VAL}:
        return None
    above = posixpath.dirname(parent)
    alike = [
        folder
        for folder in {posixpath.dirname(name) for name in folders}
        if folder
        and posixpath.dirname(folder) == above
        and {posixpath.join(folder, of_images), posixpath.join(folder, of_labels)} <= set(folders)
    ]
    if len(alike) < 2:
        return None
    return tuple(posixpath.join(above, '*', name) for name in (of_images, of_labels))


def _shared(images: set[str], labels: set[str]) -> int:
    """How many images have a label map: of the same name, or with the same beginning or end added to all."""
    if same := len(images & labels):
        return same
    for image in sorted(images)[:3]:
        for label in labels:
            if image and image in label and not re.search(r'\d', label.replace(image, '', 1)):
                before, after = label.split(image, 1)
                return sum(f'{before}{stem}{after}' in labels for stem in images)
    return 0
