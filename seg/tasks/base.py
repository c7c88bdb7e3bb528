"""What a task is: all that the executor, the engine, prediction and the modes ask of one.

A task owns a model, its losses and its metrics, and knows what they mean. It runs on any engine: the methods under
"On the device" are pure, in `keras.ops`, and with static shapes, so that they can be traced. B is the number of images
of one replica's batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from seg.metrics.base import Metric
from seg.structures import Annotations, DatasetInfo, Input, LossTerm

if TYPE_CHECKING:
    from seg.inputs.images import ImageInputs
    from seg.prediction.outputs import Outputs
    from seg.prediction.settings import PredictSettings

Batch = Mapping[str, Any]


class Figure(Protocol):
    """An image of an evaluation with its truth and its prediction, kept until the evaluation ends."""

    def draw(self) -> np.ndarray:
        """Pixels, uint8 [H, W, 3]."""


class Task:
    """Base of all tasks. What is abstract has no default; everything else may stay as it is.

    Attributes:
      checkpoint_items: Keras layers by name, whose variables are trained and saved.
      class_names: of the data set, kept in checkpoints: a run goes on with the same ones only. Empty for a task without
        classes.
      inputs: makes the batches.
    """

    def __init__(
        self,
        *,
        checkpoint_items: Mapping[str, Any],
        inputs: ImageInputs,
        metrics: Sequence[Metric],
        class_names: Sequence[str] = (),
    ):
        """Takes what a subclass has built.

        Args:
          checkpoint_items: see the class; for a model of this package its `parts`.
          inputs: see the class.
          metrics: that an evaluation fills, as `seg.tasks.references.build_metrics` makes them.
          class_names: see the class.
        """
        self.checkpoint_items = dict(checkpoint_items)
        self.class_names = tuple(class_names)
        self.inputs = inputs
        self._metrics = list(metrics)

    # ---- On the device -----------------------------------------------------------------------------------------------

    @abstractmethod
    def loss_terms(self, batch: Batch, step: Any) -> dict[str, LossTerm]:
        """Losses of a training batch by name, in one order: they are added up, logged and checked for NaN by image.

        Args:
          batch: of `training_input`: what the task's inputs make, and `weight` float32 [B] (0 for an image that could
            not be read; the engine leaves it out), `index` int32 [B], `seed` int32 [B, 2] for everything random.
          step: int32 scalar, steps taken before.
        """

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, Any]:
        """What the model says of images, tensors [B, …] by name.

        Args:
          batch: `image` [B, H, W, 3] in Keras' floatx, RGB 0 to 255, padded at the bottom and the right; `size` int32
            [B, 2], height and width of each image within.
        """

    def evaluate_batch(self, batch: Batch) -> tuple[dict[str, Any], dict[str, LossTerm]]:
        """Predictions for the metrics, and losses for `loss` and `loss/…`; by default those of `predict`, and none.

        Args:
          batch: of `evaluation_input`; `weight` is 0 for padding, too.
        """
        return self.predict(batch), {}

    @abstractmethod
    def image_scores(self, batch: Batch, predictions: Mapping[str, Any]) -> Any:
        """What the worst and the best images are picked by, float [B]: higher is better; NaN for neither."""

    def counts(self, batch: Batch) -> dict[str, Any]:
        """Numbers of a training batch to watch, [B] each, logged as `counts/…` like those of the losses; none here."""
        return {}

    # ---- Input -------------------------------------------------------------------------------------------------------

    def training_input(self, dataset, batch_size: int) -> Input:
        """Shuffled, augmented examples without end.

        Raises:
          UserError: if the augmented images have no common size, or are too few for the model's normalisation.
        """
        return self.inputs.training(dataset, batch_size)

    def evaluation_input(self, dataset, batch_size: int) -> Input:
        """Every image once, on one canvas."""
        return self.inputs.evaluation(dataset, batch_size)

    def overfit_inputs(self, dataset, batch_size: int) -> tuple[Input, Input]:
        """The same few images for training and evaluation, scaled to the training size, without augmentation."""
        return self.inputs.overfit(dataset, batch_size)

    def canvas(self, max_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that images of at most `max_size` are padded to in evaluation and prediction."""
        return self.inputs.canvas(max_size)

    # ---- Evaluation --------------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        """The metrics that an evaluation fills."""
        return self._metrics

    def self_test(self, dataset) -> None:
        """Looks, before a training, whether the truth of an evaluation's data set scores as perfect; nothing here.

        Raises:
          UserError: if it does not.
        """

    # ---- For people --------------------------------------------------------------------------------------------------

    def summary(self, metrics: Mapping[str, float]) -> str:
        """One line for the log about the results of an evaluation; by default the first four."""
        return ', '.join(f'{name} {value:.4g}' for name, value in list(metrics.items())[:4])

    def advice(self, counts: Mapping[str, float]) -> str | None:
        """What the counts of some training steps suggest, for the log; None for nothing, which is the default.

        Args:
          counts: means per image, by name, of `counts` and of the losses.
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
        """One image of an evaluation beside its truth and its prediction, to be drawn later; small, for it is kept.

        Args:
          example: the image's row of the batch, on the host.
          prediction: its row of what `evaluate_batch` predicted.
          name: of the image.
          truth: what the input's `truth` returns for it; None where the truth is in the batch.
        """  # fmt: skip

    @abstractmethod
    def writer(self, folder: str, info: DatasetInfo, settings: PredictSettings, probabilities: bool) -> Outputs:
        """What writes the predictions of images; nothing is written before it is entered as a context.

        Args:
          folder: to write to.
          info: of the training data.
          settings: of `--mode=predict`.
          probabilities: whether `--probabilities` asks for the probability of every class.

        Raises:
          UserError: for what makes no sense for this task.
        """
