"""Downloads files once, into Keras' folder: `models/` in $KERAS_HOME, by default `~/.keras`."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import urllib.parse
import urllib.request

from absl import logging

from seg import files
from seg.errors import UserError

_TIMEOUT = 30  # seconds without a byte.
_CHUNK = 1 << 20  # bytes


def cached(url: str, checksum: str, title: str, hint: str = '') -> str:
    """Returns the path of the file, and downloads it if it is missing or has another checksum.

    The file appears under its name only when it is complete and checked, even if several processes download it.

    Args:
      url: address; its last component is the file's name.
      checksum: 'sha256:…' or 'md5:…', or the beginning of it.
      title: what the file is, for messages.
      hint: another way to get it, for messages; a sentence or ''.

    Raises:
      UserError: if the download fails; the message has the address, and the path for a manual download.
    """
    path = os.path.join(folder(), os.path.basename(urllib.parse.urlsplit(url).path))
    if os.path.exists(path):
        actual = mismatch(path, checksum)
        if actual is None:
            return path
        logging.warning('%s: its checksum is %s, not %s: downloading it again.', path, actual, checksum)
    temporary = f'{path}.part-{os.getpid()}-{threading.get_ident()}'
    try:
        os.makedirs(folder(), exist_ok=True)
        logging.info('%s: downloading %s to %s', title, url, path)
        with files.atomically(path, temporary):
            _fetch(url, temporary)
            if (actual := mismatch(temporary, checksum)) is not None:
                raise OSError(f'the downloaded file has the checksum {actual}, expected {checksum}')
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f'{title}: cannot download {url}: {error}. Try again, or put the file there by hand: {path}'
            + (f'\n{hint}' if hint else '')
        ) from error
    return path


def folder() -> str:
    """Returns the folder of downloaded weights."""
    return os.path.join(os.environ.get('KERAS_HOME') or os.path.expanduser('~/.keras'), 'models')


def mismatch(path: str, checksum: str) -> str | None:
    """Returns None if the file's checksum begins with the expected one, otherwise the checksum of the file."""
    algorithm, _, digest = checksum.partition(':')
    with open(path, 'rb') as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    return None if actual.startswith(digest) else f'{algorithm}:{actual}'


def _fetch(url: str, path: str) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, open(path, 'wb') as file:
        expected, received = response.headers.get('Content-Length'), 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
    if expected is not None and received != int(expected):
        raise OSError(f'the connection ended after {received} of {expected} bytes')
