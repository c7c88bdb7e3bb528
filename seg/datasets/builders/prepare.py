"""Prepares published data sets once, in the form of TensorFlow Datasets."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging
from PIL import Image

from seg import downloads, files
from seg.datasets.builders import camvid11, coco2017, voc2012
from seg.datasets.builders.archives import Archive
from seg.datasets.builders.published import Content, Example, PublishedSet
from seg.datasets.records import layout, tfds_folder
from seg.errors import UserError

_INCOMPLETE = 'incomplete.'  # Begins the names of folders that TFDS has not completed.


def published(name: str, target: str, split: str) -> PublishedSet | None:
    """A published set that this package prepares; None if there is none of this name for the target.

    Args:
      name: 'voc2012_segmentation', 'coco2017_instances' or 'camvid11'.
      target: 'label_map' or 'instances'. Instances give label maps as well.
      split: the splits that are read. Some splits have a separate form of the set.
    """
    if name == 'voc2012_segmentation' and target in ('label_map', 'instances'):
        return voc2012.published(target, voc2012.AUGMENTED in split)
    if name == 'coco2017_instances':
        return coco2017.published()
    if name == 'camvid11' and target == 'label_map':
        return camvid11.published()
    return None


def root(data_dir: str | None = None) -> str:
    """The folder of prepared sets: `data_dir`, else TFDS' own, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`."""
    found = data_dir or os.environ.get('TFDS_DATA_DIR') or os.path.join('~', 'tensorflow_datasets')
    return os.path.abspath(os.path.expanduser(found))


def prepared(slot: str, wanted: PublishedSet, data_dir: str | None = None, hint: str = '') -> str:
    """Returns the folder of the prepared set.

    If it is not there, the files of the set are downloaded to `downloads` in the folder of prepared sets, unless they
    are there, and the set is made of them. It appears when it is complete. A second process waits for the first.

    Args:
      slot: the setting that asks for the set, for messages.
      wanted: the set.
      data_dir: the folder of prepared sets, as for `root`.
      hint: another way to get the data, for messages.

    Raises:
      UserError: if a file cannot be downloaded, the message names all that are missing; if an archive is damaged, or
        the set cannot be written.
    """
    place = root(data_dir)
    folder = os.path.join(place, wanted.name, wanted.config, wanted.version)
    if os.path.isfile(os.path.join(folder, tfds_folder.INFO)):
        return folder
    with files.writing(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
    with files.writing(folder), files.alone(os.path.join(os.path.dirname(folder), '.preparing')):
        if not os.path.isfile(os.path.join(folder, tfds_folder.INFO)):
            _prepare(slot, wanted, place, folder, hint)
    return folder


def _prepare(slot: str, wanted: PublishedSet, place: str, folder: str, hint: str) -> None:
    _announce(slot, wanted, place, hint)
    paths = fetched(slot, wanted, os.path.join(place, 'downloads'), hint)
    logging.info('%s: %s is made of %s, once: %s', slot, wanted.name, ', '.join(paths), folder)
    content = wanted.read([Archive(path) for path in paths])
    checksums = {file.name: downloads.digest_of(path) for file, path in zip(wanted.files, paths, strict=True)}
    for left in _incomplete(os.path.dirname(folder)):  # Of killed processes: this one is alone.
        shutil.rmtree(left, ignore_errors=True)
    _write(wanted, content, place, checksums)
    logging.info(
        '%s: %s is complete. The files in %s are no longer needed.', slot, wanted.name, os.path.dirname(paths[0])
    )


def _announce(slot: str, wanted: PublishedSet, place: str, hint: str) -> None:
    """Says what will be downloaded, how large it is, and where it goes.

    Raises:
      UserError: if the disk has no room for the downloads and for the set that is made of them.
    """
    downloaded = os.path.join(place, 'downloads')
    there = {file: _size(os.path.join(downloaded, file.name)) for file in wanted.files}
    missing = {
        file: max(file.size - _size(os.path.join(downloaded, f'{file.name}.part')), 0)
        for file, size in there.items()
        if not size
    }
    published = sum(file.size for file in wanted.files)
    made = wanted.size * sum(size or file.size for file, size in there.items()) // published
    fetched_bytes, free = sum(missing.values()), shutil.disk_usage(place).free
    what = f'{slot}: {wanted.name} is not prepared in {place}.'
    if fetched_bytes + made > free:
        raise UserError(
            f'{what} It takes {_gigabytes(fetched_bytes + made)} there: {_gigabytes(fetched_bytes)} of downloads, and '
            f'{_gigabytes(made)} for the set that is made of them. The disk has {_gigabytes(free)} free. Free space, '
            f'or choose another disk for prepared sets by the variable TFDS_DATA_DIR. {hint}'.rstrip()
        )
    if missing:
        listed = ''.join(f'\n  {file}' for file in missing)
        text = (
            f'{what} Once, {_gigabytes(fetched_bytes)} are downloaded to {downloaded}:{listed}\nThe set that is made '
            f'of them takes {_gigabytes(made)}; then the downloads may be removed. {hint}'
        )
        logging.info('%s', text.rstrip())


def _gigabytes(size: int) -> str:
    return f'{size / 1e9:.1f} GB'


def _size(path: str) -> int:
    """Bytes of a file; 0 if there is none."""
    return os.path.getsize(path) if os.path.isfile(path) else 0


def _incomplete(folder: str) -> list[str]:
    """The folders in which TFDS was writing."""
    return [entry.path for entry in os.scandir(folder) if entry.name.startswith(_INCOMPLETE) and entry.is_dir()]


def fetched(slot: str, wanted: PublishedSet, folder: str, hint: str) -> list[str]:
    """Returns the paths of the files of a set, after downloading those that are missing.

    A file that is there may have been put there by hand. If it differs from the published one, this is logged, and what
    can be read of it is used.

    Raises:
      UserError: if one cannot be downloaded; names all that are missing.
    """
    paths = {file: os.path.join(folder, file.name) for file in wanted.files}
    for file, path in paths.items():
        if os.path.exists(path):
            if file.checksum and not files.irregular(path) and (actual := downloads.mismatch(path, file.checksum)):
                logging.warning(
                    '%s: its checksum is %s, that of the published file %s. It is used as it is.',
                    path, actual, file.checksum,
                )  # fmt: skip
            continue
        missing = [str(other) for other, there in paths.items() if not os.path.exists(there)]
        if len(missing) > 1:
            hint = '\n'.join([f'Missing in {folder}:', *(f'  {each}' for each in missing), *([hint] if hint else [])])
        title = f'{slot}: {wanted.name} is not prepared in {os.path.dirname(folder)}, and {file.name} is not there'
        downloads.fetch(file.url, path, file.checksum, title, hint)
        if not file.checksum:
            logging.warning(
                '%s: no checksum of this file is published. %s is recorded with the set.',
                path, downloads.digest_of(path),
            )  # fmt: skip
    return list(paths.values())


# ---- Writing ---------------------------------------------------------------------------------------------------------


def _write(wanted: PublishedSet, content: Content, place: str, checksums: Mapping[str, str]) -> None:
    """Writes the set by TFDS, in a folder that gets its name when it is complete."""
    tfds = tfds_folder.library()
    faults: list[UserError] = []
    make = _builder_class(wanted, content, checksums, faults)
    try:
        with contextlib.redirect_stdout(sys.stderr), tfds_folder.random_numbers_kept():  # TFDS prints its progress.
            builder = make(data_dir=place, config=wanted.config or None, file_format='array_record')
            builder.download_and_prepare(
                download_dir=os.path.join(place, 'downloads'),
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    except Exception as error:
        if faults:  # TFDS changes exceptions.
            raise faults[0] from None
        raise OSError(f'{" ".join(str(error).split()):.300}') from error


def _builder_class(
    wanted: PublishedSet, content: Content, checksums: Mapping[str, str], faults: list[UserError]
) -> type:
    """The builder of a set, a class because that is what TFDS takes. Faults of archives are added to `faults`."""
    core = tfds_folder.library().core

    class Builder(core.GeneratorBasedBuilder, skip_registration=True):
        """Examples in the order of the published lists."""

        name = wanted.name
        VERSION = core.Version(wanted.version)
        BUILDER_CONFIGS = [core.BuilderConfig(name=wanted.config)] if wanted.config else []  # noqa: RUF012
        url_infos = {}  # noqa: RUF012  Files are not downloaded by TFDS.

        def _info(self):
            return core.DatasetInfo(
                builder=self,
                description=wanted.description,
                homepage=wanted.homepage,
                features=layout.features(wanted.target, content.info.class_names),
                metadata=core.MetadataDict(layout.metadata(content.info, [0]) | {'archives': dict(checksums)}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(read) for split, read in content.splits.items()}

        def _generate_examples(self, read: Callable[[], Iterator[Example]]):
            try:
                for number, example in enumerate(read()):
                    yield number, record(example, wanted.target)
            except UserError as error:
                faults.append(error)
                raise

    return Builder


def record(example: Example, target: str) -> dict[str, Any]:
    """The values of the features of an example."""
    common = {'image': example.image, 'image_name': example.name, 'image_id': str(example.id)}
    if target == 'label_map':
        file = io.BytesIO()
        Image.fromarray(example.label).save(file, 'PNG')
        return common | {'label': file.getvalue()}
    found = example.annotations
    return common | {
        'objects': [
            {'bbox': box, 'label': int(number), 'is_crowd': bool(crowd), 'area': area, 'mask': mask['counts'].decode()}
            for box, number, crowd, area, mask in zip(
                found.boxes, found.classes, found.is_crowd, found.area, found.masks, strict=True
            )
        ],
    }
