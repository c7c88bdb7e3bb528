"""Data sets in COCO's format: one JSON file of annotations, one folder of images."""

from __future__ import annotations

import functools
import os
import posixpath

import numpy as np
import tensorflow as tf
from absl import logging

from seg.datasets import checking, coco_json, coco_layout, coco_masks, image_files
from seg.datasets.base import Dataset, unsupported
from seg.datasets.described import Described
from seg.drawing.palette import instance_palette
from seg.errors import UserError
from seg.masks import runs
from seg.registry import datasets
from seg.structures import Annotations, ClassHistogram, DatasetInfo

_CLASSES, _LARGEST = 80, (640, 640)  # Of COCO 2017.


@datasets.register('coco', free=('data_dir',))
def coco(
    *,
    data_dir: str | None,
    split: str = 'train',
    images: str | None = None,
    annotations: str | None = None,
    target: str = 'instances',
    verify: bool = True,
) -> Coco | Described:
    """Instances with masks from a COCO JSON file and a folder of images, as published or exported by a label tool.

    The file is `annotations/instances_<split>.json`, and the images are in `<split>`. Roboflow's exports are read as
    well: both are in `<split>`, and the file is `_annotations.coco.json`. Polygons of any number of parts and
    run-length encodings, compressed or not, are read; crowds and images without instances are kept. Instances without
    a usable mask are dropped, and counted in the log. Classes are numbered by ascending category id; ids may have gaps.
    Images are read as stored: an EXIF orientation is not applied.

    Args:
      data_dir: the folder that holds annotations and images. None, for `--topology` only: the number of classes and the
        image sizes of COCO 2017 without files.
      split: name of the split, such as 'train2017'.
      images: folder of the images, if it is another one; relative to `data_dir`, or absolute.
      annotations: the JSON file, if it is another one; likewise.
      target: supplied; only 'instances'.
      verify: whether `verify()` decodes every image. Otherwise it reads headers only: sizes and file types.

    Raises:
      UserError: if the file, the folder or a listed image is missing, or if the file is inconsistent.
    """
    if target != 'instances':
        raise unsupported('datasets.coco', target, ['instances'])
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        refusal = (
            f'datasets.coco.data_dir = {data_dir!r}: expected the path of a folder that holds annotations and images. '
            'Set it in the gin file or by --gin_param="datasets.coco.data_dir=\'/path/to/coco\'".'
        )
        if data_dir is None:
            names = tuple(f'class {i}' for i in range(_CLASSES))
            return Described(DatasetInfo(f'coco/{split}', names, 1, _LARGEST), target, refusal)
        raise UserError(refusal)
    root = os.path.expanduser(str(data_dir))
    path = coco_layout.find_annotations(root, split, annotations)
    return Coco(path, coco_layout.find_folder(root, split, images), split, decode_all=verify)


class Coco(Dataset):
    """The data set made by `coco`.

    Examples have `image` uint8 [H, W, 3] and, for N instances, `boxes` float32 [N, 4] (y0, x0, y1, x1), `classes` int32
    [N], `is_crowd` bool [N], `area` float32 [N] and `masks` int32 [N, (ends)] (`seg.masks.runs`). Boxes and areas are
    computed from the mask if the file has no valid ones.

    The constructor reads the file. A few flat arrays, which the graph captures, hold all instances: a few hundred bytes
    per instance, and no Python list per instance.
    """

    def __init__(self, path: str, folder: str, split: str, decode_all: bool):
        self._path, self._decode_all = path, decode_all
        self._where = f'datasets.coco, split {split!r} of {path}'
        contents = coco_json.read(path)
        self._image_ids = contents.image_ids
        self._names = coco_layout.find_images(self._where, folder, contents.file_names, self._image_ids)
        self._files = [posixpath.join(folder, name) for name in self._names]
        # Eager tensors, because a graph captures them without a copy.
        with tf.init_scope(), tf.device('CPU:0'):
            self._sizes = tf.constant(contents.sizes)
            self._instances = coco_masks.Instances(*map(tf.constant, contents.instances))
            self._paths = tf.constant(self._files)
        self.info = DatasetInfo(
            name=f'coco/{split}',
            class_names=contents.class_names,
            num_examples=len(self._names),
            max_size=tuple(contents.sizes.max(axis=0).tolist()),
            original_ids=contents.category_ids,
            colors=instance_palette(len(contents.class_names)),
        )
        empty = int((np.diff(contents.instances.splits) == 0).sum())
        logging.info(
            '%s: %d images, %d of them without instances; %d instances of %d classes, %d of them crowds.',
            *(self._where, len(self._names), empty, len(contents.instances.classes), self.info.num_classes),
            int(contents.instances.is_crowd.sum()),
        )

    def image_name(self, index: int) -> str:
        """Name of an image's file without its ending, relative to the folder of the images and within it."""
        return posixpath.splitext(self._names[index])[0]

    def image_path(self, index: int) -> str:
        """The file of an image."""
        return self._files[index]

    def image_id(self, index: int) -> int | str:
        """The id of an image in the annotation file; result files use it as well."""
        return self._image_ids[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example. The graph fails if the file is missing or damaged, or its size differs from the stated one."""
        instances = self._instances
        path = tf.gather(self._paths, index)
        image = image_files.decode_image(tf.io.read_file(path))
        size = tf.gather(self._sizes, index)
        fits = tf.reduce_all(tf.shape(image)[:2] == size)
        with tf.control_dependencies([tf.debugging.Assert(fits, ['Size differs from the stated one:', path, size])]):
            image = tf.identity(image)
        begin, end = instances.splits[index], instances.splits[index + 1]
        splits = instances.run_splits[begin : end + 1]
        return {
            'image': image,
            'boxes': instances.boxes[begin:end],
            'classes': instances.classes[begin:end],
            'is_crowd': instances.is_crowd[begin:end],
            'area': instances.area[begin:end],
            'masks': tf.RaggedTensor.from_row_splits(
                instances.ends[splits[0] : splits[-1]], splits - splits[0], validate=False
            ),
        }

    def annotations(self, index: int) -> Annotations:
        """The instances of one image, for scores."""
        instances = self._arrays
        height, width = np.asarray(memoryview(self._sizes))[index].tolist()
        chosen = slice(*instances.splits[index : index + 2].tolist())
        masks = runs.Runs(instances.ends, instances.run_splits)
        return Annotations(
            height,
            width,
            *(part[chosen].copy() for part in (instances.boxes, instances.classes, instances.is_crowd, instances.area)),
            [runs.to_coco(masks[n], height, width) for n in range(chosen.start, chosen.stop)],
        )

    def class_histogram(self) -> ClassHistogram:
        """Pixels of all instances by class, by their stated areas."""
        instances = self._arrays
        image = np.repeat(np.arange(len(self._names)), np.diff(instances.splits))
        area = instances.area.astype(np.float64)
        pixels = np.bincount(instances.classes, area, self.info.num_classes)
        of_image = np.bincount(image, area, len(self._names))
        pairs = np.unique(np.stack([instances.classes, image]), axis=1)
        present = np.bincount(pairs[0], of_image[pairs[1]], self.info.num_classes)
        return ClassHistogram(pixels.round().astype(np.int64), present.round().astype(np.int64))

    def verify(self) -> None:
        """Checks every image of the split, by decoding it unless the setting `verify` is off.

        Raises:
          UserError: names the first five images that cannot be used, the fault of each, and the remedy; also if all
            instances are crowds.
        """
        crowds = int(self._arrays.is_crowd.sum())
        checking.need_instances(self._where, len(self._arrays.is_crowd) - crowds, crowds)
        count = len(self._names)
        headers = list(checking.in_threads(self._check_header, count, f'{self._where}: reading headers'))
        checking.raise_problems(self._where, [item for item in headers if isinstance(item, str)], count, 'images')
        checking.warn_of_turned(self._where, self._names, headers)
        if self._decode_all:
            decoded = checking.in_threads(self._check_pixels, count, f'{self._where}: decoding images')
            checking.raise_problems(self._where, [problem for problem in decoded if problem], count, 'images')

    @functools.cached_property
    def _arrays(self) -> coco_masks.Instances:
        """The instances as numpy arrays, which share the memory of the tensors."""
        return coco_masks.Instances(*(np.asarray(memoryview(part)) for part in self._instances))

    def _check_header(self, index: int) -> image_files.ImageHeader | str:
        path = self._files[index]
        try:
            header = image_files.read_header(path)
        except (ValueError, tf.errors.OpError) as error:
            return f'{path}: not a readable image: {error}. Replace the file, or remove it from {self._path}.'
        height, width = np.asarray(memoryview(self._sizes))[index].tolist()
        if (header.height, header.width) == (height, width):
            return header
        remedy = 'Were the images scaled after they were labelled? Masks must fit the images as stored.'
        if (header.width, header.height) == (height, width):
            remedy = 'Height and width are swapped.'
            if header.orientation >= 5:
                remedy = (
                    f'The image has EXIF orientation {header.orientation}, which is not applied here: turn its '
                    'stored pixels (for example by ImageMagick: mogrify -auto-orient).'
                )
        return (
            f'{path} is {header.width}x{header.height} pixels (width x height), but {width}x{height} in '
            f'{self._path}. {remedy}'
        )

    def _check_pixels(self, index: int) -> str | None:
        path = self._files[index]
        try:
            checking.decoded_shape(tf.io.read_file(path))
        except tf.errors.OpError as error:
            return checking.damage(path, error, f'remove it from {self._path}')
        return None
