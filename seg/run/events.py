"""Writes TensorBoard event files, without any framework; `event_files` reads them."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Iterable, Mapping

from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from seg.files import writing
from seg.structures import ImageSummary

_numbers = itertools.count()  # Two event files of the same second need different names.


class Events:
    """A TensorBoard event file. Written without any framework, and in the caller's thread.

    All methods raise UserError if it cannot be written.
    """

    def __init__(self, folder: str, start: int):
        """Opens a new event file.

        Args:
          folder: made if it does not exist.
          start: the step from which the run resumes; TensorBoard drops later steps of earlier files.
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

    def figures(self, step: int, figures: Iterable[ImageSummary]) -> None:
        """Adds figures: with images as JPEG at full colour resolution, so that labels stay sharp; others as PNG."""
        for tag, pixels, photo in figures:
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
