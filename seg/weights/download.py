"""Downloads weights once, into Keras' folder: `models/` in $KERAS_HOME, by default `~/.keras`."""

from __future__ import annotations

import os
import urllib.parse

from absl import logging

from seg import downloads


def cached(url: str, checksum: str, title: str, hint: str = '', name: str = '') -> str:
    """Returns the path of the file, and downloads it if it is missing or has another checksum.

    The file appears under its name only when it is complete and checked, even if several processes download it.

    Args:
      url: address.
      checksum: 'sha256:…' or 'md5:…', or the beginning of it; '' if none is known.
      title: what the file is, for messages.
      hint: another way to get it, for messages; a sentence or ''.
      name: the file's name; by default the last component of the address.

    Raises:
      UserError: if the download fails; the message has the address, and the path for a manual download.
    """
    path = os.path.join(folder(), name or os.path.basename(urllib.parse.urlsplit(url).path))
    if os.path.exists(path):
        actual = downloads.mismatch(path, checksum) if checksum else None
        if actual is None:
            return path
        logging.warning('%s: its checksum is %s, not %s: downloading it again.', path, actual, checksum)
    downloads.fetch(url, path, checksum, title, hint)
    return path


def folder() -> str:
    """Returns the folder of downloaded weights."""
    return os.path.join(os.environ.get('KERAS_HOME') or os.path.expanduser('~/.keras'), 'models')
