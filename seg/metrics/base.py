"""The contract of metrics: `SumMetric` or `RowMetric`.

Most metrics are sums: the device computes the sums of one batch over all replicas, so that little is copied to the
host. A metric that must compare image by image gets a row per image instead.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seg.structures import Annotations, ImageSummary


class Metric:
    """The methods on the host, common to both kinds. Subclass `SumMetric` or `RowMetric`.

    Attributes:
      origin: the setting that holds it and its reference, for messages; empty if it was not built from one.
    """

    origin = ''

    @abstractmethod
    def reset(self) -> None:
        """Forgets all images."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """All keys that `result` may have. `RunConfig.best_metric` is one of them."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """The scores of all images added so far, finite numbers by name; a score without a value has no key.

        Raises:
          UserError: if there is nothing to evaluate.
        """

    def higher_is_better(self, name: str) -> bool:
        """Whether a higher value of one of `names()` is better; if not, `best/` has the checkpoint of the lowest."""
        return True

    def charts(self) -> list[ImageSummary]:
        """Charts of all images added so far, for TensorBoard."""
        return []

    def details(self) -> dict[str, Any]:
        """JSON values by name, each written to `eval/<name>-<split>-<step>.json`."""
        return {}


class SumMetric(Metric):
    """A metric of sums over all images, such as a confusion matrix or a sum of squared errors."""

    @abstractmethod
    def update(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
        """Computes sums over the images of one replica's batch, on the device. Pure; `keras.ops` only; static shapes.

        Args:
          batch: a batch of the task's inputs; images with `batch['weight']` [B] of 0 do not count.
          predictions: predictions of the task's `evaluate_batch`.

        Returns:
          Integer or float tensors of any shape, by name.
        """

    @abstractmethod
    def add(self, sums: Mapping[str, np.ndarray]) -> None:
        """Adds the result of `update`, summed over all replicas, on the host.

        Raises:
          UserError: if the values are not valid.
        """


class RowMetric(Metric):
    """A metric that compares on the host, image by image."""

    @abstractmethod
    def rows(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the values of each image that the host needs, on the device. Pure; `keras.ops` only; static shapes.

        Args:
          batch: a batch of the task's inputs.
          predictions: predictions of the task's `evaluate_batch`.

        Returns:
          Tensors [B, …] by name, a row per image.
        """

    @abstractmethod
    def add(self, rows: Mapping[str, np.ndarray], truth: Sequence[Annotations | None]) -> None:
        """Adds images, on the host.

        Args:
          rows: the result of `rows`, for the images that count.
          truth: for the same images, the result of the input's `truth`; None if the input has none.

        Raises:
          UserError: if the values are not valid.
        """

    def self_test(self, truths: Iterable[tuple[str, Annotations]]) -> None:
        """Scores the ground truth of some images as if it were predicted, before a training. By default nothing.

        Args:
          truths: names of images with their data set, for messages, and their annotations.

        Raises:
          UserError: if the scores are not perfect.
        """


def higher_is_better(metrics: Iterable[Metric], name: str) -> bool:
    """Whether a higher value of an evaluation's score is better: False for a loss; the metric decides for others."""
    if name == 'loss' or name.startswith('loss/'):
        return False
    return next((metric.higher_is_better(name) for metric in metrics if name in metric.names()), True)
