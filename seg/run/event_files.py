"""Reads figures and the starts of processes from TensorBoard event files, without TensorFlow and one record at a time.

TensorBoard's own readers load TensorFlow, which takes longer than a whole report. Its reader without TensorFlow
computes checksums of every byte in Python, which takes longer still.
"""

from __future__ import annotations

import glob
import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

# A record: length, checksum of the length, data, checksum of the data.
_HEADER = struct.Struct('<QI')
_TAIL = 4


class Start(NamedTuple):
    """The start of a process: the step from which it resumed, and the time (seconds since 1970)."""

    step: int
    time: float


class StoredFigure(NamedTuple):
    """The place of a figure's encoded image in an event file."""

    tag: str
    step: int
    path: str
    offset: int

    def read(self) -> bytes:
        """Reads the encoded image; empty if it can no longer be read."""
        for _, event in _events(self.path, self.offset):
            for value in event.summary.value:
                if value.tag == self.tag:
                    return value.image.encoded_image_string
            break
        return b''


def figures(folder: str) -> list[StoredFigure]:
    """Finds the newest figure of every tag in the event files of a folder, by tag in the order of the files.

    Figures after the step from which the run was resumed do not count. Among tags of one group
    (`worst/1`, `worst/2`, …) only those of the newest step are listed.
    """
    found: list[StoredFigure] = []
    for path in _files(folder):
        for offset, event in _events(path):
            if _is_start(event):
                found = [figure for figure in found if figure.step < event.step]
            found += [
                StoredFigure(value.tag, event.step, path, offset)
                for value in event.summary.value
                if value.HasField('image')
            ]
    newest: dict[str, StoredFigure] = {}
    for figure in found:
        if figure.tag not in newest or figure.step >= newest[figure.tag].step:
            newest[figure.tag] = figure
    steps: dict[str, int] = {}
    for figure in newest.values():
        group = _group(figure.tag)
        steps[group] = max(figure.step, steps.get(group, 0))
    return [figure for figure in newest.values() if figure.step == steps[_group(figure.tag)]]


def starts(folder: str) -> list[Start]:
    """The starts and resumes of the processes that wrote event files into a folder, in their order."""
    found = []
    for path in _files(folder):
        step, time = 0, None
        for number, (_, event) in enumerate(_events(path)):
            time = event.wall_time if time is None else time
            if _is_start(event):
                step = max(event.step - 1, 0)
            if number == 1:
                break
        if time is not None:
            found.append(Start(step, time))
    return found


def _group(tag: str) -> str:
    return tag.rpartition('/')[0] or tag


def _is_start(event: event_pb2.Event) -> bool:
    return event.HasField('session_log') and event.session_log.status == event.session_log.START


def _files(folder: str) -> list[str]:
    """Event files, oldest first: their names contain the time, and the files of a process are numbered."""
    found = glob.glob(os.path.join(glob.escape(folder), '*events.out.tfevents.*'))
    return sorted(found, key=lambda path: [int(digits) for digits in re.findall(r'\d+', os.path.basename(path))])


def _events(path: str, offset: int = 0) -> Iterator[tuple[int, event_pb2.Event]]:
    """Yields (offset, event) of each complete record from `offset` on; ends at a truncated or damaged one.

    The checksum of the data is not verified: PNG and JPEG decoders find damage themselves.
    """
    try:
        with open(path, 'rb') as file:
            end = os.fstat(file.fileno()).st_size
            while True:
                file.seek(offset)
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    return
                length, checksum = _HEADER.unpack(header)
                after = offset + _HEADER.size + length + _TAIL
                if masked_crc32c(header[:8]) != checksum or after > end:
                    return
                event = _parsed(file.read(length))
                if event is None:
                    return
                yield offset, event
                offset = after
    except OSError:
        return


def _parsed(data: bytes) -> event_pb2.Event | None:
    try:
        return event_pb2.Event.FromString(data)
    except Exception:  # Protobuf's error for damaged data derives from no specific built-in one.
        return None
