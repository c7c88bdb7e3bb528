"""The check of an exported file: in its own runtime it must give the results of the checkpoint.

The same images go through the checkpoint and through the file: images of the evaluation data, and the hard cases, which
are a black image, an image that fills a part of the canvas with noise around it, and three images in one call. The file
runs in a process of its own, so that a crash of its runtime gives a message.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from seg.engine.base import Predictor
from seg.errors import UserError
from seg.export import apart
from seg.export.comparison import Comparison
from seg.export.run_file import Case, Found, median_seconds, read_found, save_cases
from seg.metrics.base import RowMetric, SumMetric, higher_is_better
from seg.prediction import canvas
from seg.structures import Input

# Largest fraction of pixels or detections that may differ in float32; largest loss of the score of a quantized file.
SHARE, LOSS = 1e-3, 1e-2
_CONFIDENCE = 0.05  # Largest difference of a pixel's confidence in float32.
_OUTPUTS = {'semantic': ('classes', 'confidence'), 'instance': ('boxes', 'scores', 'classes', 'masks')}


class Example(NamedTuple):
    """An image of the evaluation data.

    Attributes:
      image: uint8 [H, W, 3] on the canvas.
      size: (height, width) of the image within the canvas.
      batch: the batch with this image alone, for the metrics.
      truth: its annotations, None if they are in the batch.
    """

    image: np.ndarray
    size: np.ndarray
    batch: Mapping[str, Any]
    truth: Any


def examples(source: Input, count: int) -> list[Example]:
    """The first images of an evaluation input of batches of one, without those that cannot be read.

    Raises:
      UserError: if none can be read.
    """
    found: list[Example] = []
    for batch in source.make():
        if len(found) == count:
            break
        if float(batch['weight'][0]) > 0:
            image = np.clip(np.rint(batch['image'][0]), 0, 255).astype(np.uint8)
            truth = source.truth(int(batch['index'][0])) if source.truth else None
            found.append(Example(image, np.asarray(batch['size'][0], np.int32), batch, truth))
    if not found:
        raise UserError(f'{source.name}: no image can be read, and the check of an exported file needs some.')
    return found


class Check:
    """The results of the checkpoint, and the comparison of files with them."""

    def __init__(self, task, kind: str, predictor: Predictor, found: Sequence[Example], best_metric: str):
        """Runs the checkpoint.

        Args:
          task: the task, for its metrics.
          kind: 'semantic' or 'instance'.
          predictor: predicts with the checkpoint.
          found: images of the evaluation data.
          best_metric: the score of the run; if it is a loss, the first one of the metrics takes its place.
        """
        self._task, self._kind, self._predictor, self._examples = task, kind, predictor, found
        self._cases = _cases(found)
        self._before = [self._predict(*case) for case in self._cases]
        self._seconds = median_seconds(lambda: self._predict(*self._cases[0]))
        names = [name for metric in task.metrics() for name in metric.names()]
        self._metric = best_metric if best_metric in names else names[0]
        self._score = self._scored(self._before)

    def figures(self, path: str) -> dict[str, Any]:
        """Runs a file and compares it.

        Returns:
          `images` (number), `compared` (number of pixels, or of detections on both sides), `differing` (fraction of
          these), `agreeing` (fraction that has the same class, and of detections a box with an IoU of at least 0.5),
          `largest` (largest difference by output), `finite`, `score` (its name), `score_before` and `score_after` (None
          if undefined), and of one image `milliseconds_before` and `milliseconds_after`.

        Raises:
          UserError: if the file cannot run.
        """
        found = run_apart(path, self._cases)
        comparison = Comparison(self._kind)
        for (_, sizes), before, after in zip(self._cases, self._before, found.outputs, strict=True):
            for i, size in enumerate(sizes):
                comparison.add(*({name: value[i] for name, value in side.items()} for side in (before, after)), size)
        return {
            'images': len(self._examples),
            'compared': comparison.total,
            'differing': comparison.differing / max(comparison.total, 1),
            'agreeing': comparison.agreeing / max(comparison.total, 1),
            'largest': comparison.largest,
            'finite': comparison.finite,
            'score': self._metric,
            'score_before': self._score,
            'score_after': self._scored(found.outputs),
            'milliseconds_before': round(1000 * self._seconds, 3),
            'milliseconds_after': round(1000 * found.seconds, 3),
        }

    def fault(self, figures: Mapping[str, Any], quantize: str, tolerance: float | None) -> str | None:
        """The fault of a file, and what to try; None if it passes.

        Args:
          figures: from `figures`.
          quantize: the file's quantization: a quantized file is judged by its score, another one by the fraction of
            pixels or detections that differ.
          tolerance: the largest fraction, or the largest loss of the score; None for `SHARE` or `LOSS`.
        """
        things = 'pixels' if self._kind == 'semantic' else 'detections'
        if not figures['finite']:
            return 'some numbers are not finite'
        if not figures['compared']:
            return f'no detection in {figures["images"]} images, so nothing was compared. Give more --images'
        if quantize == 'none':
            limit = SHARE if tolerance is None else tolerance
            if figures['differing'] > limit:
                return (
                    f'{figures["differing"]:.3%} of the {things} differ, and the tolerance is {limit:.3%}. Try another '
                    'format. Does the run predict well? Between scores that nearly tie, rounding decides'
                )
            for output in ('confidence', 'probabilities'):
                if (largest := figures['largest'].get(output, 0)) > _CONFIDENCE:
                    return f'{output} differ by {largest:.3g}, expected at most {_CONFIDENCE}. Try another format'
            return None
        limit = LOSS if tolerance is None else tolerance
        name, before, after = (figures[key] for key in ('score', 'score_before', 'score_after'))
        higher = higher_is_better(self._task.metrics(), name)
        if before is None or after is None or (higher and before <= 0):
            return (
                f'{name} of the checkpoint is {before}, and of the file {after}, so it proves nothing. Give more '
                '--images, such as have annotations, or train the run further'
            )
        loss = before - after if higher else after - before
        if loss <= limit:
            return None
        return (
            f'{name} falls from {before:.4f} to {after:.4f}, and the tolerance is a loss of {limit:g}. Try '
            '--quantize=float16, --quantize=dynamic, or none'
        )

    def _predict(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Predictions of the checkpoint for images prepared as in `--mode=predict`."""
        windows = [image[:height, :width] for image, (height, width) in zip(images, sizes, strict=True)]
        found = self._predictor(canvas.batch(windows, len(windows), images.shape[1:3], 'float32'))
        return {name: np.stack([found.get(name, i) for i in range(len(images))]) for name in _OUTPUTS[self._kind]}

    def _scored(self, outputs: Sequence[Mapping[str, np.ndarray]]) -> float | None:
        """The score of the predictions for the images of the evaluation data, which are the first cases.

        None if it is not defined, such as for images without annotations.
        """
        metrics = self._task.metrics()
        for metric in metrics:
            metric.reset()
        for example, found in zip(self._examples, outputs, strict=False):
            predictions = {name: ops.convert_to_tensor(found[name]) for name in _OUTPUTS[self._kind]}
            predictions['classes'] = ops.cast(predictions['classes'], 'int32')
            for metric in metrics:
                if isinstance(metric, SumMetric):
                    metric.add(on_host(metric.update(example.batch, predictions)))
                elif isinstance(metric, RowMetric):
                    metric.add(on_host(metric.rows(example.batch, predictions)), [example.truth])
        try:
            score = next(m.result().get(self._metric) for m in metrics if self._metric in m.names())
        except UserError:  # A metric refuses images without annotations.
            return None
        return float(score) if score is not None and np.isfinite(score) else None


def _cases(found: Sequence[Example]) -> list[Case]:
    """The images one by one, then the hard cases."""
    cases = [(example.image[None], example.size[None]) for example in found]
    images, sizes = (np.concatenate(arrays) for arrays in zip(*cases, strict=True))
    whole = np.int32(images.shape[1:3])
    part = np.maximum(sizes[0] * 2 // 3, 1)
    noise = np.random.default_rng(0).integers(0, 256, images[0].shape).astype(np.uint8)
    noise[: part[0], : part[1]] = images[0][: part[0], : part[1]]
    three = np.arange(3) % len(found)
    return [*cases, (np.zeros_like(images[:1]), whole[None]), (noise[None], part[None]), (images[three], sizes[three])]


def on_host(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The sums or rows of a metric as arrays."""
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


def run_apart(path: str, cases: Sequence[Case]) -> Found:
    """Runs a file in a process of its own.

    The arrays are exchanged beside the file, because `--probabilities` of large images do not fit into every `/tmp`.

    Raises:
      UserError: if the process fails or crashes.
    """
    path = os.path.abspath(path)
    with tempfile.TemporaryDirectory(prefix='check-', dir=os.path.dirname(path)) as folder:
        source, target = os.path.join(folder, 'cases.npz'), os.path.join(folder, 'found.npz')
        save_cases(source, cases)
        try:
            apart.run('seg.export.run_file', path, source, target)
        except UserError as error:
            raise UserError(f'{error}. Try another --quantize, or another format.') from None
        return read_found(target, len(cases))
