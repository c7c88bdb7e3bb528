"""The data set of all readers of instances: images, and instances in flat arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from seg.datasets import checking, findings, image_files, orientation
from seg.datasets.base import Dataset
from seg.datasets.class_maps import ClassMap
from seg.datasets.findings import Finding
from seg.datasets.image_files import ImageHeader
from seg.datasets.instances import chosen, outlines
from seg.datasets.instances.flat import Instances
from seg.datasets.instances.images import ImageFiles
from seg.datasets.label_maps.legend import IGNORE
from seg.drawing.palette import instance_palette
from seg.masks import ragged, runs
from seg.structures import Annotations, ClassHistogram, DatasetInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What a reader has found in the files of a split.

    Attributes:
      part: the data set's gin key, such as 'datasets.coco'.
      split: name of the split.
      labels: the file or folder of the annotations, for messages.
      folder: the folder of the images.
      names: names of the images' files, relative to the folder and within it.
      ids: the id of each image in result files.
      sizes: int32 [images, 2], (height, width), as the annotations state them.
      instances: all instances.
      class_names: the classes.
      original_ids: the id of each class in the files; None if they are 0 to K - 1.
      drop: how an image is removed from the data, such as 'remove it from instances.json'.
      remarks: findings about the annotations.
      images: reads the images; None for the files `names`.
      name: name of the set, for `DatasetInfo.name`; empty for that of the reader.
      ignore: the ignore label of label maps that are made of the instances.
      colors: the colour of each class; none for those of instances.
    """

    part: str
    split: str
    labels: str
    folder: str
    names: tuple[str, ...]
    ids: tuple[int | str, ...]
    sizes: np.ndarray
    instances: Instances
    class_names: tuple[str, ...]
    original_ids: tuple[int, ...] | None
    drop: str
    remarks: Sequence[Finding] = ()
    images: Any = None
    name: str = ''
    ignore: int = IGNORE
    colors: tuple[tuple[int, int, int], ...] = ()


class InstanceData(Dataset):
    """Images with instances.

    Examples have `image` uint8 [H, W, 3] and, for N instances, `boxes` float32 [N, 4] (y0, x0, y1, x1), `classes` int32
    [N], `is_crowd` bool [N], `area` float32 [N] and `masks` int32 [N, (ends)] (`seg.masks.runs`). Boxes and areas are
    those of the mask if the files have no valid ones.

    A few flat arrays, which the graph captures, hold all instances: some hundred bytes per instance, and no Python list
    per instance. Outlines are drawn in the graph, when their image is loaded.

    Args:
      source: what the reader has found.
      decode_all: whether `verify()` decodes every image. Otherwise it reads headers only.
      upright: whether images are turned by their EXIF orientation.
    """

    def __init__(self, source: Source, decode_all: bool, upright: bool = False):
        self._source, self._decode_all, self._upright = source, decode_all, upright
        self._where = f'{source.part}, split {source.split!r} of {source.labels}'
        self._images = source.images or ImageFiles(source.folder, source.names, source.drop)
        # Eager tensors, because a graph captures them without a copy.
        with tf.init_scope(), tf.device('CPU:0'):
            self._sizes = tf.constant(source.sizes)
            self._instances = Instances(*map(tf.constant, source.instances))
        self._source = dataclasses.replace(source, instances=self._arrays)  # In the memory of the tensors.
        self._has_runs, self._has_outlines = len(self._arrays.ends) > 0, len(self._arrays.points) > 0
        self._incomplete = bool(np.isnan(self._arrays.area).any() or np.isnan(self._arrays.boxes).any())
        self.info = DatasetInfo(
            name=f'{source.name or source.part.partition(".")[2]}/{source.split}',
            class_names=source.class_names,
            num_examples=len(source.names),
            max_size=tuple(source.sizes.max(axis=0).tolist()),
            ignore_label=source.ignore,
            original_ids=source.original_ids,
            colors=source.colors or instance_palette(len(source.class_names)),
        )
        empty = int((np.diff(self._arrays.splits) == 0).sum())
        logging.info(
            '%s: %d images, %d of them without instances; %d instances of %d classes, %d of them crowds.',
            *(self._where, len(source.names), empty, len(self._arrays.classes), self.info.num_classes),
            int(self._arrays.is_crowd.sum()),
        )

    def image_name(self, index: int) -> str:
        """Name of an image's file without its ending, relative to the folder of the images and within it."""
        return self._images.name(index)

    def image_path(self, index: int) -> str | None:
        """The file of an image; None if it has none of its own."""
        return self._images.path(index)

    def image_id(self, index: int) -> int | str:
        """The id of an image in the annotations; result files use it as well."""
        return self._source.ids[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if the file is missing or damaged, or its size differs from the stated one."""
        image = image_files.decode_image(self._images.encoded(index), self._upright)
        found, size = self._load_instances(index)
        fits = tf.reduce_all(tf.shape(image)[:2] == size)
        message = ['Size differs from the stated one:', tf.shape(image)[:2], size]
        with tf.control_dependencies([tf.debugging.Assert(fits, message)]):
            return {'image': tf.identity(image), **found}

    def annotations(self, index: int) -> Annotations:
        """The instances of one image, for scores."""
        height, width = self._source.sizes[index].tolist()
        return Annotations(height, width, *self._on_host(index))

    def class_histogram(self) -> ClassHistogram:
        """Pixels of all instances by class, by their stated areas."""
        instances, count = self._arrays, len(self._source.names)
        image = np.repeat(np.arange(count), np.diff(instances.splits))
        area = instances.area.astype(np.float64)
        for index in np.unique(image[np.isnan(area)]):
            area[image == index] = self._on_host(index)[3]
        pixels = np.bincount(instances.classes, area, self.info.num_classes)
        of_image = np.bincount(image, area, count)
        pairs = np.unique(np.stack([instances.classes, image]), axis=1)
        present = np.bincount(pairs[0], of_image[pairs[1]], self.info.num_classes)
        return ClassHistogram(pixels.round().astype(np.int64), present.round().astype(np.int64))

    def verify(self) -> None:
        """Checks every image of the split, by decoding it unless the setting `verify` is off.

        Raises:
          UserError: names the first five images that cannot be used, the fault of each, and the remedy; also if all
            instances are crowds.
        """
        findings.settle(self.findings(self._decode_all))

    def findings(self, full: bool) -> Iterator[Finding]:
        """Findings about the annotations, and faults of the images' files; `full` decodes them all."""
        yield from self._source.remarks
        crowds = int(self._arrays.is_crowd.sum())
        if crowds == len(self._arrays.is_crowd):
            yield checking.without_instances(self._where, crowds)
        count, headers = len(self._source.names), self._images.headers(self._where)
        faults = [self._header_fault(index, header) for index, header in enumerate(headers)]
        yield from self._unusable('unreadable', [h if isinstance(h, str) else None for h in headers], count)
        yield from self._unusable('size_mismatch', faults, count)
        good = [index for index, header in enumerate(headers) if isinstance(header, ImageHeader)]
        names = [self.image_name(index) for index in good]
        yield from checking.turned(
            self._where, names, [headers[index] for index in good], self._source.part, self._upright
        )
        if full:
            decoded = self._images.decoded(self._where)
            bad = [item if isinstance(item, str) and not isinstance(headers[n], str) else None
                   for n, item in enumerate(decoded)]  # fmt: skip
            yield from self._unusable('unreadable', bad, count)

    @functools.cached_property
    def _arrays(self) -> Instances:
        """The instances as numpy arrays, which share the memory of the tensors."""
        return Instances(*(np.asarray(memoryview(part)) for part in self._instances))

    def _unusable(self, kind: str, faults: Sequence[str | None], count: int) -> list[Finding]:
        known = {name for remark in self._source.remarks if remark.severity == findings.FIX for name in remark.images}
        named = [(self.image_name(index), fault) for index, fault in enumerate(faults) if fault]
        named = [(name, fault) for name, fault in named if name not in known]
        return findings.unusable(kind, self._where, named, count, 'images')

    # ---- Instances of an image ---------------------------------------------------------------------------------------

    def _load_instances(self, index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The instances of an example, and (height, width), int32 [2]."""
        instances, size = self._instances, tf.gather(self._sizes, index)
        begin, end = instances.splits[index], instances.splits[index + 1]
        boxes, area = instances.boxes[begin:end], instances.area[begin:end]
        masks = self._masks(begin, end, size)
        if self._incomplete:
            mask_boxes, mask_area = ragged.boxes_and_areas(masks, size[0])
            boxes = tf.where(tf.math.is_nan(boxes), mask_boxes, boxes)
            area = tf.where(tf.math.is_nan(area), mask_area, area)
        return {
            'boxes': boxes,
            'classes': instances.classes[begin:end],
            'is_crowd': instances.is_crowd[begin:end],
            'area': area,
            'masks': masks,
        }, size

    def _masks(self, begin: tf.Tensor, end: tf.Tensor, size: tf.Tensor) -> tf.RaggedTensor:
        """The masks of the instances from `begin` to `end`: from runs, or drawn."""
        instances, found = self._instances, []
        if self._has_runs or not self._has_outlines:
            splits = instances.run_splits[begin : end + 1]
            ends = instances.ends[splits[0] : splits[-1]]
            found.append(tf.RaggedTensor.from_row_splits(ends, splits - splits[0], validate=False))
        if self._has_outlines:
            owned = instances.outline_splits[begin : end + 1]
            splits = instances.point_splits[owned[0] : owned[-1] + 1]
            count = tf.cast(end - begin, tf.int32)
            owners = tf.repeat(tf.range(count), owned[1:] - owned[:-1])
            drawn = outlines.Outlines(instances.points[splits[0] : splits[-1]], splits - splits[0], owners)
            found.append(outlines.draw(drawn, tf.fill([count], size[0]), tf.fill([count], size[1])))
        return tf.concat(found, axis=1) if found[1:] else found[0]  # Of each instance, one of the two is empty.

    def _on_host(self, index: int) -> tuple:
        """Boxes, classes, crowd marks, areas and masks (in COCO's compressed form) of the instances of an image."""
        arrays = self._arrays
        height, width = self._source.sizes[index].tolist()
        begin, end = arrays.splits[index : index + 2].tolist()
        owned, splits = arrays.outline_splits[begin : end + 1], arrays.run_splits[begin : end + 1]
        points = arrays.point_splits[owned[0] : owned[-1] + 1]
        owners = np.repeat(np.arange(end - begin, dtype=np.int32), np.diff(owned))
        drawn = runs.Runs(arrays.ends[splits[0] : splits[-1]], splits - splits[0])
        if len(owners):
            parts = outlines.Outlines(arrays.points[points[0] : points[-1]], points - points[0], owners)
            later = outlines.draw_on_host(parts, height, width)
            masks = [later[n] if owned[n] < owned[n + 1] else drawn[n] for n in range(end - begin)]
            drawn = runs.Runs(np.concatenate(masks), np.concatenate([[0], np.cumsum([len(mask) for mask in masks])]))
        boxes, area = arrays.boxes[begin:end].copy(), arrays.area[begin:end].copy()
        mask_boxes, mask_area = runs.boxes_and_areas(drawn, np.full(end - begin, height))
        boxes[np.isnan(boxes)] = mask_boxes[np.isnan(boxes)]
        area[np.isnan(area)] = mask_area[np.isnan(area)]
        masks = [runs.to_coco(drawn[n], height, width) for n in range(end - begin)]
        return boxes, arrays.classes[begin:end].copy(), arrays.is_crowd[begin:end].copy(), area, masks

    # ---- Files of images ---------------------------------------------------------------------------------------------

    def _header_fault(self, index: int, header: ImageHeader | str) -> str | None:
        """How the size of an image differs from the stated one."""
        if isinstance(header, str):
            return None
        height, width = self._source.sizes[index].tolist()
        found = (header.height, header.width)
        found = orientation.upright(found, header.orientation) if self._upright else found
        if found == (height, width):
            return None
        remedy = 'Were the images scaled after they were labelled? Masks must fit the images as stored.'
        if found == (width, height):
            remedy = 'Height and width are swapped.'
            if header.orientation >= 5 and not self._upright:
                remedy = (
                    f'The image has EXIF orientation {header.orientation}, which is not applied here: set '
                    f"{self._source.part}.orientation = 'apply', or turn its stored pixels (for example by "
                    'ImageMagick: mogrify -auto-orient).'
                )
            elif header.orientation >= 5:
                remedy = f"The labels fit the image as stored: set {self._source.part}.orientation = 'ignore'."
        return (
            f'{self._images.place(index)} is {found[1]}x{found[0]} pixels (width x height), but {width}x{height} in '
            f'{self._source.labels}. {remedy}'
        )


class PaintedInstances(InstanceData):
    """Label maps from instances: `image`, and `label` int32 [H, W]. Later instances lie above earlier ones.

    Class 0 is the background. Crowds, and instances of no class, have the ignore label.
    """

    def __init__(self, source: Source, decode_all: bool, upright: bool = False):
        super().__init__(source, decode_all, upright)
        names = ('background', *source.class_names)
        self.info = dataclasses.replace(
            self.info, class_names=names, original_ids=None, colors=((0, 0, 0), *self.info.colors)
        )

    class_histogram = Dataset.class_histogram

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails as for instances."""
        example = super().load(index)
        classes = tf.where(
            example['is_crowd'] | (example['classes'] < 0), self.info.ignore_label, example['classes'] + 1
        )
        height, width = tf.unstack(tf.shape(example['image'])[:2])
        return {'image': example['image'], 'label': ragged.painted(example['masks'], classes, height, width)}


def build(
    source: Source,
    images: Sequence[int] | None,
    classes: ClassMap,
    target: str,
    decode_all: bool,
    orientation_setting: str,
) -> InstanceData:
    """Makes the data set of a reader's settings.

    Args:
      source: all that the files have.
      images: positions of the images of the split; None for all.
      classes: the classes.
      target: 'instances' or 'label_map'.
      decode_all: the setting `verify`.
      orientation_setting: the setting `orientation`.

    Raises:
      UserError: if `orientation` has another value.
    """
    upright = orientation.check(source.part, orientation_setting)
    instances, names, ids, sizes, original, colors = (
        getattr(source, field) for field in ('instances', 'names', 'ids', 'sizes', 'original_ids', 'colors')
    )
    if images is not None:
        instances = chosen.of_images(instances, np.asarray(images, np.int64))
        names, ids = (tuple(values[n] for n in images) for values in (names, ids))
        sizes = sizes[images]
    if not classes.changes_nothing:
        instances = chosen.of_classes(instances, classes, as_crowds=target == 'instances')
        original = tuple((original or range(len(source.class_names)))[n] for n in classes.origins)
        original = None if original == tuple(range(len(original))) else original
        colors = tuple(colors[n] for n in classes.origins) if colors else ()
    source = dataclasses.replace(
        source,
        names=names,
        ids=ids,
        sizes=sizes,
        instances=instances,
        class_names=classes.names,
        original_ids=original,
        colors=colors,
    )
    return (InstanceData if target == 'instances' else PaintedInstances)(source, decode_all, upright)
