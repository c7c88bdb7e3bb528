"""How an example becomes a row of a batch: the class that the rows of each target derive from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from seg.datasets.base import Dataset
from seg.structures import Annotations

Example = dict[str, tf.Tensor]
Size = tuple[int, int]


class Rows(ABC):
    """What differs between targets in the input of a task on images.

    Attributes:
      target: what the task learns from; the data set's contract for it is checked.
      blank: fill values of the row that replaces an unreadable example; 0 for other keys.
    """

    target: str
    blank: Mapping[str, Any]

    @abstractmethod
    def begin(self, example: Example) -> Example:
        """A loaded example as augments take it, see `seg.augments.base`: `image` in Keras' floatx, `size` …"""

    @abstractmethod
    def follow(self, example: Example, before: tf.Tensor) -> Example:
        """Scales what belongs to an image that was scaled.

        Args:
          example: with the scaled `image` and its `size`; all else as before.
          before: int64 [2], (height, width) of the image before.
        """

    @abstractmethod
    def packed(self, example: Example, canvas: Size) -> Example:
        """Pads an augmented example to a training row of static shapes."""

    @abstractmethod
    def scored(self, example: Example, native_size: tf.Tensor, canvas: Size) -> Example:
        """Pads an example to an evaluation row of static shapes; `native_size` is its size as loaded, int32 [2]."""

    def truth(self, dataset: Dataset) -> Callable[[int], Annotations] | None:
        """How metrics on the host get the instances of an image; None where the truth is in the batches."""
        return None
