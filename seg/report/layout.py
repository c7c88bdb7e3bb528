"""The layout that all pages share: one file of HTML, without any request to other files or servers."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
from typing import Any

import jinja2

from seg import __version__
from seg.report import text

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def render(folder: str, title: str, script: str = '', **values: Any) -> str:
    """Returns a page as HTML.

    Args:
      folder: the folder with the page's `page.html`, which fills the blocks of `layout.html`.
      title: heading of the page.
      script: JavaScript of the page, besides that of all pages; no other is executed.
      **values: what `page.html` reads.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = read(_FOLDER, 'layout.js') + script
    environment.filters |= {'share': text.share, 'grouped': text.grouped}
    return environment.get_template('page.html').render(
        **values,
        title=title,
        style=read(_FOLDER, 'layout.css'),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made=datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'),
        version=__version__,
    )


def read(folder: str, name: str) -> str:
    """The content of a text file."""
    with open(os.path.join(folder, name), encoding='utf-8') as file:
        return file.read()
