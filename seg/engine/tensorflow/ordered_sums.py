"""Adds the gradients of a tensor with several uses in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop


def use() -> None:
    """Makes all gradient tapes of this process add in the order of the uses.

    Their `AddN` overwrites one of its inputs that is no longer read, and starts from it. With three inputs or more, the
    bits of the result depend on threads, also with TensorFlow's op determinism. (In Mask R-CNN the finest map goes to
    the RPN, the box head and the mask head: on a busy CPU one gradient in twenty differed.) A chain of sums does not
    help, because Grappler turns it into one `AddN`.
    """
    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace._replace(aggregate_fn=_in_order))


def _in_order(gradients: Sequence[Any]) -> Any:
    if len(gradients) < 3 or not all(isinstance(gradient, tf.Tensor) for gradient in gradients):
        return backprop._aggregate_grads(gradients)
    return tf.reduce_sum(tf.stack(gradients), 0)
