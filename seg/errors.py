"""The one exception for a user's mistake, and how its messages show values."""

from __future__ import annotations

import reprlib
import unicodedata
from typing import Any

_LONGEST = 8000  # Characters of a message: a screen or two.


class UserError(Exception):
    """A mistake that the user can mend: one readable message, no traceback.

    The message names the place (slot, flag, file and line, image), the value, what was expected and what to do next.
    `seg_main` prints it and exits with status 2; anything else that is raised is a bug of ours.
    """

    # Raised within a layer or a traced function, it keeps its message: without these, Keras would add the layer's
    # arguments, and AutoGraph would make it an exception of its own.
    _keras_call_info_injected = True
    ag_pass_through = True

    def __init__(self, message: str):
        if len(message) > _LONGEST:
            message = f'{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}'
        super().__init__(message)


class UnsavedError(UserError):
    """Results that were computed and cannot be written. `seg_main` prints them.

    Attributes:
      results: values that JSON can hold.
    """

    def __init__(self, message: str, results: dict[str, Any]):
        super().__init__(message)
        self.results = results


def shown(value: Any, length: int = 60) -> str:
    """A value as Python writes it, cut to about `length` characters, however long or deeply nested it is.

    Texts have quotes, and characters that cannot be told apart on a screen are written as escapes.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = length
    short.maxlevel = 3
    text = short.repr(value)
    if unicodedata.normalize('NFC', text) != text:  # An accent of its own looks like one that belongs to its letter.
        text = ''.join(ascii(c)[1:-1] if unicodedata.combining(c) else c for c in text)
    return text if len(text) <= length else f'{text[: length - 1]}…'
