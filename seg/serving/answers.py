"""What a request asks for, and the answer, made by the writers of `--mode=predict`."""

from __future__ import annotations

import base64
import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from seg.drawing.instances import above
from seg.errors import UserError
from seg.masks import runs
from seg.prediction.canvas import Band
from seg.prediction.class_maps import ClassMaps
from seg.prediction.instances import InstanceOutputs
from seg.prediction.outputs import Outputs, encoded, overlay_jpeg
from seg.serving.outlines import polygons
from seg.structures import Detections

JSON, PNG, JPEG = 'application/json', 'image/png', 'image/jpeg'
_FORMATS = {'json': JSON, 'png': PNG, 'overlay': JPEG}
_MASKS = ('runs', 'polygons', 'none')
_MOST_IN_PNG = 255  # Instances in a PNG of 8 bits; 0 is the background.


class AskedError(Exception):
    """A request that asks for something unknown; the text says what is expected."""


@dataclasses.dataclass(frozen=True)
class Ask:
    """What a request asks for.

    Attributes:
      content_type: `JSON`, `PNG` (class map, or numbers of instances) or `JPEG` (overlay).
      masks: form of the masks in JSON: `runs` (COCO's run lengths), `polygons` or `none`.
      min_score: instances with a lower score are left out.
      confidence: whether JSON has the confidence of each pixel, for class maps.
    """

    content_type: str = JSON
    masks: str = 'runs'
    min_score: float = 0.0
    confidence: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str], accept: str) -> Ask:
        """Reads a request's query; without `format` its header Accept decides.

        Raises:
          AskedError: for an unknown name or value.
        """
        if unknown := sorted(set(query) - {'format', 'masks', 'min_score', 'confidence'}):
            raise AskedError(f'unknown parameter {unknown[0]!r}; expected format, masks, min_score or confidence')
        if 'format' in query:
            content_type = _FORMATS[_one_of(query, 'format', _FORMATS)]
        else:
            wanted = [part.split(';')[0].strip() for part in accept.split(',')]
            content_type = next((kind for kind in wanted if kind in _FORMATS.values()), JSON)
        try:
            min_score = float(query.get('min_score', 0))
        except ValueError:
            min_score = np.nan
        if not 0 <= min_score <= 1:
            raise AskedError(f'min_score={query["min_score"]!r}: expected a number from 0 to 1')
        masks = _one_of(query, 'masks', _MASKS) if 'masks' in query else cls.masks
        confidence = 'confidence' in query and _one_of(query, 'confidence', ('0', '1')) == '1'
        return cls(content_type, masks, min_score, confidence)


def _one_of(query: Mapping[str, str], name: str, known: Iterable[str]) -> str:
    if query[name] not in known:
        raise AskedError(f'{name}={query[name]!r}: expected one of {", ".join(known)}')
    return query[name]


class Answers(ABC):
    """Turns the prediction for one image into the body of an answer."""

    kind: str  # `semantic` or `instance`.

    def __init__(self, writer: Outputs):
        self._writer = writer

    def classes(self) -> list[dict[str, Any]]:
        """All classes, with their colours."""
        count = len(self._writer.info.class_names)
        return [self._writer.class_entry(i) | {'color': self.color(i)} for i in range(count)]

    def color(self, class_id: int) -> list[int]:
        """(r, g, b) of a class."""
        return [int(channel) for channel in self._writer.colors[class_id]]

    @abstractmethod
    def body(self, pixels: np.ndarray, prediction: Any, ask: Ask) -> bytes:
        """The body of the content type that is asked for.

        Args:
          pixels: uint8 [H, W, 3], the image; may be changed in place.
          prediction: the result of `Plan.prediction` for it.
          ask: what is asked for.
        """


def of_writer(writer: Outputs) -> Answers:
    """Returns what answers as a writer of predictions writes.

    Raises:
      UserError: for a writer of another kind.
    """
    if isinstance(writer, ClassMaps):
        return _ClassMapAnswers(writer)
    if isinstance(writer, InstanceOutputs):
        return _InstanceAnswers(writer)
    raise UserError(
        f'--mode=serve: the predictions of this task are written by {type(writer).__module__}.{type(writer).__name__}; '
        'expected a ClassMaps or an InstanceOutputs of seg.prediction. --mode=predict writes them to files.'
    )


class _ClassMapAnswers(Answers):
    kind = 'semantic'
    _writer: ClassMaps

    def body(self, pixels: np.ndarray, prediction: Iterable[Band], ask: Ask) -> bytes:
        confidence = np.empty(pixels.shape[:2], np.uint8) if ask.confidence and ask.content_type == JSON else None

        def keep(band: Band) -> None:
            if confidence is not None:
                confidence[band.top : band.top + len(band.classes)] = np.round(255 * band.confidence)

        classes, found = self._writer.assembled(pixels.shape[:2], prediction, keep)
        if ask.content_type == PNG:
            return self._writer.class_map(classes)
        if ask.content_type == JPEG:
            self._writer.draw(pixels, classes)
            return overlay_jpeg(pixels)
        for entry in found['classes']:
            entry['color'] = self.color(entry['id'])
            entry |= _mask(runs.patch_to_coco(0, 0, classes == entry['id'], *classes.shape), ask.masks)
        record = _shape(pixels, self.kind) | found
        if confidence is not None:
            png = encoded(Image.fromarray(confidence), 'PNG')
            record['confidence_png'] = base64.b64encode(png).decode('ascii')
        return _json(record)


class _InstanceAnswers(Answers):
    kind = 'instance'
    _writer: InstanceOutputs

    def body(self, pixels: np.ndarray, prediction: Detections, ask: Ask) -> bytes:
        prediction = above(prediction, ask.min_score)
        if ask.content_type == PNG:
            return self._numbers(pixels.shape[:2], prediction)
        if ask.content_type == JPEG:
            self._writer.draw(pixels, prediction, ask.min_score)
            return overlay_jpeg(pixels)
        entries = []
        for box, score, class_id, mask in zip(*prediction, strict=True):
            entry = self._writer.result(0, box, score, class_id, mask)
            of_class = self._writer.class_entry(class_id)
            entry = {'class': of_class['name'], 'class_id': of_class['id'], **entry}
            del entry['image_id'], entry['segmentation']
            entry['color'] = self.color(class_id)
            entries.append(entry | _mask(mask, ask.masks))
        return _json(_shape(pixels, self.kind) | self._writer.found(prediction) | {'detections': entries})

    def _numbers(self, size: tuple[int, int], detections: Detections) -> bytes:
        """A grey PNG: for each pixel the number of the detection in the JSON, from 1 on; the higher score wins."""
        numbers = np.zeros(size, np.uint8)
        for number in range(min(len(detections.masks), _MOST_IN_PNG), 0, -1):
            numbers[coco.decode(detections.masks[number - 1]) > 0] = number
        return encoded(Image.fromarray(numbers), 'PNG')


def _shape(pixels: np.ndarray, task: str) -> dict[str, Any]:
    return {'task': task, 'width': pixels.shape[1], 'height': pixels.shape[0]}


def _mask(mask: Mapping[str, Any], form: str) -> dict[str, Any]:
    """A mask in COCO's run lengths as the entry of an answer."""
    if form == 'runs':
        return {'segmentation': {'size': list(map(int, mask['size'])), 'counts': mask['counts'].decode('ascii')}}
    return {'polygons': polygons(coco.decode(mask) > 0)} if form == 'polygons' else {}


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(',', ':')).encode()
