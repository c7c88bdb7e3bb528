"""Recognises annotation files by their content, for messages that say which reader wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What it is, and what to do with it.
VIA = (
    'a project of VIA (VGG Image Annotator)',
    'export it there by Annotation, Export Annotations (COCO format), and read that file by datasets.coco',
)
SUPERVISELY = (
    'a project of Supervisely',
    'export it there by the app Export to COCO (for label maps, Export to Pascal VOC), and read the result by '
    'datasets.coco (datasets.voc_layout)',
)


def recognised(data: Any) -> tuple[str, str] | None:
    """What a JSON file is if it is not what a reader expects, and what to do with it; None if it is not known.

    Args:
      data: the parsed content.
    """
    if isinstance(data, list):
        if data and isinstance(data[0], Mapping) and {'image_id', 'score'} <= data[0].keys():
            return "a list of COCO's results (detections)", 'the annotations are another file'
        if data and isinstance(data[0], Mapping) and {'annotations', 'data'} <= data[0].keys():
            return 'an export of Label Studio as JSON', 'export it there as COCO, and read that by datasets.coco'
        return None
    if not isinstance(data, Mapping):
        return None
    if {'images', 'annotations'} <= data.keys():
        return "COCO's annotations", 'read it by datasets.coco'
    if 'shapes' in data and ('imagePath' in data or 'imageData' in data):
        return 'an annotation of LabelMe', 'read its folder by datasets.labelme'
    if '_via_img_metadata' in data or '_via_settings' in data or _has_regions(data):
        return VIA
    if isinstance(data.get('objects'), list) and isinstance(data.get('size'), Mapping):
        return SUPERVISELY
    if isinstance(data.get('classes'), list) and 'projectType' in data:
        return SUPERVISELY
    if {'imgHeight', 'imgWidth', 'objects'} <= data.keys():
        return 'an annotation of Cityscapes', 'read its folder by datasets.cityscapes'
    if 'segments_info' in data:
        return "COCO's panoptic annotations", 'their masks are in PNG files; read the instance annotations instead'
    return None


def _has_regions(data: Mapping) -> bool:
    """Whether it is VIA's export as JSON: an object of images with regions."""
    first = next(iter(data.values()), None)
    return isinstance(first, Mapping) and {'regions', 'filename'} <= first.keys()


def note(data: Any) -> str:
    """A sentence about a file that is not what a reader expects; '' if it is not known."""
    found = recognised(data)
    return f' It is {found[0]}: {found[1]}.' if found else ''
