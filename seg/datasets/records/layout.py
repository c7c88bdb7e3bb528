"""The features of the sets that `--mode=convert` and the builders of published sets write, and their metadata."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from seg.datasets.label_maps.legend import IGNORE
from seg.errors import UserError, reason
from seg.structures import DatasetInfo


def features(target: str, class_names: Sequence[str]) -> Any:
    """The `FeaturesDict` of a set.

    Images are JPEG or PNG. Boxes are y0, x0, y1, x1 in pixels: TFDS' normalised boxes would not give the same numbers
    back. Masks are run lengths in COCO's compressed form.

    Args:
      target: 'label_map' or 'instances'.
      class_names: the classes.
    """
    import numpy as np
    from tensorflow_datasets import features as kinds

    made = {'image': kinds.Image(shape=(None, None, 3)), 'image_name': kinds.Text(), 'image_id': kinds.Text()}
    if target == 'label_map':
        dtype = np.uint8 if label_bits(len(class_names)) == 8 else np.uint16
        return kinds.FeaturesDict(made | {'label': kinds.Image(shape=(None, None, 1), dtype=dtype)})
    objects = {
        'bbox': kinds.Tensor(shape=(4,), dtype=np.float32),
        'label': kinds.ClassLabel(names=list(class_names)),
        'is_crowd': np.bool_,
        'area': np.float32,
        'mask': kinds.Text(),
    }
    return kinds.FeaturesDict(made | {'objects': kinds.Sequence(objects)})


def metadata(info: DatasetInfo, ids: Sequence[int | str] = ()) -> dict[str, Any]:
    """The metadata that `datasets.tfds` reads besides the features; values that JSON can hold.

    Args:
      info: facts about the data.
      ids: ids of all images. Whole numbers are distinguished from strings of digits, if all are of one kind.
    """
    return {
        'class_names': list(info.class_names),
        'ignore_label': info.ignore_label,
        'stored_ignore': stored_ignore(info),
        'original_ids': None if info.original_ids is None else [int(each) for each in info.original_ids],
        'colors': [[int(part) for part in color] for color in info.colors],
        'image_ids': 'int' if ids and all(isinstance(each, int) for each in ids) else 'str',
    }


def label_bits(num_classes: int) -> int:
    """Bits of each pixel of a label map, so that one value is left for ignored pixels."""
    return 8 if num_classes <= 255 else 16


_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Metadata(msgspec.Struct):
    """The part of `metadata` that a reader needs; the defaults apply to sets without it."""

    class_names: list[str] | None = None
    ignore_label: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] = IGNORE
    stored_ignore: Annotated[int, msgspec.Meta(ge=0, lt=2**16)] | None = None
    original_ids: list[int] | None = None
    colors: list[tuple[_Byte, _Byte, _Byte]] | None = None
    image_ids: str = 'str'


def read_metadata(part: str, builder: Any) -> Metadata:
    """The metadata of a prepared set.

    Args:
      part: the data set's gin key, for messages.
      builder: of TensorFlow Datasets.

    Raises:
      UserError: if they are damaged.
    """
    try:
        return msgspec.convert(dict(builder.info.metadata or {}), Metadata)
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        path = os.path.join(str(builder.data_dir), 'metadata.json')
        raise UserError(f'{part}: {path} is damaged ({reason(error)}). Copy or make the set again.') from error


def stored_ignore(info: DatasetInfo) -> int:
    """The value of ignored pixels in the records: the ignore label if it fits, otherwise the largest value."""
    largest = 2 ** label_bits(info.num_classes) - 1
    return info.ignore_label if 0 <= info.ignore_label <= largest else largest
