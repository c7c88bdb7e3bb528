"""The exception for a user's mistake, and the display of values in its message."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import re
import reprlib
import traceback
import unicodedata
from collections.abc import Iterator
from typing import Any

_LONGEST = 8000  # Characters of a message: a screen or two.


class UserError(Exception):
    """A mistake that the user can correct: one readable message, no traceback.

    The message names the place (slot, flag, file and line, image), the value, what was expected and what to do next.
    `seg_main` prints it and exits with `status`. Any other exception is a bug of seg.
    """

    status = 2

    # These keep the message of an error raised in a layer or a traced function: otherwise Keras would add the layer's
    # arguments, and AutoGraph would raise another exception.
    _keras_call_info_injected = True
    ag_pass_through = True

    def __init__(self, message: str):
        if len(message) > _LONGEST:
            message = f'{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}'
        super().__init__(message)

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show instead of a traceback."""
        return [f'{type(self).__name__}: {self}']


class UnsavedError(UserError):
    """Results were computed and cannot be written. `seg_main` prints them.

    Attributes:
      results: values that JSON can hold.
    """

    def __init__(self, message: str, results: dict[str, Any]):
        super().__init__(message)
        self.results = results


class LostProcessError(UserError):
    """Another process of the run was lost. This process has no fault, and the same command resumes the run."""

    status = 75  # EX_TEMPFAIL of sysexits.h.


def shown(value: Any, length: int = 60) -> str:
    """Returns the repr of a value, shortened to about `length` characters, also for long or deeply nested values.

    Strings have quotes. Characters that look alike on a screen are escaped.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = length
    short.maxlevel = 3
    text = short.repr(value)
    if unicodedata.normalize('NFC', text) != text:  # A combining accent looks like an accented letter.
        text = ''.join(ascii(c)[1:-1] if unicodedata.combining(c) else c for c in text)
    return text if len(text) <= length else f'{text[: length - 1]}…'


def did_you_mean(path: str) -> str:
    """' Did you mean runs/instances?' for the most similar name beside a path that does not exist, or ''."""
    whole = os.path.abspath(os.path.expanduser(path))
    try:
        names = os.listdir(os.path.dirname(whole))
    except OSError:
        return ''
    near = difflib.get_close_matches(os.path.basename(whole), names, 1)
    return ''.join(f' Did you mean {os.path.join(os.path.dirname(path.rstrip(os.sep)), name)}?' for name in near)


def shown_path(path: str | os.PathLike) -> str:
    """Returns a path for messages: relative to the working directory if it lies within."""
    path = os.path.abspath(path) if os.path.exists(path) else str(path)
    inside = path.startswith(os.path.join(os.getcwd(), ''))
    return os.path.relpath(path) if inside else path


# ---- Exceptions of plugins -------------------------------------------------------------------------------------------

# TensorFlow reports an exception of a function that `tf.numpy_function` or `tf.py_function` calls as an error of its
# own, with the exception and its traceback in the text.
_IN_TEXT = re.compile(r'(?s)\b(\w+): ((?:(?!Traceback \().)*)\nTraceback \(most recent call last\):\n')
# Keras adds the layer and its arguments to the text of an exception that a layer's `call` raises.
_IN_LAYER = re.compile(r'(?s)Exception encountered when calling .*?\x1b\[1m(?:.*Error encountered:\n\n)?(.*?)\x1b\[0m')


@contextlib.contextmanager
def as_user_error(what: str, code: Any, file: str | None = None, remedy: str = '') -> Iterator[None]:
    """Context around a call of a plugin's code: turns its exceptions into a `UserError`.

    Exceptions of a built-in part are bugs of seg and pass unchanged, as every `UserError` does.

    Args:
      what: the setting, the part and the call, for the message.
      code: the function that is called, or the class or the object whose method is called.
      file: its source file; by default where Python finds it.
      remedy: what to do, a sentence.

    Raises:
      UserError: see `failed`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if built_in(code):
            raise
        raise failed(error, what, file or source_file(code), remedy) from error


def failed(error: BaseException, what: str, file: str | None, remedy: str = '') -> UserError:
    """The message about an exception of a plugin's code: what failed, the line in the plugin's file, the exception.

    Args:
      error: the exception.
      what: the setting, the part and the call.
      file: source file of the plugin; None if unknown.
      remedy: what to do, a sentence.
    """
    line = line_of(error, file) if file else None
    place = f', {shown_path(file)}:{line}' if line else ''
    return UserError(' '.join([f'{what} failed{place}: {reason(error)}.', remedy]).strip())


def built_in(code: Any) -> bool:
    """Whether a function, a class or an object belongs to this package, not to a plugin."""
    return _owner(code).__module__.startswith('seg.')


def source_file(code: Any) -> str | None:
    """The source file of a function, a class or an object; None if it has none, as in a notebook."""
    try:
        return inspect.getsourcefile(_owner(code))
    except (TypeError, OSError):
        return None


def _owner(code: Any) -> Any:
    return code if inspect.isfunction(code) or inspect.isclass(code) else type(code)


def line_of(error: BaseException, file: str) -> int | None:
    """The innermost line of a source file that an error passed through; None if it passed through none.

    Lines in functions that AutoGraph has converted, or that TensorFlow has called, count as well.
    """
    in_text = re.findall(r'^ *File "(.*)", line (\d+), in ', str(error), re.MULTILINE)
    lines = [int(line) for name, line in in_text if name == file]
    if not lines and (converted := getattr(error, 'ag_error_metadata', None)):  # Innermost first.
        lines = [frame.lineno for frame in reversed(converted.translated_stack) if frame.filename == file]
    if not lines:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def python_error(error: BaseException) -> tuple[str, str] | None:
    """Type and text of the exception of a Python function that TensorFlow has called; None for any other error."""
    text = str(error)
    found = _IN_TEXT.search(text) if 'Traceback (most recent call last):' in text else None  # Long texts take long.
    return (found[1], found[2]) if found else None


def reason(error: BaseException) -> str:
    """The reason of a failed operation or function, in a few words."""
    if found := python_error(error):
        name, text = found
    elif type(error).__module__.startswith('tensorflow.'):
        _, asserted, data = str(error).partition('Summarized data: ')  # Of an assertion that runs eagerly.
        if asserted:
            return ' '.join(data.split())[:200]
        # TensorFlow's heading and the place in the graph come before the reason, the names of nodes around it.
        lines = str(error).split('\n\t [[')[0].splitlines() or [type(error).__name__]
        return lines[-1].split('}} ')[-1].split(' [Op:')[0][:200]
    else:
        name, text = type(error).__name__, str(error)
        if found := _IN_LAYER.match(str(error.args[0]) if error.args else ''):  # The text of a KeyError is a repr.
            text = found[1]
    return f'{name}: {" ".join(text.split()):.200}'.rstrip(': .')
