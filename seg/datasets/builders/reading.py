"""Published data sets in place of the user's own folder."""

from __future__ import annotations

from typing import Any

from seg.datasets import tfds
from seg.datasets.base import Dataset
from seg.datasets.builders import prepare
from seg.datasets.records import tfds_folder
from seg.errors import UserError, shown


def read(part: str, name: str, split: str, target: str, verify: bool, orientation: str, **settings: Any) -> Dataset:
    """Reads a published set, and prepares it if that has not been done.

    Args:
      part: the gin key of the reader whose `data_dir` is None, for messages.
      name: its setting `download`, the name of the set.
      split: name of the split; 'trainval' is 'train+val'.
      target: 'label_map' or 'instances'.
      verify: whether `verify()` decodes every record.
      orientation: the setting of this name.
      **settings: `classes`, `merge`, `void` and `ignore_values` of the reader.

    Raises:
      UserError: if there is no such set, or it cannot be prepared.
    """
    slot = f'{part}.download = {shown(name)}'
    wanted = prepare.published(name, target, split)
    if wanted is None:
        raise UserError(
            f'{slot}: there is no published set of this name for the target {target!r}. Expected '
            "'voc2012_segmentation', 'coco2017_instances', or 'camvid11' (label maps only)."
        )
    hint = f'Or set {part}.data_dir (in most gin files the macro DATA_DIR) to a folder with the unpacked files.'
    folder = prepare.prepared(f'{part}.data_dir = None', wanted, hint=hint)
    if split == 'trainval':
        split = 'train+val'
    return tfds.read(part, tfds_folder.find(part, folder, None, None), split, target, verify, orientation, **settings)
