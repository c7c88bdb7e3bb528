"""A function is called on tensors without values, on any backend of Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def traced(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `function` returns for tensors of which only shapes and dtypes are known; computes nothing.

    Args:
      function: what it assigns to variables is lost. Tensors that it returns are of no use: it has to return what is to
        be known of them.
      arguments: `keras.KerasTensor`s of static shape, and dicts of them.

    Raises:
      Exception: what `function` raises, as it is.
    """
    operation = _Traced(function)
    try:
        operation.compute_output_spec(*arguments)
    except Exception:
        if operation.error is None:
            raise
        raise operation.error from None  # Keras raises another one, with a message about `compute_output_spec`.
    return operation.returned


class _Traced(keras.Operation):
    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self._function = function
        self.returned: Any = None
        self.error: Exception | None = None

    def call(self, *arguments: Any) -> Any:
        try:
            self.returned = self._function(*arguments)
        except Exception as error:
            self.error = error
            raise
        return arguments
