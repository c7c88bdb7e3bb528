"""Calls a function with symbolic tensors, on any backend of Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def traced(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of `function` for symbolic tensors, which have only shapes and dtypes.

    Args:
      function: assignments to variables in it are lost. Tensors cannot leave it: it must return facts about them, such
        as shapes.
      arguments: `keras.KerasTensor`s of static shape, and dicts of them.

    Raises:
      Exception: any exception of `function`, unchanged.
    """
    operation = _Traced(function)
    try:
        operation.compute_output_spec(*arguments)
    except Exception:
        if operation.error is None:
            raise
        raise operation.error from None  # Keras would raise another one, with a message about `compute_output_spec`.
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
