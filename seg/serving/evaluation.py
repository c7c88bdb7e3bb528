"""Evaluation of an exported file with the metrics of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from seg.engine.base import EvaluatedBatch
from seg.errors import UserError
from seg.export.check import on_host
from seg.prediction import canvas as canvases
from seg.structures import Input

if TYPE_CHECKING:
    from seg.export.model_file import ModelFile


class FileEvaluation:
    """Evaluates a file in place of an engine, which would evaluate the task's own model.

    Images that an evaluation has scaled are rounded to whole values, as the file takes no others. There are no losses
    and no figures.
    """

    def __init__(self, file: ModelFile, class_names: Sequence[str]):
        """Takes the file.

        Args:
          file: an exported file.
          class_names: the classes of the data.

        Raises:
          UserError: if the file has other classes.
        """
        if (trained := file.description.class_names) != tuple(class_names):
            raise UserError(
                f'--model={file.path} has other classes than the evaluation data.\n'
                f'  file: {", ".join(trained)}\n  data: {", ".join(class_names)}'
            )
        self._file = file

    def evaluator(
        self, task: Any, summing: Sequence[Any], by_row: Sequence[Any]
    ) -> Callable[[Input, bool], Iterator[EvaluatedBatch]]:
        """See `seg.engine.base.Engine.evaluator`."""

        def batches(source: Input, draws: bool) -> Iterator[EvaluatedBatch]:
            for batch in source.make().as_numpy_iterator():
                found = {name: ops.convert_to_tensor(value) for name, value in self._predictions(batch, source).items()}
                tensors = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
                yield EvaluatedBatch(
                    sums=[on_host(metric.update(tensors, found)) for metric in summing],
                    rows=[on_host(metric.rows(tensors, found)) for metric in by_row],
                    losses={},
                    index=batch['index'],
                    weight=batch['weight'],
                    scores=None,
                    example=None,
                )

        return batches

    def _predictions(self, batch: Mapping[str, np.ndarray], source: Input) -> dict[str, np.ndarray]:
        """The file's outputs, with class maps on the canvas of the batch."""
        canvas, image = self._file.description.canvas, batch['image']
        height, width = image.shape[1:3]
        if height > canvas[0] or width > canvas[1]:
            raise UserError(
                f'--model={self._file.path} has a canvas of {canvas[0]} x {canvas[1]} pixels, and the images of '
                f'{source.name} need {height} x {width}. Export it with --canvas={height},{width}.'
            )
        windows = list(np.rint(np.clip(image, 0, 255)))
        images = canvases.batch(windows, len(windows), canvas, 'uint8')['image']
        found = self._file.run(images, batch['size'])
        if self._file.description.task == 'semantic':
            found = {name: value[:, :height, :width] for name, value in found.items()}
        return found | {'classes': found['classes'].astype(np.int32)}
