"""Folders in the layout of PASCAL VOC: pictures, label files, lists of names."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from seg.datasets import checking, image_files
from seg.datasets.palette import voc_palette
from seg.errors import UserError
from seg.registry import datasets
from seg.structures import ClassHistogram, DatasetInfo

IGNORE_LABEL = 255
VOC_CLASS_NAMES = tuple(
    'background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person '
    'pottedplant sheep sofa train tvmonitor'.split()
)
_IMAGES, _LABELS, _SPLITS, _NAMES = 'JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation', 'class_names.txt'
_IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png')


@datasets.register('voc_layout', free=('data_dir',))
def voc_layout(*, data_dir: str, split: str = 'train', labels: str = 'semantic', verify: bool = True) -> VocLayout:
    """Pictures with label files in a folder laid out like PASCAL VOC, with VOC's classes or your own.

    The folder holds
    - `JPEGImages/<name>.jpg` (or .jpeg, .png),
    - `SegmentationClass/<name>.png`: the class id of each pixel, greyscale or indices into any palette; 255 is ignored,
    - `ImageSets/Segmentation/<split>.txt`: the names of the split, one a line,
    - `class_names.txt`: the class names, one a line, id 0 first. Without it the classes are the 21 of PASCAL VOC.

    Pictures and labels are taken as stored: an EXIF orientation is not applied, for label tools write plain PNGs. Where
    it makes picture and label differ in size, the message says so.

    Args:
      data_dir: that folder, or a folder that holds it as `VOC2012` or `VOCdevkit/VOC2012`.
      split: which list of names to use.
      labels: 'semantic', the only kind here.
      verify: whether `verify()` decodes every file. Otherwise it reads headers only: sizes and file types.

    Raises:
      UserError: if the folder, the list or a listed file is missing, or a setting is out of its range.
    """
    if labels != 'semantic':
        raise UserError(f"voc_layout: labels {labels!r} are asked for; this data set has 'semantic' labels only.")
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        raise UserError(
            f'voc_layout.data_dir = {data_dir!r}: expected the path of a folder that holds {_IMAGES}, {_LABELS} and '
            f'{_SPLITS}. Set it in the gin file or by --gin_param="voc_layout.data_dir=\'/path/to/VOCdevkit\'".'
        )
    root = _find_root(os.path.expanduser(str(data_dir)))
    return VocLayout(root, split, _read_class_names(root), _read_split(root, split), decode_all=verify)


class VocLayout:
    """The data set made by `voc_layout`.

    Examples have `image` uint8 [H, W, 3] and `label` int32 [H, W]: class ids, 255 where ignored.

    Files are listed when the object is made, headers are read when `info` is first asked for, and all else by
    `verify()`, which also counts the class histogram, so that nothing is decoded twice.
    """

    def __init__(self, root: str, split: str, class_names: Sequence[str], stems: Sequence[str], decode_all: bool):
        self._root, self._split, self._stems, self._decode_all = root, split, tuple(stems), decode_all
        self._class_names = tuple(class_names)
        self._where = f'voc_layout, split {split!r} of {root}'
        self._image_paths = self._find_files(_IMAGES, _IMAGE_ENDINGS, 'picture')
        self._label_paths = self._find_files(_LABELS, ('.png',), 'label')
        self._histogram: ClassHistogram | None = None

    @functools.cached_property
    def info(self) -> DatasetInfo:
        """Facts about the split.

        Raises:
          UserError: if a header can't be read, or picture and label differ in size.
        """
        headers = self._headers
        return DatasetInfo(
            name=f'voc_layout/{self._split}',
            class_names=self._class_names,
            num_examples=len(self._stems),
            max_size=(max(h.height for h in headers), max(h.width for h in headers)),
            ignore_label=IGNORE_LABEL,
            colors=voc_palette(len(self._class_names)),
        )

    def image_name(self, index: int) -> str:
        """Name of a picture's file without its ending, as listed in the split."""
        return self._stems[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads and decodes one example.

        Args:
          index: scalar int64 below the number of examples.

        Returns:
          The example, see the class.

        Raises:
          tf.errors.OpError: from within the graph, if a file is missing or damaged, or the sizes of picture and label
            differ, or a label is out of range.
        """
        image = image_files.decode_image(tf.io.read_file(tf.gather(self._image_paths, index)))
        label_path = tf.gather(self._label_paths, index)
        label = image_files.decode_label(tf.io.read_file(label_path))
        fits = tf.reduce_all(tf.shape(image)[:2] == tf.shape(label))
        known = tf.reduce_all((label < len(self._class_names)) | (label == IGNORE_LABEL))
        checks = [
            tf.debugging.Assert(
                fits, ['Picture and label differ in size:', label_path, tf.shape(image), tf.shape(label)]
            ),
            tf.debugging.Assert(known, ['Label out of range in', label_path]),
        ]
        with tf.control_dependencies(checks):
            return {'image': tf.identity(image), 'label': tf.identity(label)}

    def verify(self) -> None:
        """Checks every file of the split, by decoding it unless the setting `verify` is off.

        Raises:
          UserError: names the first five files that can't be used, what is wrong with each, and what to do.
        """
        _ = self.info
        if self._decode_all and self._histogram is None:
            self._histogram = self._count(check_images=True)

    def class_histogram(self) -> ClassHistogram:
        """Pixels by class of the whole split; decodes the labels if `verify()` has not done so.

        Raises:
          UserError: if a label can't be decoded or is out of range.
        """
        if self._histogram is None:
            self._histogram = self._count(check_images=False)
        return self._histogram

    def _find_files(self, folder: str, endings: Sequence[str], kind: str) -> list[str]:
        """Returns the file of every listed name, the first of `endings` that is there."""
        files = {}
        for name in tf.io.gfile.listdir(posixpath.join(self._root, folder)):
            stem, ending = posixpath.splitext(name)
            files.setdefault(stem, {})[ending.lower()] = name
        missing = [stem for stem in self._stems if not any(e in files.get(stem, ()) for e in endings)]
        if missing:
            named = checking.first_of([f'{stem}{endings[0]}' for stem in missing])
            others = {name for stem in missing for name in files.get(stem, {}).values()}
            there = f' There is {min(others)}, but a {kind} must end in {" or ".join(endings)}.' if others else ''
            if posixpath.splitext(missing[0])[0] in files and posixpath.splitext(missing[0])[0] != missing[0]:
                there = f' Names are listed without ending: {posixpath.splitext(missing[0])[0]}, not {missing[0]}.'
            raise UserError(
                f'{self._where}: {len(missing)} of {len(self._stems)} listed names have no {kind} in '
                f'{posixpath.join(self._root, folder)}: {named}.{there} '
                f'Add the files, or take the names out of {" and ".join(_split_paths(self._root, self._split))}.'
            )
        return [
            posixpath.join(self._root, folder, next(files[stem][e] for e in endings if e in files[stem]))
            for stem in self._stems
        ]

    @functools.cached_property
    def _headers(self) -> list[image_files.ImageHeader]:
        """Headers of all pictures, after picture and label were compared."""
        checked = list(checking.in_threads(self._check_headers, len(self._stems), f'{self._where}: reading headers'))
        self._raise_problems([item for item in checked if isinstance(item, str)])
        checking.warn_of_turned(self._where, self._stems, checked)
        return checked

    def _check_headers(self, index: int) -> image_files.ImageHeader | str:
        headers = []
        for path, kind in ((self._image_paths[index], 'picture'), (self._label_paths[index], 'label')):
            try:
                headers.append(image_files.read_header(path))
            except (ValueError, tf.errors.OpError) as error:
                return f'{path}: no readable {kind}: {error}. Replace the file, or take its name out of the split.'
        image, label = headers
        if label.format != 'png':
            return f'{path}: the label is a JPEG file, which blurs class ids. Save it as greyscale or palette PNG.'
        if label.color_type not in (0, 3):
            return (
                f'{path}: the label is a PNG of type {image_files.PNG_COLOR_TYPES.get(label.color_type, "?")}. '
                'Expected greyscale or palette, each sample a class id; turn colours into class ids and save it again.'
            )
        if (image.height, image.width) != (label.height, label.width):
            turned = image.orientation >= 5 and (image.width, image.height) == (label.height, label.width)
            mend = (
                f'The picture has EXIF orientation {image.orientation}, which is not applied here: turn its stored '
                'pixels (for example by ImageMagick: mogrify -auto-orient).'
                if turned
                else 'Both must have the same size; make the label anew, or scale it by nearest neighbour.'
            )
            return (
                f'{path}: the label is {label.width}x{label.height} pixels, the picture {self._image_paths[index]} is '
                f'{image.width}x{image.height} (width x height). {mend}'
            )
        return image

    def _count(self, check_images: bool) -> ClassHistogram:
        """Decodes the split and counts its pixels by class."""
        check = functools.partial(self._decode, check_image=check_images)
        num_classes = len(self._class_names)
        pixels, present, ignored = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64), 0
        problems = []
        for item in checking.in_threads(check, len(self._stems), f'{self._where}: checking files'):
            if isinstance(item, str):
                problems.append(item)
                continue
            pixels += item.classes
            present += (item.classes > 0) * item.classes.sum()
            ignored += item.ignored
        self._raise_problems(problems)
        if ignored and num_classes > 1 and np.count_nonzero(pixels) < 2:
            found = ''.join(f'{class_id} and ' for class_id in np.flatnonzero(pixels))
            raise UserError(
                f'{self._where}: all labels hold {found}{IGNORE_LABEL} only, and {IGNORE_LABEL} is ignored, so that '
                f'there is nothing to tell apart. If {IGNORE_LABEL} marks a class, write its id instead, such as 1 for '
                f'{self._class_names[1]!r}.'
            )
        total = max(int(pixels.sum()), 1)
        shares = ', '.join(f'{n} {name} {100 * pixels[n] / total:.2f} %' for n, name in enumerate(self._class_names))
        logging.info(
            '%s: %d examples are sound. Labelled pixels by class: %s; %.2f %% of all pixels are ignored.',
            *(self._where, len(self._stems), shares, 100 * ignored / (total + ignored)),
        )
        return ClassHistogram(pixels, present)

    def _decode(self, index: int, check_image: bool) -> _Counts | str:
        """Decodes as `load` does, so that what passes here can't fail there."""
        path = self._image_paths[index]
        try:
            if check_image:
                checking.decoded_shape(tf.io.read_file(path))
            path = self._label_paths[index]
            counts = _count_samples(tf.io.read_file(path)).numpy()
        except tf.errors.OpError as error:
            return checking.damage(path, error, 'take its name out of the split')
        num_classes = len(self._class_names)
        ignored = int(counts[IGNORE_LABEL])
        counts[IGNORE_LABEL] = 0
        wrong = np.flatnonzero(counts[num_classes:]) + num_classes
        if not wrong.size:
            return _Counts(counts[:num_classes], ignored)
        values = ', '.join(f'{value} ({counts[value]} pixels)' for value in wrong[: checking.SHOWN])
        names = posixpath.join(self._root, _NAMES)
        origin = names if tf.io.gfile.exists(names) else f'PASCAL VOC, since there is no {names}'
        mend = 'Change the labels, or name the missing classes there'
        if num_classes == 2 and len(wrong) == 1:
            mend = f'If {wrong[0]} marks {self._class_names[1]!r}, write 1 instead'
        elif wrong.max() == num_classes and not counts[0]:
            mend = 'The labels seem to begin at 1: subtract 1 from each but 255, or name class 0 there'
        return (
            f'{path}: label values out of range: {values}. Classes are 0..{num_classes - 1} from {origin}; '
            f'{IGNORE_LABEL} is ignored. {mend}.'
        )

    def _raise_problems(self, problems: Sequence[str]) -> None:
        checking.raise_problems(self._where, problems, len(self._stems))


class _Counts(NamedTuple):
    classes: np.ndarray  # int64 [num_classes]
    ignored: int


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _count_samples(contents):
    """Number of pixels of each value, int64 [256 or more]."""
    return tf.cast(tf.math.bincount(image_files.decode_label(contents), minlength=256, maxlength=65536), tf.int64)


def _split_paths(root: str, split: str) -> list[str]:
    return [posixpath.join(root, _SPLITS, f'{part.strip()}.txt') for part in split.split('+')]


def _find_root(data_dir: str) -> str:
    """Returns the folder with the pictures, at or under `data_dir`."""
    needed = (_IMAGES, _LABELS, _SPLITS)
    candidates = [data_dir, posixpath.join(data_dir, 'VOC2012'), posixpath.join(data_dir, 'VOCdevkit', 'VOC2012')]
    for root in candidates:
        if all(tf.io.gfile.isdir(posixpath.join(root, folder)) for folder in needed):
            return root
    raise UserError(
        f'voc_layout.data_dir = {data_dir!r}: looked for a folder with {", ".join(needed)} there, in VOC2012 and in '
        f'VOCdevkit/VOC2012. {checking.holds(data_dir)}. '
        'Set voc_layout.data_dir (in most gin files the macro DATA_DIR) to that folder.'
    )


def _read_lines(path: str) -> list[str]:
    with tf.io.gfile.GFile(path, 'rb') as file:
        contents = file.read()
    try:
        return [line.strip() for line in contents.decode('utf-8-sig').splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}: expected a text file in UTF-8; byte {error.start} is not. Save it as UTF-8.'
        ) from None


def _read_split(root: str, split: str) -> list[str]:
    """Names of all lists of the split, each once."""
    stems: list[str] = []
    for path in _split_paths(root, split):
        if not tf.io.gfile.exists(path):
            folder = posixpath.join(root, _SPLITS)
            splits = sorted(name[: -len('.txt')] for name in tf.io.gfile.listdir(folder) if name.endswith('.txt'))
            there = f'{folder} lists {", ".join(splits)}' if splits else f'{folder} holds no .txt file'
            raise UserError(f'voc_layout.split = {split!r}: there is no {path}. {there}.')
        names = [line for line in _read_lines(path) if line]
        if not names:
            raise UserError(f'voc_layout.split = {split!r}: {path} is empty. Expected one name a line, without ending.')
        stems += names
    return list(dict.fromkeys(stems)) if '+' in split else stems


def _read_class_names(root: str) -> tuple[str, ...]:
    path = posixpath.join(root, _NAMES)
    if not tf.io.gfile.exists(path):
        return VOC_CLASS_NAMES
    names = _read_lines(path)
    while names and not names[-1]:
        names.pop()
    twice = sorted({name for name in names if names.count(name) > 1})
    trouble = None
    if not names:
        trouble = 'is empty'
    elif '' in names:
        trouble = f'has an empty line {names.index("") + 1}, which would shift all later ids'
    elif twice:
        trouble = f'names {twice[0]!r} twice'
    elif len(names) > IGNORE_LABEL:
        trouble = f'has {len(names)} names; the id {IGNORE_LABEL} means ignored, so that at most {IGNORE_LABEL} fit'
    if trouble:
        raise UserError(f'{path} {trouble}. Expected one class name a line, that of id 0 first.')
    return tuple(names)
