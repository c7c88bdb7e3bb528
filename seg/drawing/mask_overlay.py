"""Draws instances over an image: translucent masks, outlines, boxes, and labels if there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco

from seg.drawing import label_placement, text
from seg.drawing.instance_colors import readable_on
from seg.drawing.labels import Color

_SMALL = 20  # Side in pixels; outlines of smaller instances are one pixel wide.
_DASH = 5  # Pixels.
_HATCH = 7  # Pixels from one line to the next.
_BOX_OPACITY = 0.75
_FONT = 11  # Pixels.
_LIGHT, _DARK = (255, 255, 255), (0, 0, 0)


class Shape(NamedTuple):
    """An instance to be drawn.

    Attributes:
      box: y0, x0, y1, x1 in pixels of the image that the masks belong to.
      mask: run-length encoding in the form of pycocotools.
      color: colour of the instance.
      label: text next to it, or ''.
      dashed: whether outline and box are dashed, in black and white.
      hatched: whether the mask is hatched rather than filled, without outline and box.
    """

    box: Sequence[float]
    mask: dict[str, Any]
    color: Color
    label: str = ''
    dashed: bool = False
    hatched: bool = False


def paint(pixels: np.ndarray, shapes: Sequence[Shape], opacity: float, unit: int = 1) -> np.ndarray:
    """Draws instances, large ones below small ones.

    Besides the image, memory holds one mask at a time and a map with one entry per `unit` x `unit` pixels.

    Args:
      pixels: uint8 [h, w, 3], changed in place; the masks may have another size.
      shapes: the instances. If there is not room for all labels, dashed ones come first, then large ones.
      opacity: opacity of the masks, 0 to 1.
      unit: width of a thin line in pixels, in proportion to the image.

    Returns:
      `pixels`.
    """
    if not shapes:
        return pixels
    height, width = pixels.shape[:2]
    scale = np.array([height, width] * 2) / np.array([*shapes[0].mask['size']] * 2)
    boxes = [np.asarray(shape.box, float) * scale for shape in shapes]
    order = sorted(range(len(shapes)), key=lambda i: -(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
    seen = np.full((height // unit + 1, width // unit + 1), -1, np.int16)  # The topmost instance, unit by unit.
    for i in order:
        top, left, cover = _patch(shapes[i].mask, (height, width))
        _fill(pixels[top : top + cover.shape[0], left : left + cover.shape[1]], cover, shapes[i], opacity, unit)
        rows, columns = np.nonzero(cover[::unit, ::unit] >= 0.5)
        seen[top // unit + rows, left // unit + columns] = i
    for i in order:
        if not shapes[i].hatched:
            _box(pixels, boxes[i], shapes[i], unit)
    _write_labels(pixels, shapes, boxes, order, seen, unit)
    return pixels


def _patch(mask: dict[str, Any], size: tuple[int, int]) -> tuple[int, int, np.ndarray]:
    """A mask at the size of an image: (top, left, float32 [h, w], the covered fraction of each pixel)."""
    height, width = mask['size']
    left, top, columns, rows = (int(value) for value in coco.toBbox(mask))
    if not rows or not columns:
        return 0, 0, np.zeros((1, 1), np.float32)
    inside = np.ascontiguousarray(coco.decode(mask)[top : top + rows, left : left + columns])
    if (height, width) == tuple(size):
        return top, left, inside.astype(np.float32)
    down, across = size[0] / height, size[1] / width
    y0, y1 = int(top * down), min(int(np.ceil((top + rows) * down)), size[0])
    x0, x1 = int(left * across), min(int(np.ceil((left + columns) * across)), size[1])
    # A border of one pixel, beyond which nothing is read.
    image = Image.fromarray(np.pad(inside, 1) * np.uint8(255))
    box = (x0 / across - left + 1, y0 / down - top + 1, x1 / across - left + 1, y1 / down - top + 1)
    box = [min(max(side, 0), most) for side, most in zip(box, (*image.size, *image.size), strict=True)]
    scaled = image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box)
    return y0, x0, np.asarray(scaled, np.float32) / 255


def _fill(pixels: np.ndarray, cover: np.ndarray, shape: Shape, opacity: float, unit: int) -> None:
    """Draws an instance's mask and its outline, if it has one, over its part of the image."""
    height, width = cover.shape
    if shape.hatched:
        rows, columns = np.ogrid[:height, :width]
        step = _HATCH * unit
        alpha = cover * np.where((rows + columns) % step < max(1.5 * unit, 2), 0.85, opacity / 3)
        _blend(pixels, alpha, shape.color)
        return
    _blend(pixels, cover * opacity, shape.color)
    inside = cover >= 0.5
    thick = unit * (1 if np.sqrt(inside.sum()) < _SMALL * unit else 2)
    edge = inside & ~_eroded(inside, thick)
    if shape.dashed:
        light = _dashes(edge, _DASH * unit)
        pixels[edge & light], pixels[edge & ~light] = _LIGHT, _DARK
    else:
        pixels[edge] = shape.color


def _blend(pixels: np.ndarray, alpha: np.ndarray, color: Color) -> None:
    for channel, value in enumerate(color):
        part = pixels[..., channel]
        part[:] = np.round(part + alpha * (value - part.astype(np.float32)))


def _eroded(inside: np.ndarray, times: int) -> np.ndarray:
    """Erodes a mask by `times` pixels; outside of the patch nothing is set."""
    for _ in range(times):
        wide = np.pad(inside, 1)
        inside = inside & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return inside


def _dashes(edge: np.ndarray, length: float) -> np.ndarray:
    """Cuts the pixels of an outline, bool [h, w], into dashes: every other one is True.

    Dashes follow the angle of a pixel around the middle of the patch, stretched to a square.
    """
    height, width = edge.shape
    rows, columns = np.ogrid[:height, :width]
    angle = np.arctan2((rows + 0.5) / height - 0.5, (columns + 0.5) / width - 0.5)
    pairs = max(2, round((height + width) * 0.8 / length))
    return np.floor((angle / np.pi + 1) * pairs).astype(int) % 2 == 0


def _box(pixels: np.ndarray, box: np.ndarray, shape: Shape, unit: int) -> None:
    height, width = pixels.shape[:2]
    y0, x0 = (int(np.clip(round(value), 0, most - 1)) for value, most in zip(box[:2], (height, width), strict=True))
    y1, x1 = (int(np.clip(round(value), 1, most)) for value, most in zip(box[2:], (height, width), strict=True))
    y1, x1 = max(y1, y0 + 1), max(x1, x0 + 1)
    for line in (
        pixels[y0 : y0 + unit, x0:x1],
        pixels[max(y1 - unit, y0) : y1, x0:x1],
        pixels[y0:y1, x0 : x0 + unit],
        pixels[y0:y1, max(x1 - unit, x0) : x1],
    ):
        alpha = np.full(line.shape[:2], _BOX_OPACITY, np.float32)
        if not shape.dashed:
            _blend(line, alpha, shape.color)
            continue
        rows, columns = np.ogrid[: line.shape[0], : line.shape[1]]
        light = (rows + columns) // (_DASH * unit) % 2 == 0
        _blend(line, alpha * light, _LIGHT)
        _blend(line, alpha * ~light, _DARK)


def _write_labels(pixels, shapes: Sequence[Shape], boxes, order: Sequence[int], seen: np.ndarray, unit: int) -> None:
    """Writes the labels for which there is room."""
    font = ImageFont.truetype(text.font_path(), _FONT * unit, layout_engine=ImageFont.Layout.BASIC)
    ascent, descent = font.getmetrics()
    named = sorted((i for i in order if shapes[i].label), key=lambda i: not shapes[i].dashed)
    sizes = {i: (ascent + descent, int(np.ceil(font.getlength(shapes[i].label))) + 4 * unit) for i in named}
    wanted = [label_placement.Label(boxes[i] / unit, *(-(-side // unit) for side in sizes[i]), i) for i in named]
    for i, place in zip(named, label_placement.place(wanted, seen), strict=True):
        if place is None:
            continue
        top, left = (unit * value for value in place)
        ground = pixels[top : top + sizes[i][0], left : left + sizes[i][1]]
        color = _DARK if shapes[i].dashed else shapes[i].color
        label = Image.new('RGB', ground.shape[1::-1], color)
        draw = ImageDraw.Draw(label)
        draw.text((2 * unit, 0), shapes[i].label, readable_on(color), font)
        ground[:] = np.asarray(label)
