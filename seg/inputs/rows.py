"""Rows of batches: the base class of the conversion of each target's examples."""

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
    """The part of the input of a task on images that depends on the target.

    Attributes:
      target: what the task learns from; the data set's contract for it is checked.
      blank: fill values of the row that replaces an unreadable example; 0 for other keys.
    """

    target: str
    blank: Mapping[str, Any]

    @abstractmethod
    def begin(self, example: Example) -> Example:
        """Converts a loaded example to the form of augments, see `seg.augments.base`, with `image` in Keras' floatx."""

    @abstractmethod
    def follow(self, example: Example, before: tf.Tensor) -> Example:
        """Scales the annotations of an image that was scaled.

        Args:
          example: with the scaled `image` and its `size`; all other keys as before.
          before: int64 [2], (height, width) of the image before.
        """

    @abstractmethod
    def packed(self, example: Example, canvas: Size) -> Example:
        """Pads an augmented example to a training row of static shapes."""

    @abstractmethod
    def scored(self, example: Example, native_size: tf.Tensor, canvas: Size) -> Example:
        """Pads an example to an evaluation row of static shapes; `native_size` is its size as loaded, int32 [2]."""

    def truth(self, dataset: Dataset) -> Callable[[int], Annotations] | None:
        """Function from an index to an image's instances, for metrics on the host; None if the batches have them."""
        return None
