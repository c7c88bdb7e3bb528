"""Downloads of files: checked, resumed after an interrupt, and complete when they appear."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from typing import BinaryIO

from absl import logging

from seg import files
from seg.errors import UserError

_TIMEOUT = 30  # seconds without a byte.
_CHUNK = 1 << 20  # bytes
_PERIOD = 10  # seconds between two lines about the progress.


def fetch(url: str, path: str, checksum: str, title: str, hint: str = '') -> None:
    """Downloads a file.

    The file appears under its name only when it is complete and checked; until then another file there stays. Meanwhile
    it is `<path>.part`: what an interrupted download left there is continued, and a second process waits for the first.

    Args:
      url: address.
      path: where the file should be. Its folder is made.
      checksum: 'sha256:…' or 'md5:…', or the beginning of it; '' if none is known.
      title: what the file is, for messages.
      hint: another way to get it, for messages; a sentence or ''.

    Raises:
      UserError: if the download fails; the message has the address, and the path for a manual download.
    """
    part = f'{path}.part'
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.alone(part) as file:
            if os.path.exists(path) and not (checksum and mismatch(path, checksum)):
                os.remove(part)
                return  # Another process has downloaded it meanwhile.
            logging.info('%s: downloading %s to %s', title, url, path)
            try:
                _receive(url, file, title)
            except BaseException:
                if os.path.getsize(part) == 0:
                    os.remove(part)
                raise
            os.fsync(file.fileno())
            if checksum and (actual := mismatch(part, checksum)) is not None:
                os.remove(part)
                raise OSError(f'the downloaded file has the checksum {actual}, expected {checksum}')
            os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, 'reason', None) if isinstance(error, urllib.error.URLError) else None
        said = error if isinstance(error, urllib.error.HTTPError) else reason or error
        raise UserError(
            f'{title}: cannot download {url}: {said}. Try again, or put the file there by hand: {path}'
            + (f'\n{hint}' if hint else '')
        ) from error


def mismatch(path: str, checksum: str) -> str | None:
    """Returns None if the file's checksum begins with the expected one, otherwise the checksum of the file."""
    algorithm, _, digest = checksum.partition(':')
    actual = digest_of(path, algorithm)
    return None if actual.startswith(checksum) else actual


def digest_of(path: str, algorithm: str = 'sha256') -> str:
    """The checksum of a file, such as 'sha256:0676ba61…'."""
    with open(path, 'rb') as file:
        return f'{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}'


def _receive(url: str, file: BinaryIO, title: str) -> None:
    """Appends the bytes that the file lacks; from the beginning if the server cannot continue."""
    there = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={'Range': f'bytes={there}-'} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not there:
            raise
        error.close()
        file.truncate(0)  # The part is at least as long as the file; its content may be wrong.
        return _receive(url, file, title)
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            there = 0
            file.truncate(0)
        length = response.headers.get('Content-Length')
        expected, received, reported = None if length is None else there + int(length), there, time.monotonic()
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            if time.monotonic() - reported > _PERIOD:
                reported = time.monotonic()
                logging.info('%s: %s', title, _progress(received, expected))
    file.flush()
    if expected is not None and received != expected:
        raise OSError(f'the connection ended after {received} of {expected} bytes')
    return None


def _progress(received: int, expected: int | None) -> str:
    if not expected:
        return f'{received / 1e6:,.0f} MB.'
    return f'{received / 1e6:,.0f} of {expected / 1e6:,.0f} MB, {received / expected:.0%}.'
