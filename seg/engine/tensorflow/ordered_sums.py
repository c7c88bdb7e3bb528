"""Gradients of one tensor from several places, added in one order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop


def use() -> None:
    """Lets all gradient tapes of this process add in the order of the uses.

    Their `AddN` writes over whichever of its inputs nobody reads any more, and starts from that one: with three inputs
    or more, which bits come out depends on threads, in TensorFlow's op determinism, too. (In Mask R-CNN the finest map
    goes to the RPN, the box head and the mask head: on a busy CPU one gradient in twenty differed.) A chain of sums
    is no way out, because Grappler makes one `AddN` of it.
    """
    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace._replace(aggregate_fn=_in_order))


def _in_order(gradients: Sequence[Any]) -> Any:
    if len(gradients) < 3 or not all(isinstance(gradient, tf.Tensor) for gradient in gradients):
        return backprop._aggregate_grads(gradients)
    return tf.reduce_sum(tf.stack(gradients), 0)
