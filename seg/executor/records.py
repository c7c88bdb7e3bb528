"""What a run writes for people and programs: metrics.jsonl, TensorBoard events, JSON files."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from seg.files import write_text
from seg.structures import Picture


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, `kind` (train or eval) and `step` first."""

    def __init__(self, path: str):
        self._path = path

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        with open(self._path, 'a', encoding='utf-8') as file:
            file.write(json.dumps({'kind': kind, 'step': step, **values}, ensure_ascii=False) + '\n')

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a last one that a kill cut short is left out."""
        lines = []
        if os.path.exists(self._path):
            with open(self._path, encoding='utf-8') as file:
                for line in file:
                    try:
                        lines.append(json.loads(line))
                    except json.JSONDecodeError:
                        break
        return lines

    def cut(self, step: int) -> None:
        """Forgets what came after `step`."""
        kept = [line for line in self.read() if line['step'] <= step]
        write_text(self._path, ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in kept))


class Events:
    """A TensorBoard event file. Written by the host alone, without TensorFlow ops."""

    def __init__(self, folder: str, start: int):
        """Opens a new event file.

        Args:
          folder: made if need be.
          start: the step that the run goes on from; TensorBoard forgets what an earlier file says of later ones.
        """
        self._writer = EventFileWriter(folder)
        if start:
            session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(event_pb2.Event(session_log=session, step=start + 1, wall_time=time.time()))

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
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, summary) -> None:
        # Through bytes: TensorBoard's own protos and TensorFlow's may be two classes of one message.
        event = event_pb2.Event(
            summary=summary_pb2.Summary.FromString(summary.SerializeToString()), step=step, wall_time=time.time()
        )
        self._writer.add_event(event)
