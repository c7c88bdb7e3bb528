"""Label maps in files, for the target 'label_map'."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from seg.datasets import checking, findings, image_files, orientation, remembered
from seg.datasets.base import Dataset
from seg.datasets.findings import Finding
from seg.datasets.label_maps import decoding, values
from seg.datasets.label_maps.decoding import Header
from seg.datasets.label_maps.legend import Legend
from seg.datasets.label_maps.values import Counts, Fault, Values
from seg.structures import ClassHistogram, DatasetInfo

_DARK = 64  # An image whose values (8 bits) are all lower is nearly black.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """The files of a split, and the words for them in messages.

    Attributes:
      part: the data set's gin key, such as 'datasets.folders'.
      split: name of the split.
      root: the folder of the data.
      names: name of each image.
      images: its file.
      labels: its label map.
      numbers: its instance map; empty for the target 'label_map'.
      drop: how an image is removed from the data: 'remove its name from the split'.
      add_names: end of a remedy, where names of classes are added: 'in class_names.txt'.
      hint: a last sentence about unknown values, such as on settings that give them a meaning.
      any_format: whether other formats than JPEG and PNG, and PNG of colours or with alpha as labels, are read.
      name: name of the set, for `DatasetInfo.name`; empty for that of the reader.
    """

    part: str
    split: str
    root: str
    names: Sequence[str]
    images: Sequence[str]
    labels: Sequence[str]
    numbers: Sequence[str] = ()
    drop: str = 'remove its name from the split'
    add_names: str = ''
    hint: str = ''
    any_format: bool = True
    name: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a data set: their names, and the ids and colours that they have in its files."""

    names: tuple[str, ...]
    original_ids: tuple[int, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] = ()


class LabelMaps(Dataset):
    """Images with label maps: `image` uint8 [H, W, 3] and `label` int32 [H, W], class ids, or the ignore label.

    The constructor takes the files, `info` reads their headers, and `verify()` decodes them. In doing so it counts the
    pixels of classes, so that nothing is decoded twice.

    Args:
      files: the files.
      legend: the meaning of their values.
      classes: the classes.
      decode_all: whether `verify()` decodes the files.
      upright: whether images are turned by their EXIF orientation.
      counted: values of label files that are known already, by path.
      remarks: findings about the whole, which `findings` gives first.
      extra: function from the pixels of the whole split to more findings.
    """

    def __init__(
        self,
        files: Files,
        legend: Legend,
        classes: Classes,
        decode_all: bool,
        upright: bool = False,
        counted: Mapping[str, Values] | None = None,
        remarks: Sequence[Finding] = (),
        extra: Callable[[Counts], Iterable[Finding]] = lambda total: (),
    ):
        self._files, self._legend, self._classes = files, legend, classes
        self._decode_all, self._upright, self._counted, self._remarks = decode_all, upright, counted or {}, remarks
        self._extra = extra
        self._where = f'{files.part}, split {files.split!r} of {files.root}'
        self._first_class = 0  # In `legend.ids`.

    @functools.cached_property
    def info(self) -> DatasetInfo:
        """Facts about the split.

        Raises:
          UserError: if a header cannot be read, or the files of an example do not fit together.
        """
        findings.settle(self._header_findings())
        sizes = [self._size(header) for header in self._headers]
        return DatasetInfo(
            name=f'{self._files.name or self._files.part.partition(".")[2]}/{self._files.split}',
            class_names=self._classes.names,
            num_examples=len(self._files.names),
            max_size=(max(height for height, _ in sizes), max(width for _, width in sizes)),
            ignore_label=self._legend.ignore,
            original_ids=self._classes.original_ids,
            colors=self._classes.colors,
        )

    def image_name(self, index: int) -> str:
        """Name of an image, without the ending of its file."""
        return self._files.names[index]

    def image_path(self, index: int) -> str:
        """The file of an image."""
        return self._files.images[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if a file is missing or damaged, or if image and label differ in size."""
        image = self._load_image(index)
        label = self._legend.lookup(self._decode_map(index, self._files.labels, 0, self._legend.by_color))
        return {'image': image, 'label': fitting(label, image, tf.gather(self._files.labels, index))}

    def readable(self) -> LabelMaps:
        """Without the images whose headers have a fault, if some remain."""
        good = [n for n, header in enumerate(self._headers) if not isinstance(header, Fault)]
        if len(good) in (0, len(self._headers)) or self.image_path(0) is None:
            return self
        files, rest = self._files, copy.copy(self)
        kept = {
            field: [getattr(files, field)[n] for n in good]
            for field in ('names', 'images', 'labels', 'numbers')
            if getattr(files, field)
        }
        # Nothing else that is computed from the files exists yet, because `info` raises.
        rest._files, rest._headers = dataclasses.replace(files, **kept), [self._headers[n] for n in good]
        rest._remarks = [*self._remarks, *self._header_findings()]
        return rest

    def verify(self) -> None:
        """Checks every file of the split, by decoding it unless the setting `verify` is off.

        Raises:
          UserError: names the first five files that cannot be used, the fault of each, and the remedy.
        """
        _ = self.info
        findings.settle(self.findings(self._decode_all))

    def findings(self, full: bool) -> Iterator[Finding]:
        """Faults of files and of label values; `full` decodes all files."""
        yield from self._remarks
        faults = self._header_findings()
        yield from faults
        if faults:
            return
        yield from checking.turned(self._where, self._files.names, self._headers, self._files.part, self._upright)
        if full:
            yield from self._pixel_findings()

    def class_histogram(self) -> ClassHistogram:
        """Pixels by class of the whole split; decodes the labels if `verify()` has not done so.

        Raises:
          UserError: if a label cannot be decoded or is out of range.
        """
        findings.settle(self._value_faults())
        legend, count = self._legend, len(self._classes.names)
        return values.class_histogram(self._counts, legend.ids, self._first_class, count, legend.ignore)

    # ---- In the graph ----

    def _load_image(self, index: tf.Tensor) -> tf.Tensor:
        native = decoding.natives(self._good_headers) if self._files.any_format else True
        path = tf.gather(self._files.images, index)
        return decoding.decode_image(
            path, native if isinstance(native, bool) else tf.gather(native, index), self._upright
        )

    def _decode_map(self, index: tf.Tensor, paths: Sequence[str], place: int, by_color: bool) -> tf.Tensor:
        """Stored values of a label file; `place` is its position in `Header.kinds`."""
        each = [header.kinds[place] for header in self._good_headers] if self._files.any_format else [decoding.SAMPLES]
        kind = each[0] if len(set(each)) == 1 else tf.gather(each, index)
        return decoding.decode_label(tf.gather(paths, index), kind, set(each), by_color)

    def _size(self, header: Header) -> tuple[int, int]:
        size = header.height, header.width
        return orientation.upright(size, header.orientation) if self._upright else size

    # ---- Headers ----

    @functools.cached_property
    def _headers(self) -> list[Header | Fault]:
        files = self._files
        paths = list(zip(files.images, *(each for _, each in self._label_files()), strict=True))
        key = [files.part, files.root, files.split, 'headers', len(paths[0]), self._upright, files.any_format]
        return remembered.each(key, paths, self._read_header, Header, f'{self._where}: reading headers')

    @property
    def _good_headers(self) -> list[Header]:
        _ = self.info  # Raises if one has a fault.
        return self._headers

    def _label_files(self) -> list[tuple[str, Sequence[str]]]:
        """The label files of examples, and the term for each kind of file in messages."""
        return [('label', self._files.labels)]

    def _header_findings(self) -> list[Finding]:
        return self._gathered(self._headers)

    def _gathered(self, items: Sequence[Any], remedies: Mapping[str, str] | None = None) -> list[Finding]:
        """The findings about the faults among the items, one for each kind; `remedies` are those of whole kinds."""
        faults: dict[str, list[tuple[str, str]]] = {}
        for name, item in zip(self._files.names, items, strict=True):
            if isinstance(item, Fault):
                faults.setdefault(item.kind, []).append((name, str(item)))
        return [
            found
            for kind, lines in faults.items()
            for found in findings.unusable(
                kind, self._where, lines, len(self._files.names), remedy=(remedies or {}).get(kind, '')
            )
        ]

    def _read_header(self, index: int) -> Header | Fault:
        """The headers of an example, or the fault of one of its files."""
        read = decoding.read_header if self._files.any_format else image_files.read_header
        image, kinds = None, []
        for kind, path in (('image', self._files.images[index]), *((k, p[index]) for k, p in self._label_files())):
            try:
                header = read(path)
            except (ValueError, tf.errors.OpError) as error:
                return Fault(
                    'unreadable_file',
                    f'{path}: not a readable {kind}: {error}. Replace the file, or {self._files.drop}.',
                )
            if kind == 'image':
                image = header
                if image.format == 'npy':
                    return Fault('wrong_format', f'{path}: an array is not an image. Expected JPEG or PNG.')
                continue
            if fault := self._check_kind(header, path, kind) or self._compare(index, image, header, path, kind):
                return fault
            kinds.append(decoding.label_kind(header))
        native = image.format in decoding.NATIVE
        return Header(image.height, image.width, image.orientation, native, kinds)

    def _check_kind(self, label: image_files.ImageHeader, path: str, kind: str) -> Fault | None:
        if fault := values.lossy(label.format, path, kind):
            return fault
        if label.format == 'png' and label.color_type not in (0, 3) and not self._files.any_format:
            return Fault(
                'wrong_format',
                f'{path}: the {kind} is a PNG of type {image_files.PNG_COLOR_TYPES.get(label.color_type, "?")}. '
                'Expected greyscale or palette, where each sample is an id: convert colours to ids and save it again, '
                'or read it by datasets.folders, with a table of colours.',
            )
        return None

    def _compare(self, index: int, image, label, path: str, kind: str) -> Fault | None:
        """The fault of a label file, from its header and the header of the image."""
        stored = image.height, image.width
        height, width = orientation.upright(stored, image.orientation) if self._upright else stored
        if (height, width) == (label.height, label.width):
            return None
        setting = f'{self._files.part}.orientation'
        if image.orientation >= 5 and (width, height) == (label.height, label.width):
            remedy = (
                f'The image has EXIF orientation {image.orientation}, which is applied here, and the {kind} fits the '
                f"image as stored: set {setting} = 'ignore'."
                if self._upright
                else f'The image has EXIF orientation {image.orientation}, which is not applied here: set {setting} = '
                "'apply', or turn its stored pixels (for example by ImageMagick: mogrify -auto-orient)."
            )
        else:
            remedy = f'Both must have the same size: make the {kind} again, or scale it by nearest neighbour.'
        return Fault(
            'size_mismatch',
            f'{path}: the {kind} is {label.width}x{label.height} pixels, the image {self._files.images[index]} is '
            f'{width}x{height} (width x height). {remedy}',
        )

    # ---- Pixels ----

    @functools.cached_property
    def _found(self) -> list[Values | Fault]:
        """The stored values of every label file."""
        files, legend = self._files, self._legend
        if all(path in self._counted for path in files.labels):
            return [self._counted[path] for path in files.labels]
        kinds = [header.kinds[0] for header in self._good_headers]

        def look(index):
            return values.count(files.labels[index], kinds[index], legend.by_color, files.drop)

        key = [files.part, files.root, files.split, 'values', legend.by_color]
        paths = [(path,) for path in files.labels]
        return remembered.each(key, paths, look, Values, f'{self._where}: checking labels')

    @functools.cached_property
    def _counts(self) -> list[Counts]:
        return [values.counts_of(item, self._legend) for item in self._found if not isinstance(item, Fault)]

    def _value_faults(self) -> list[Finding]:
        """Labels that are damaged or have unknown values."""
        files, legend, remedies = self._files, self._legend, {}
        total = values.total_of(self._counts) if self._counts else None
        if total and total.unknown:
            text = values.remedy_of_unknown_values(total, legend, files.add_names, files.hint)
            remedies['unknown_values'] = text

        def fault(path, item):
            if isinstance(item, Fault):
                return item
            counts = values.counts_of(item, legend)
            return values.unknown_values(path, counts, legend) if counts.unknown else None

        items = [fault(path, item) for path, item in zip(files.labels, self._found, strict=True)]
        return self._gathered(items, remedies)

    @functools.cached_property
    def _brightest(self) -> list[int | Fault]:
        """The greatest value of each image."""
        files, natives = self._files, [header.native for header in self._good_headers]

        def look(index):
            path = files.images[index]
            try:
                return int(_greatest(tf.constant(path), tf.constant(natives[index])))
            except tf.errors.OpError as error:
                return Fault('damaged_file', checking.damage(path, error, files.drop))

        key = [files.part, files.root, files.split, 'images']
        paths = [(path,) for path in files.images]
        return remembered.each(key, paths, look, int, f'{self._where}: checking images')

    def _pixel_findings(self) -> Iterator[Finding]:
        """The findings from decoding all files."""
        # Images and labels that are damaged are one finding.
        damaged = [
            next((item for item in pair if isinstance(item, Fault)), None)
            for pair in zip(self._brightest, self._found, strict=True)
        ]
        faults = self._gathered(damaged)
        yield from faults
        unknown = [finding for finding in self._value_faults() if finding.kind != 'damaged_file']
        yield from unknown
        if unknown or not self._counts:
            return
        files, total = self._files, values.total_of(self._counts)
        counted = [name for name, item in zip(files.names, self._found, strict=True) if not isinstance(item, Fault)]
        yield from values.remarks(self._where, counted, self._counts, total, self._legend)
        yield from self._extra(total)
        brightest = zip(files.names, self._brightest, strict=True)
        dark = [name for name, most in brightest if not isinstance(most, Fault) and most < _DARK]
        if dark:
            yield Finding(
                kind='dark_images',
                severity=findings.WARN,
                text=f'{self._where}: {len(dark)} of {len(files.names)} images are nearly black, such as '
                f'{checking.first_of(dark)}: no value is above {_DARK - 1} of 255.',
                remedy='Photos of the dark are fine. Of images of 16 bits only the 8 highest bits are read: if a '
                'camera has fewer, such as 12, scale its values to 16 bits.',
                images=tuple(dark),
                count=len(dark),
            )
        if not faults:
            self._log(total)

    def _log(self, total: Counts) -> None:
        legend = self._legend
        known = [n for n, number in enumerate(legend.ids) if number != legend.ignore]
        labelled = max(int(total.names[known].sum()), 1)
        void = int(total.names.sum()) - int(total.names[known].sum())
        fractions = [f'{legend.ids[n]} {legend.names[n]} {100 * total.names[n] / labelled:.2f} %' for n in known]
        logging.info(
            '%s: %d examples are sound. Labelled pixels by class: %s; %.2f %% of all pixels are ignored.',
            *(self._where, len(self._files.names), ', '.join(fractions)),
            100 * (total.ignored + void) / (labelled + total.ignored + void),
        )


def fitting(label: tf.Tensor, image: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
    """The label map, with an assertion that it has the size of its image."""
    fits = tf.reduce_all(tf.shape(image)[:2] == tf.shape(label))
    message = ['Image and label differ in size:', path, tf.shape(image), tf.shape(label)]
    with tf.control_dependencies([tf.debugging.Assert(fits, message)]):
        return tf.identity(label)


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)])
def _greatest(path, native):
    """Greatest value of an image, 0 to 255, decoded as in `load`."""
    return tf.reduce_max(decoding.decode_image(path, native, upright=False))
