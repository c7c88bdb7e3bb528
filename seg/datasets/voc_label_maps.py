"""Label maps in a folder in the layout of PASCAL VOC."""

from __future__ import annotations

import collections
import functools
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from seg.datasets import checking, image_files, voc_folder
from seg.datasets.base import Dataset
from seg.datasets.voc_folder import IGNORE_LABEL
from seg.drawing.palette import voc_palette
from seg.errors import UserError, shown
from seg.structures import ClassHistogram, DatasetInfo

_IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png')
_DARK = 64  # An image whose values (8 bits) are all lower is nearly black.


class VocLabelMaps(Dataset):
    """The data set made by `voc_layout` with the target 'label_map'.

    Examples have `image` uint8 [H, W, 3] and `label` int32 [H, W]: class ids, 255 where ignored.

    The constructor lists the files, `info` reads their headers, and `verify()` decodes them. In doing so it counts the
    class histogram, so that nothing is decoded twice.
    """

    _first_class = 0  # First id of a class in the labels.
    _too_few = 'which leaves nothing to distinguish. Name the background as well, and label it with its own id'

    def __init__(self, root: str, split: str, class_names: Sequence[str], stems: Sequence[str], decode_all: bool):
        self._root, self._split, self._stems, self._decode_all = root, split, tuple(stems), decode_all
        self._class_names = tuple(class_names)
        if len(self._class_names) < 2:
            names = posixpath.join(root, voc_folder.NAMES)
            raise UserError(f'{names} names {shown(self._class_names[0])} only, {self._too_few}.')
        self._where = f'datasets.voc_layout, split {split!r} of {root}'
        self._image_paths = self._find_files(voc_folder.IMAGES, _IMAGE_ENDINGS, 'image')
        self._label_paths = self._find_files(voc_folder.LABELS, ('.png',), 'label')
        self._histogram: ClassHistogram | None = None

    @functools.cached_property
    def info(self) -> DatasetInfo:
        """Facts about the split.

        Raises:
          UserError: if a header cannot be read, or image and label differ in size.
        """
        headers = self._headers
        return DatasetInfo(
            name=f'voc_layout/{self._split}',
            class_names=self._class_names[self._first_class :],
            num_examples=len(self._stems),
            max_size=(max(h.height for h in headers), max(h.width for h in headers)),
            ignore_label=IGNORE_LABEL,
            original_ids=tuple(range(self._first_class, len(self._class_names))) if self._first_class else None,
            colors=voc_palette(len(self._class_names))[self._first_class :],
        )

    def image_name(self, index: int) -> str:
        """Name of an image's file without its ending, as listed in the split."""
        return self._stems[index]

    def image_path(self, index: int) -> str:
        """The file of an image."""
        return self._image_paths[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if a file is missing or damaged, or if image and label differ in size."""
        image = image_files.decode_image(tf.io.read_file(tf.gather(self._image_paths, index)))
        label_path = tf.gather(self._label_paths, index)
        label = image_files.decode_label(tf.io.read_file(label_path))
        fits = tf.reduce_all(tf.shape(image)[:2] == tf.shape(label))
        message = ['Image and label differ in size:', label_path, tf.shape(image), tf.shape(label)]
        with tf.control_dependencies([tf.debugging.Assert(fits, message)]):
            return {'image': tf.identity(image), 'label': tf.identity(label)}

    def verify(self) -> None:
        """Checks every file of the split, by decoding it unless the setting `verify` is off.

        Raises:
          UserError: names the first five files that cannot be used, the fault of each, and the remedy.
        """
        _ = self.info
        if self._decode_all and self._histogram is None:
            self._histogram = self._count(check_images=True)

    def class_histogram(self) -> ClassHistogram:
        """Pixels by class of the whole split; decodes the labels if `verify()` has not done so.

        Raises:
          UserError: if a label cannot be decoded or is out of range.
        """
        if self._histogram is None:
            self._histogram = self._count(check_images=False)
        return ClassHistogram(*(counts[self._first_class :] for counts in self._histogram))

    def _find_files(self, folder: str, endings: Sequence[str], kind: str) -> list[str]:
        """Returns the file of every listed name, with the first of the `endings` that exists."""
        files = {}
        for below in {posixpath.dirname(stem) for stem in self._stems}:
            if below.startswith('/') or '..' in below.split('/'):
                continue  # The name leads out of the folder.
            for name in checking.listed(posixpath.join(self._root, folder, below)):
                stem, ending = posixpath.splitext(posixpath.join(below, name))
                files.setdefault(stem, {})[ending.lower()] = f'{stem}{ending}'
        missing = [stem for stem in self._stems if not any(e in files.get(stem, ()) for e in endings)]
        if missing:
            named = checking.first_of([f'{stem}{endings[0]}' for stem in missing])
            others = {name for stem in missing for name in files.get(stem, {}).values()}
            there = f' There is {min(others)}, but a {kind} must end in {" or ".join(endings)}.' if others else ''
            plain = _plain_name(missing[0])
            if plain != missing[0] and self._is_there(folder, plain, endings):
                there = (
                    f' Expected one name per line, without folder, ending or anything after it: {plain!r}, not '
                    f'{shown(missing[0])}.'
                )
            raise UserError(
                f'{self._where}: {len(missing)} of {len(self._stems)} listed names have no {kind} in '
                f'{posixpath.join(self._root, folder)}: {named}.{there} Add the files, or remove the names from '
                f'{" and ".join(voc_folder.split_paths(self._root, self._split))}.'
            )
        return [
            posixpath.join(self._root, folder, next(files[stem][e] for e in endings if e in files[stem]))
            for stem in self._stems
        ]

    def _is_there(self, folder: str, stem: str, endings: Sequence[str]) -> bool:
        return any(tf.io.gfile.exists(posixpath.join(self._root, folder, stem + ending)) for ending in endings)

    @functools.cached_property
    def _headers(self) -> list[image_files.ImageHeader]:
        """Headers of all images. Compares the sizes of images and labels."""
        checked = list(checking.in_threads(self._check_headers, len(self._stems), f'{self._where}: reading headers'))
        self._raise_problems([item for item in checked if isinstance(item, str)])
        checking.warn_of_turned(self._where, self._stems, checked)
        return checked

    def _label_files(self, index: int) -> list[tuple[str, str]]:
        """The label files of an example, and the term for each in messages."""
        return [(self._label_paths[index], 'label')]

    def _check_headers(self, index: int) -> image_files.ImageHeader | str:
        """The header of an image, or the fault of the image or of its label files."""
        image = None
        for path, kind in ((self._image_paths[index], 'image'), *self._label_files(index)):
            try:
                header = image_files.read_header(path)
            except (ValueError, tf.errors.OpError) as error:
                return f'{path}: not a readable {kind}: {error}. Replace the file, or remove its name from the split.'
            image = image or header
            if kind != 'image' and (problem := self._compare(index, image, header, path, kind)):
                return problem
        return image

    def _compare(self, index: int, image, label, path: str, kind: str) -> str | None:
        """The fault of a label file, from its header and the header of the image."""
        if label.format != 'png':
            return f'{path}: the {kind} is a JPEG file, which blurs ids. Save it as greyscale or palette PNG.'
        if label.color_type not in (0, 3):
            return (
                f'{path}: the {kind} is a PNG of type {image_files.PNG_COLOR_TYPES.get(label.color_type, "?")}. '
                'Expected greyscale or palette, where each sample is an id: convert colours to ids and save it again.'
            )
        if (image.height, image.width) != (label.height, label.width):
            turned = image.orientation >= 5 and (image.width, image.height) == (label.height, label.width)
            remedy = (
                f'The image has EXIF orientation {image.orientation}, which is not applied here: turn its stored '
                'pixels (for example by ImageMagick: mogrify -auto-orient).'
                if turned
                else f'Both must have the same size: make the {kind} again, or scale it by nearest neighbour.'
            )
            return (
                f'{path}: the {kind} is {label.width}x{label.height} pixels, the image {self._image_paths[index]} is '
                f'{image.width}x{image.height} (width x height). {remedy}'
            )
        return None

    def _count(self, check_images: bool) -> ClassHistogram:
        """Decodes the split and counts its pixels by class."""
        check = functools.partial(self._decode, check_image=check_images)
        found = list(checking.in_threads(check, len(self._stems), f'{self._where}: checking files'))
        counts = [item for item in found if isinstance(item, _Counts)]
        total = _Counts(
            sum(item.classes for item in counts),
            sum(item.ignored for item in counts),
            sum((item.unknown for item in counts), collections.Counter()),
        )
        self._raise_problems(
            [
                item if isinstance(item, str) else self._out_of_range(path, item, total)
                for path, item in zip(self._label_paths, found, strict=True)
                if isinstance(item, str) or item.unknown
            ]
        )
        self._check_values(total, counts)
        pixels = total.classes
        labelled = max(int(pixels.sum()), 1)
        shares = ', '.join(f'{n} {name} {100 * pixels[n] / labelled:.2f} %' for n, name in enumerate(self._class_names))
        logging.info(
            '%s: %d examples are sound. Labelled pixels by class: %s; %.2f %% of all pixels are ignored.',
            *(self._where, len(self._stems), shares, 100 * total.ignored / (labelled + total.ignored)),
        )
        return ClassHistogram(pixels, sum((item.classes > 0) * item.classes.sum() for item in counts))

    def _check_values(self, total: _Counts, counts: Sequence[_Counts]) -> None:
        """Refuses labels that hold one class only; warns of likely mistakes."""
        pixels = total.classes
        occurring, absent = np.flatnonzero(pixels), np.flatnonzero(pixels == 0)
        if len(occurring) < 2:
            values = [*occurring.tolist(), *([IGNORE_LABEL] if total.ignored else [])]
            remedy = 'Label the pixels of each class with its id'
            if total.ignored:
                remedy = (
                    f'{IGNORE_LABEL} is ignored. If it marks a class, write its id instead, such as {absent[0]} for '
                    f'{shown(self._class_names[absent[0]])}'
                )
            raise UserError(
                f'{self._where}: all labels hold {" and ".join(map(str, values))} only'
                f'{"".join(f" (class {shown(self._class_names[n])})" for n in occurring)}, so that there is nothing to '
                f'distinguish. {remedy}.'
            )
        two = [
            stem
            for stem, item in zip(self._stems, counts, strict=True)
            if item.ignored and item.classes[0] and not item.classes[1:].any()
        ]
        if two:
            logging.warning(
                '%s: %d of %d labels hold 0 and %d only, such as %s. %d is ignored; if it marks a class there, write '
                'its id instead.',
                *(self._where, len(two), len(counts), IGNORE_LABEL, checking.first_of(two), IGNORE_LABEL),
            )
        names = posixpath.join(self._root, voc_folder.NAMES)
        if absent.size and not tf.io.gfile.exists(names):
            logging.warning(
                '%s: there is no %s, so the classes are the %d of PASCAL VOC, of which %s do not occur. If you have '
                'other classes, write their names into this file, one per line.',
                *(self._where, names, len(pixels), checking.first_of(absent.tolist())),
            )
        dark = [
            stem
            for stem, item in zip(self._stems, counts, strict=True)
            if item.greatest is not None and item.greatest < _DARK
        ]
        if dark:
            logging.warning(
                '%s: %d of %d images are nearly black, such as %s: no value is above %d of 255. Of images of 16 bits '
                'only the 8 highest bits are read: if a camera has fewer, such as 12, scale its values to 16 bits.',
                *(self._where, len(dark), len(counts), checking.first_of(dark), _DARK - 1),
            )

    def _decode(self, index: int, check_image: bool) -> _Counts | str:
        """Decodes as in `load`: a file that passes here does not fail there."""
        path, greatest = self._image_paths[index], None
        try:
            if check_image:
                greatest = int(_greatest(tf.io.read_file(path)))
            path = self._label_paths[index]
            counts = _count_samples(tf.io.read_file(path)).numpy()
        except tf.errors.OpError as error:
            return checking.damage(path, error, 'remove its name from the split')
        num_classes, ignored = len(self._class_names), int(counts[IGNORE_LABEL])
        counts[IGNORE_LABEL] = 0
        unknown = np.flatnonzero(counts[num_classes:]) + num_classes
        return _Counts(
            counts[:num_classes],
            ignored,
            collections.Counter({int(value): int(counts[value]) for value in unknown}),
            greatest,
        )

    def _out_of_range(self, path: str, item: _Counts, total: _Counts) -> str:
        """Describes a label with values that are not classes, with a remedy that depends on the other labels."""
        num_classes, unknown = len(self._class_names), sorted(total.unknown)
        found = [f'{value} ({pixels} pixels)' for value, pixels in sorted(item.unknown.items())]
        names = posixpath.join(self._root, voc_folder.NAMES)
        origin = names if tf.io.gfile.exists(names) else f'PASCAL VOC, because there is no {names}'
        remedy = 'Change the labels, or add names for the missing classes there'
        if unknown == [num_classes] and not total.classes[0]:
            remedy = 'The labels seem to start at 1: subtract 1 from each except 255, or add a name for class 0 there'
        elif num_classes == 2 and len(unknown) == 1 and total.classes[0] and not total.classes[1]:
            remedy = f'If {unknown[0]} marks {shown(self._class_names[1])}, write 1 instead'
        return (
            f'{path}: label values out of range: {", ".join(found[: checking.SHOWN])}. Classes are '
            f'0..{num_classes - 1} from {origin}; {IGNORE_LABEL} is ignored. {remedy}.'
        )

    def _raise_problems(self, problems: Sequence[str]) -> None:
        checking.raise_problems(self._where, problems, len(self._stems))


class _Counts(NamedTuple):
    classes: np.ndarray  # int64 [num_classes], pixels of each class.
    ignored: int
    unknown: collections.Counter[int]  # Pixels by value, of values that are not classes.
    greatest: int | None = None  # Largest value of the image; None if it was not decoded.


def _plain_name(line: str) -> str:
    """A name without its path, its ending and what follows it in lists of other tools, such as labels."""
    words = line.split()
    return posixpath.splitext(posixpath.basename(words[0]))[0] if words else line


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _greatest(contents):
    """Greatest value of an image, 0 to 255, decoded as in `load`."""
    return tf.reduce_max(image_files.decode_image(contents))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _count_samples(contents):
    """Number of pixels of each value, int64 [256 or more]."""
    return tf.cast(tf.math.bincount(image_files.decode_label(contents), minlength=256, maxlength=65536), tf.int64)
