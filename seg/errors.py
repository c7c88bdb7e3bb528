"""The exception for a user's mistake, and the display of values in its message."""

from __future__ import annotations

import reprlib
import traceback
import unicodedata
from typing import Any

_LONGEST = 8000  # Characters of a message: a screen or two.


class UserError(Exception):
    """A mistake that the user can correct: one readable message, no traceback.

    The message names the place (slot, flag, file and line, image), the value, what was expected and what to do next.
    `seg_main` prints it and exits with status 2. Any other exception is a bug of seg.
    """

    # These keep the message of an error raised in a layer or a traced function: otherwise Keras would add the layer's
    # arguments, and AutoGraph would raise another exception.
    _keras_call_info_injected = True
    ag_pass_through = True

    def __init__(self, message: str):
        if len(message) > _LONGEST:
            message = f'{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}'
        super().__init__(message)


class UnsavedError(UserError):
    """Results were computed and cannot be written. `seg_main` prints them.

    Attributes:
      results: values that JSON can hold.
    """

    def __init__(self, message: str, results: dict[str, Any]):
        super().__init__(message)
        self.results = results


def shown(value: Any, length: int = 60) -> str:
    """Returns the repr of a value, shortened to about `length` characters, also for long or deeply nested values.

    Texts have quotes. Characters that look alike on a screen are escaped.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = length
    short.maxlevel = 3
    text = short.repr(value)
    if unicodedata.normalize('NFC', text) != text:  # A combining accent looks like an accented letter.
        text = ''.join(ascii(c)[1:-1] if unicodedata.combining(c) else c for c in text)
    return text if len(text) <= length else f'{text[: length - 1]}…'


def line_of(error: BaseException, file: str) -> int | None:
    """The last line of a source file that an error passed through; None if it passed through none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
