"""Predictions as arrays: what `seg.load` returns, and its results."""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from pycocotools import mask as coco

from seg.errors import UserError
from seg.prediction import canvas, reading
from seg.prediction.canvas import Band, Plan
from seg.prediction.class_maps import ClassMaps
from seg.prediction.instances import InstanceOutputs
from seg.prediction.outputs import overlay_jpeg
from seg.prediction.settings import PredictSettings
from seg.serving.model import Model
from seg.serving.pixels import pixels
from seg.structures import Detections

_BATCH = 4  # Images of a batch, if there are several.
_NAMED = 4  # Classes in the representation of a result.


class Result(ABC):
    """The prediction for one image; a notebook shows its overlay.

    Attributes:
      image: uint8 [H, W, 3], the image as it was read.
      class_names: one name per class; class id = position.
    """

    image: np.ndarray
    class_names: tuple[str, ...]

    @abstractmethod
    def overlay(self) -> np.ndarray:
        """Draws the prediction over the image; uint8 [H, W, 3]."""

    def _shown(self, parts: Iterable[str]) -> str:
        height, width = self.image.shape[:2]
        return f'{type(self).__name__} of {width} x {height} pixels: {", ".join(parts) or "nothing"}'

    def _repr_jpeg_(self) -> bytes:
        return overlay_jpeg(self.overlay())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClassMap(Result):
    """A class for each pixel.

    Attributes:
      image: see `Result`.
      class_names: see `Result`.
      classes: uint8 [H, W], class ids.
      confidence: float32 [H, W], the probability of that class.
    """

    image: np.ndarray
    class_names: tuple[str, ...]
    classes: np.ndarray
    confidence: np.ndarray
    _writer: ClassMaps

    def overlay(self) -> np.ndarray:
        drawn = self.image.copy()
        self._writer.draw(drawn, self.classes)
        return drawn

    def __repr__(self) -> str:
        shares = np.bincount(self.classes.ravel(), minlength=len(self.class_names)) / self.classes.size
        order = [i for i in np.argsort(-shares, kind='stable') if shares[i]]
        return self._shown(f'{self.class_names[i]} {shares[i]:.1%}' for i in order[:_NAMED])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Instances(Result):
    """The N instances that were found, by decreasing score.

    Attributes:
      image: see `Result`.
      class_names: see `Result`.
      boxes: float32 [N, 4], y0, x0, y1, x1 in pixels of the image.
      classes: int32 [N], class ids.
      scores: float32 [N], 0 to 1.
      run_lengths: N masks in the form of pycocotools: dicts of `size` [H, W] and `counts` (bytes).
    """

    image: np.ndarray
    class_names: tuple[str, ...]
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    run_lengths: Sequence[dict[str, Any]]
    _writer: InstanceOutputs
    _min_score: float

    @property
    def masks(self) -> np.ndarray:
        """bool [N, H, W], decoded at each access: N bytes per pixel of the image."""
        if not len(self.run_lengths):
            return np.zeros((0, *self.image.shape[:2]), bool)
        return coco.decode(list(self.run_lengths)).transpose(2, 0, 1).astype(bool)

    def overlay(self, min_score: float | None = None) -> np.ndarray:
        """Draws the instances with at least a score over the image; uint8 [H, W, 3].

        Args:
          min_score: the score; None for the setting `predict.min_score`.
        """
        drawn = self.image.copy()
        found = Detections(self.boxes, self.scores, self.classes, self.run_lengths)
        self._writer.draw(drawn, found, self._min_score if min_score is None else min_score)
        return drawn

    def __repr__(self) -> str:
        found = zip(self.classes[:_NAMED], self.scores[:_NAMED], strict=True)
        more = len(self.scores) - _NAMED
        parts = [f'{self.class_names[c]} {score:.2f}' for c, score in found]
        return self._shown([*parts, f'{more} more'] if more > 0 else parts)


class ImagePredictor:
    """Predicts images of any size with a run or an exported file; made by `seg.load`.

    Images are placed on one canvas, so the model is traced for a batch of one image, and for a batch of several, and
    never again. Images, masks and boxes have the image's own size and pixels.

    Attributes:
      path: the checkpoint or the exported file.
      class_names: one name per class; class id = position.
      canvas: (height, width) that images are placed on; larger ones are scaled down, see `predict.large_pictures`.
    """

    def __init__(self, model: Model, settings: PredictSettings, network: Any = None):
        """Makes a predictor.

        Args:
          model: the model.
          settings: settings of `--mode=predict`.
          network: its Keras model; None for an exported file.

        Raises:
          UserError: for a task whose predictions are neither class maps nor instances.
        """
        writer = model.writer('', settings)  # Never entered, so nothing is written.
        if not isinstance(writer, ClassMaps | InstanceOutputs):
            raise UserError(
                f'{model.path}: the predictions of this task are written by {type(writer).__module__}.'
                f'{type(writer).__name__}; expected a ClassMaps or an InstanceOutputs of seg.prediction. '
                '--mode=predict writes them to files.'
            )
        self.path, self.class_names, self.canvas = model.path, model.info.class_names, model.canvas
        self._settings, self._writer, self._predictor, self._network = settings, writer, model.predictor, network
        one = model.predictor.replicas
        self._batches = (model.batch, model.batch) if model.batch else (one, -(-_BATCH // one) * one)

    @property
    def model(self) -> Any:
        """The Keras model of a run, with the weights of the checkpoint.

        Raises:
          UserError: for an exported file, which has none.
        """
        if self._network is None:
            raise UserError(f'{self.path} is an exported file without a Keras model; load the model_dir of its run.')
        return self._network

    def __call__(self, images: Any) -> Any:
        """Predicts one image, or several.

        Args:
          images: a path, a Pillow image, or an array uint8 [H, W, 3], RGB; or a list of these, of any sizes.

        Returns:
          A `ClassMap`, or `Instances`; a list of them for a list.

        Raises:
          UserError: for anything else, an empty list, or a file that cannot be read.
        """
        several = isinstance(images, list | tuple)
        if several and not images:
            raise UserError('images is an empty list; expected at least one image.')
        named = [(f'images[{i}]', image) for i, image in enumerate(images)] if several else [('image', images)]
        with reading.limited(self._settings.max_megapixels):
            read = [pixels(image, name) for name, image in named]
        plans = [self._writer.plan(image, self.canvas) for image in read]
        results = self._results(plans)
        made = self._class_map if isinstance(self._writer, ClassMaps) else self._instances
        found = [made(image, plan.prediction(results)) for image, plan in zip(read, plans, strict=True)]
        return found if several else found[0]

    def __repr__(self) -> str:
        height, width = self.canvas
        return f'{type(self).__name__}: {self.path}, {len(self.class_names)} classes, canvas {width} x {height}'

    def _results(self, plans: Sequence[Plan]) -> Iterator[dict[str, np.ndarray]]:
        """Yields the outputs for the windows of all images, in their order."""
        windows = ((plan, number) for plan in plans for number in range(plan.windows))
        batch = self._batches[sum(plan.windows for plan in plans) > self._batches[0]]
        while chunk := list(itertools.islice(windows, batch)):
            views = [plan.window(number) for plan, number in chunk]
            predictions = self._predictor(canvas.batch(views, batch, self.canvas, keras.config.floatx()))
            for i, ((plan, _), view) in enumerate(zip(chunk, views, strict=True)):
                size = view.shape[:2] if plan.maps else None
                yield {key: predictions.get(key, i, size) for key in plan.keys}

    def _class_map(self, image: np.ndarray, bands: Iterable[Band]) -> ClassMap:
        confidence = np.empty(image.shape[:2], np.float32)

        def keep(band: Band) -> None:
            confidence[band.top : band.top + len(band.confidence)] = band.confidence

        classes, _ = self._writer.assembled(image.shape[:2], bands, keep)
        return ClassMap(image, self.class_names, classes, confidence, self._writer)

    def _instances(self, image: np.ndarray, found: Detections) -> Instances:
        boxes, scores, classes, masks = found
        return Instances(image, self.class_names, boxes, classes, scores, masks, self._writer, self._settings.min_score)
