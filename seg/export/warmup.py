"""The requests that TF Serving sends to a model when it loads it, so that the first caller does not wait for it.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of `tensorflow.serving.PredictionLog`. Its four messages
are small, and are encoded here: the package tensorflow-serving-api is not needed for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

NAME = 'tf_serving_warmup_requests'


def write(folder: str, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes the file into the folder of a SavedModel.

    Args:
      folder: the folder with `saved_model.pb`.
      requests: names of signatures, and their inputs by name.
    """
    os.makedirs(os.path.join(folder, 'assets.extra'), exist_ok=True)
    with tf.io.TFRecordWriter(os.path.join(folder, 'assets.extra', NAME)) as file:
        for signature, inputs in requests:
            file.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: Mapping[str, Any]) -> bytes:
    """A PredictionLog with predict_log (6) → request (1) → model_spec (1) → signature_name (3), and inputs (2)."""
    request = _field(1, _field(3, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))  # An entry of a map: key and value.
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message: its key, its length, its content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
