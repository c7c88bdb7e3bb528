"""What a run writes for people and programs: metrics.jsonl, TensorBoard events, JSON files."""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from seg.errors import shown
from seg.files import parse_json, read_bytes, write_text, writing
from seg.structures import Picture

_numbers = itertools.count()  # Two event files of one second want two names.


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, `kind` (train or eval) and `step` first."""

    def __init__(self, path: str):
        self._path = path

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line.

        Raises:
          UserError: if it cannot be written. What there is of it then counts for nothing.
        """
        line = json.dumps({'kind': kind, 'step': step, **values}, ensure_ascii=False) + '\n'
        with writing(self._path), open(self._path, 'a', encoding='utf-8', errors='backslashreplace') as file:
            file.write(line)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines, in their order; damaged ones are left out."""
        return [line for line, _ in self._lines() if line is not None]

    def cut(self, step: int) -> None:
        """Forgets what came after `step`, and what is damaged, which is told. A kill may have cut the last line."""
        lines = self._lines()
        kept = [line for line, _ in lines if line is not None and line['step'] <= step]
        for number, (line, text) in enumerate(lines, 1):
            if line is None and text.endswith(b'\n'):
                logging.warning('%s: line %d is damaged, and left out: %s', self._path, number, shown(text))
        write_text(self._path, ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in kept))

    def _lines(self) -> list[tuple[dict[str, Any] | None, bytes]]:
        """Each line as it was meant, None if it is damaged, and as it stands there."""
        if not os.path.exists(self._path):
            return []
        return [(_parsed(text), text) for text in read_bytes(self._path).splitlines(keepends=True) if text.strip()]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = parse_json(text)
    except ValueError:
        return None
    sound = isinstance(line, dict) and isinstance(line.get('kind'), str) and type(line.get('step')) is int
    return line if sound else None


class Events:
    """A TensorBoard event file. Written without any framework, and in the caller's thread.

    All methods raise UserError if it cannot be written.
    """

    def __init__(self, folder: str, start: int):
        """Opens a new event file.

        Args:
          folder: made if need be.
          start: the step that the run goes on from; TensorBoard forgets what an earlier file says of later ones.
        """
        name = f'events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}'
        self._path = os.path.join(folder, name)
        with writing(self._path):
            os.makedirs(folder, exist_ok=True)
            self._file = RecordWriter(open(self._path, 'wb'))
        self._write(event_pb2.Event(file_version='brain.Event:2', wall_time=time.time()))
        if start:
            session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(session_log=session, step=start + 1, wall_time=time.time()))
        self.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._add(step, scalar_pb(tag, float(value)))

    def text(self, step: int, tag: str, markdown: str) -> None:
        self._add(step, text_pb(tag, markdown))

    def pictures(self, step: int, pictures: Iterable[Picture]) -> None:
        """Adds pictures: photographs as JPEG with full colour resolution, so that labels stay sharp; others as PNG."""
        for tag, pixels, photo in pictures:
            buffer = io.BytesIO()
            settings = {'quality': 90, 'subsampling': 0} if photo else {}
            Image.fromarray(pixels).save(buffer, 'JPEG' if photo else 'PNG', **settings)
            image = summary_pb2.Summary.Image(
                height=pixels.shape[0], width=pixels.shape[1], colorspace=3, encoded_image_string=buffer.getvalue()
            )
            self._add(step, summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=image)]))

    def flush(self) -> None:
        with writing(self._path):
            self._file.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()

    def _add(self, step: int, summary) -> None:
        self._write(event_pb2.Event(summary=summary, step=step, wall_time=time.time()))

    def _write(self, event) -> None:
        with writing(self._path):
            self._file.write(event.SerializeToString())
