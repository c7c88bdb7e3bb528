"""From the bytes of an upload to the body of an answer, in one of a few threads."""

from __future__ import annotations

import io
import threading

from seg.prediction import reading
from seg.prediction.canvas import Size
from seg.prediction.jobs import Memory, StoppedError
from seg.prediction.outputs import Outputs
from seg.serving import answers
from seg.serving.answers import Ask
from seg.serving.batching import Batcher
from seg.serving.limits import Limits

_BYTES_PER_PIXEL = 8  # RGB, Pillow's own copy of it while it decodes, and masks while they are encoded.


class RefusedError(Exception):
    """A request that is answered with a status from 400 to 599; the text gives the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Segmenter:
    """Answers requests; several threads call it at a time."""

    def __init__(self, writer: Outputs, batcher: Batcher, size: Size, limits: Limits):
        """Makes a segmenter.

        Args:
          writer: the writer of the model's predictions; it is never entered, so nothing is written.
          batcher: runs the model.
          size: (height, width) of its canvas.
          limits: what is accepted.
        """
        self.answers = answers.of_writer(writer)
        self._writer, self._batcher, self._size, self._limits = writer, batcher, size, limits
        self._memory, self._turn = Memory(limits.memory_mb * 2**20), threading.Lock()

    def __call__(self, upload: bytes, ask: Ask, stopped: threading.Event) -> bytes:
        """Returns the body of an answer.

        Args:
          upload: an image file.
          ask: what is asked for.
          stopped: set when the answer is no longer needed.

        Raises:
          RefusedError: for an upload that is no image, or too large.
          StoppedError: if `stopped` is set meanwhile.
        """
        height, width = self._checked_size(upload)
        amount = height * width * _BYTES_PER_PIXEL + self._writer.prediction_bytes((height, width), self._size)
        with self._turn:  # Large images would otherwise never find enough memory at once.
            self._memory.take(amount, stopped)
        try:
            if stopped.is_set():
                raise StoppedError
            pixels = reading.read_image(io.BytesIO(upload))
            plan = self._writer.plan(pixels, self._size)
            return self.answers.body(pixels, plan.prediction(self._batcher.results(plan, stopped)), ask)
        except reading.ImageError as error:
            raise RefusedError(400, f'the image cannot be read: {error}') from None
        except MemoryError:
            raise RefusedError(503, 'not enough memory for this image now') from None
        finally:
            self._memory.give(amount)

    def _checked_size(self, upload: bytes) -> Size:
        if not upload:
            raise RefusedError(400, 'the request has no image: its body is empty')
        try:
            height, width = reading.read_size(io.BytesIO(upload))
        except reading.ImageError as error:
            raise RefusedError(413 if 'decompression bomb' in str(error) else 415, f'no image: {error}') from None
        if height * width > self._limits.max_megapixels * 1e6:
            raise RefusedError(
                413, f'the image has {width} x {height} pixels, more than {self._limits.max_megapixels:g} million'
            )
        return height, width
