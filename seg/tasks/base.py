"""The contract of tasks: all members that the executor, the engine, prediction and the modes use.

A task owns a model, its losses and its metrics, and interprets their results. It runs on any engine: the methods under
"On the device" are pure, in `keras.ops`, with static shapes, so that they can be traced. B is the number of images in
one replica's batch.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.errors import UserError, shown
from seg.metrics.base import Metric
from seg.structures import Annotations, DataLimits, DatasetInfo, Figure, Input, LossTerm

if TYPE_CHECKING:
    from seg.inputs.images import ImageInputs
    from seg.prediction.outputs import Outputs
    from seg.prediction.settings import PredictSettings

Batch = Mapping[str, Any]


class Task:
    """Base of all tasks. A subclass defines the abstract members; the others have defaults.

    Attributes:
      checkpoint_items: Keras layers by name, whose variables are trained and saved.
      class_names: names of the classes, stored in checkpoints: a run resumes only with the same ones. Empty for a task
        without classes.
    """

    def __init__(
        self,
        *,
        checkpoint_items: Mapping[str, Any],
        inputs: Callable[[], ImageInputs],
        metrics: Sequence[Metric],
        class_names: Sequence[str] = (),
    ):
        """Takes the parts that a subclass has built.

        Args:
          checkpoint_items: see the class; for a model of this package its `parts`.
          inputs: makes the value of `inputs`, when batches or their size are first requested.
          metrics: metrics of an evaluation, made by `seg.tasks.references.build_metrics`.
          class_names: see the class.

        Raises:
          UserError: if `inputs` is no function.
        """
        if not callable(inputs):
            own = f'{type(self).__module__}.{type(self).__name__}'
            raise UserError(f'{own}: inputs = {shown(inputs)}; expected a function that returns an ImageInputs.')
        self.checkpoint_items = dict(checkpoint_items)
        self.class_names = tuple(class_names)
        self._make_inputs = inputs
        self._metrics = list(metrics)

    @functools.cached_property
    def inputs(self) -> ImageInputs:
        """What makes the batches. It needs TensorFlow; a task takes steps without it, on batches made elsewhere."""
        return self._make_inputs()

    # ---- On the device -----------------------------------------------------------------------------------------------

    @abstractmethod
    def loss_terms(self, batch: Batch, step: Any) -> dict[str, LossTerm]:
        """Losses of a training batch by name, in a fixed order. They are summed, logged, and checked for NaN by image.

        Args:
          batch: a batch of `training_input`: the task's tensors, and `weight` float32 [B] (0 for an unreadable
            image, which the engine excludes), `index` int32 [B], `seed` int32 [B, 2] for all random numbers.
          step: int32 scalar, number of steps taken before.
        """

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, Any]:
        """Predictions for images, tensors [B, …] by name.

        Args:
          batch: `image` [B, H, W, 3] in Keras' floatx, RGB 0 to 255, padded at the bottom and the right; `size` int32
            [B, 2], height and width of each image within the padding.
        """

    def evaluate_batch(self, batch: Batch) -> tuple[dict[str, Any], dict[str, LossTerm]]:
        """Predictions for the metrics, and the losses logged as `loss` and `loss/…`; by default `predict`, no losses.

        Args:
          batch: a batch of `evaluation_input`; `weight` is also 0 for padding.
        """
        return self.predict(batch), {}

    def evaluation_losses(self) -> Sequence[str]:
        """Names of the losses that `evaluate_batch` returns, known before an evaluation; none by default."""
        return ()

    @abstractmethod
    def image_scores(self, batch: Batch, predictions: Mapping[str, Any]) -> Any:
        """Scores that select the worst and the best images, float [B]: higher is better; NaN excludes an image."""

    def counts(self, batch: Batch) -> dict[str, Any]:
        """Counts of a training batch, [B] each, logged as `counts/…` with the counts of the losses; none by default."""
        return {}

    # ---- Input -------------------------------------------------------------------------------------------------------

    def training_input(self, dataset, batch_size: int) -> Input:
        """An endless input of shuffled, augmented examples.

        Raises:
          UserError: if the augmented images have no common size, or are too few for the model's normalisation.
        """
        return self.inputs.training(dataset, batch_size)

    def evaluation_input(self, dataset, batch_size: int) -> Input:
        """An input of every image once, on one canvas."""
        return self.inputs.evaluation(dataset, batch_size)

    def overfit_inputs(self, dataset, batch_size: int) -> tuple[Input, Input]:
        """The same few images for training and evaluation, scaled to the training size, without augmentation."""
        return self.inputs.overfit(dataset, batch_size)

    def canvas(self, max_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that images of at most `max_size` are padded to in evaluation and prediction."""
        return self.inputs.canvas(max_size)

    def data_limits(self) -> DataLimits:
        """What the settings allow of the data, for `--mode=check_data`; by default nothing is limited."""
        return DataLimits()

    # ---- Evaluation --------------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        """The metrics of an evaluation."""
        return self._metrics

    def self_test(self, dataset) -> None:
        """Checks before a training that the ground truth, taken as prediction, scores best; by default nothing.

        Raises:
          UserError: if it does not.
        """

    # ---- Output for users --------------------------------------------------------------------------------------------

    def summary(self, metrics: Mapping[str, float]) -> str:
        """One line about the results of an evaluation, for the log; by default the first four."""
        return ', '.join(f'{name} {value:.4g}' for name, value in list(metrics.items())[:4])

    def advice(self, counts: Mapping[str, float]) -> str | None:
        """Advice for the log, based on the counts of some training steps; None (the default) for no advice.

        Args:
          counts: means per image, by name, of `counts` and of the losses.
        """
        return None

    def training_figure(self, example: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
        """Draws an example of a training batch as the model gets it, uint8 [H, W, 3]; None (the default) for no figure.

        Args:
          example: a row of a batch of `training_input`, on the host.
          name: name of the image.
        """
        return None

    @abstractmethod
    def figure(
        self,
        example: Mapping[str, np.ndarray],
        prediction: Mapping[str, np.ndarray],
        name: str,
        truth: Annotations | None,
    ) -> Figure:
        """One image of an evaluation with ground truth and prediction, drawn later. It stays in memory: make it small.

        Args:
          example: the image's row of the batch, on the host.
          prediction: its row of the predictions of `evaluate_batch`.
          name: name of the image.
          truth: the result of the input's `truth` for it; None if the ground truth is in the batch.
        """  # fmt: skip

    @abstractmethod
    def writer(self, folder: str, info: DatasetInfo, settings: PredictSettings, probabilities: bool) -> Outputs:
        """Returns a writer of predictions; nothing is written before it is entered as a context.

        Args:
          folder: the output folder.
          info: facts about the training data.
          settings: settings of `--mode=predict`.
          probabilities: whether to write the probability of every class (`--probabilities`).

        Raises:
          UserError: for a setting that does not fit this task.
        """
