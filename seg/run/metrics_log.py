"""`metrics.jsonl`: a line for each loop of training and each evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from seg.errors import shown
from seg.files import parse_json, read_bytes, write_text, writing
from seg.run.values import is_step

_KINDS = ['train', 'eval']


class Log(NamedTuple):
    """The valid lines of the file in their order, and the number of damaged ones."""

    lines: list[dict[str, Any]]
    damaged: int

    def by_step(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind by step; the last one of each."""
        steps = {line['step']: line for line in self.lines if line['kind'] == kind}
        return [steps[step] for step in sorted(steps)]


class MetricsLog:
    """One JSON object per line, `kind` (train or eval) and `step` first, then numbers by name.

    An evaluation's line holds its metrics, `examples`, `seconds`, `split`, `weights` ('ema' or 'raw') and `details`,
    the paths of its further files in the run's folder, by their kinds.
    """

    def __init__(self, path: str):
        self._path = path

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line.

        Raises:
          UserError: if it cannot be written. A part of it counts as a damaged line.
        """
        line = json.dumps({'kind': kind, 'step': step, **values}, ensure_ascii=False) + '\n'
        with writing(self._path), open(self._path, 'a', encoding='utf-8', errors='backslashreplace') as file:
            file.write(line)

    def read(self) -> Log:
        """Reads the file; empty if there is none.

        Raises:
          UserError: if it cannot be read.
        """
        lines = [line for line, _ in self._lines()]
        return Log([line for line in lines if line is not None], lines.count(None))

    def cut(self, step: int) -> None:
        """Removes lines after `step`, and damaged ones with a warning. A kill may have cut the last line."""
        lines = self._lines()
        kept = [line for line, _ in lines if line is not None and line['step'] <= step]
        for number, (line, text) in enumerate(lines, 1):
            if line is None and text.endswith(b'\n'):
                logging.warning('%s: line %d is damaged, and omitted: %s', self._path, number, shown(text))
        write_text(self._path, ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in kept))

    def _lines(self) -> list[tuple[dict[str, Any] | None, bytes]]:
        """Yields the content of each line, None if it is damaged, and the line in the file."""
        if not os.path.exists(self._path):
            return []
        return [(_parsed(text), text) for text in read_bytes(self._path).splitlines(keepends=True) if text.strip()]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = parse_json(text)
    except ValueError:
        return None
    sound = isinstance(line, dict) and line.get('kind') in _KINDS and is_step(line.get('step'))
    return line if sound else None
