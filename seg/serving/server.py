"""The HTTP server: reads uploads within limits, and answers them by a model in other threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging as standard_logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from absl import logging
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from seg.prediction import reading
from seg.prediction.settings import PredictSettings
from seg.serving import page
from seg.serving.answers import Ask, AskedError
from seg.serving.batching import Batcher, batch_sizes
from seg.serving.limits import Limits
from seg.serving.measured import Measured
from seg.serving.model import CHECKPOINT, Model
from seg.serving.work import RefusedError, Segmenter

_CHUNK = 2**16  # Bytes of an upload that are read at a time.
_BATCH_OF_RUN = 4  # Most images of a batch, if no flag says it. For an exported file it is 1, see `Limits`.
_GRACE = 5.0  # Seconds beyond the timeout for answers to be sent before the server ends.
# What aiohttp raises for a body that breaks the rules of HTTP, of its compression or of forms.
_UNREADABLE = (HttpProcessingError, web.RequestPayloadError, ValueError, AssertionError, RuntimeError)
_SAFE = {
    'Server': 'seg',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}


class Server:
    """Serves a model; the state of the server besides that of aiohttp.

    Attributes:
      measured: its metrics.
    """

    def __init__(self, model: Model, settings: PredictSettings, limits: Limits):
        """Makes a server that does not listen yet.

        Args:
          model: the model.
          settings: settings of `--mode=predict`, for the treatment of images and for overlays.
          limits: what it accepts.

        Raises:
          UserError: for a model whose predictions cannot be answers.
        """
        self._model, self._limits = model, limits
        self.measured = Measured()
        largest = limits.batch_size or (_BATCH_OF_RUN if model.format == CHECKPOINT else 1)
        sizes = [model.batch] if model.batch else batch_sizes(largest, model.predictor.replicas)
        wait = limits.batch_wait_ms / 1000
        self._batcher = Batcher(model.predictor, model.canvas, sizes, wait, self.measured.ran)
        self._segmenter = Segmenter(model.writer('', settings), self._batcher, model.canvas, limits)
        self._threads = 2 * sizes[-1] + (os.cpu_count() or 1)  # Some decode or encode while others wait for the model.
        self._requests = self._upload_bytes = 0  # In progress.
        self._about = page.about(model, self._segmenter.answers, limits)
        self._page = page.render(self._about, settings).encode()

    @contextlib.contextmanager
    def ready(self) -> Iterator[web.Application]:
        """Context in which the model runs; gives the application that aiohttp serves."""
        with (
            reading.limited(self._limits.max_megapixels),
            self._batcher,
            ThreadPoolExecutor(self._threads, 'request') as self._workers,
        ):
            # Bodies are read here, within the limits of this server, not of aiohttp's `read`.
            application = web.Application(middlewares=[self._answered])
            application.add_routes(
                [
                    web.get('/', self._show),
                    web.get('/health', self._health),
                    web.get('/metrics', self._metrics),
                    web.get('/model', self._describe),
                    web.post('/segment', self._segment),
                ]
            )
            yield application

    # ---- Answers -----------------------------------------------------------------------------------------------------

    @web.middleware
    async def _answered(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        """Turns refusals into JSON, and counts all answers."""
        start = time.perf_counter()
        try:
            response = await handler(request)
        except RefusedError as error:
            response = web.json_response({'error': str(error)}, status=error.status)
            if error.status == 503:
                response.headers['Retry-After'] = '1'
        except web.HTTPException as error:  # An unknown path or method.
            response = web.json_response({'error': error.reason}, status=error.status, headers=_allowed(error))
        except asyncio.CancelledError:
            self.measured.left()
            raise
        except Exception:
            logging.exception('%s %s failed.', request.method, request.path)
            response = web.json_response({'error': 'the server failed; its log says why'}, status=500)
        response.headers.update(_SAFE)
        self.measured.answered(request.match_info.route.resource, response.status, time.perf_counter() - start)
        return response

    async def _show(self, request: web.Request) -> web.Response:
        return web.Response(body=self._page, content_type='text/html', charset='utf-8')

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({'status': 'ok'})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self.measured.text(), headers={'Content-Type': self.measured.content_type})

    async def _describe(self, request: web.Request) -> web.Response:
        return web.json_response(self._about)

    async def _segment(self, request: web.Request) -> web.Response:
        try:
            ask = Ask.of(request.query, request.headers.get('Accept', ''))
        except AskedError as error:
            raise RefusedError(400, str(error)) from None
        end = asyncio.get_running_loop().time() + self._limits.timeout
        with self._place():
            uploaded = bytearray()
            try:
                await self._read(request, uploaded, end)
                body = await self._work(bytes(uploaded), ask, end)
            finally:
                self._upload_bytes -= len(uploaded)
        return web.Response(body=body, content_type=ask.content_type)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for requests in progress."""
        if self._requests >= self._limits.max_requests:
            raise RefusedError(503, f'{self._requests} requests are in progress; try again later')
        self._requests += 1
        self.measured.in_progress(self._requests)
        try:
            yield
        finally:
            self._requests -= 1
            self.measured.in_progress(self._requests)

    async def _read(self, request: web.Request, uploaded: bytearray, end: float) -> None:
        """Reads the image of a request: its body, or the first file of a form."""
        most, memory = self._limits.max_megabytes * 2**20, self._limits.memory_mb * 2**20
        too_large = RefusedError(413, f'the upload has more than {self._limits.max_megabytes:g} MB')
        if request.content_length is not None and request.content_length > most:
            raise too_large
        try:
            async with asyncio.timeout_at(end):
                async for chunk in _chunks(request):
                    uploaded += chunk
                    self._upload_bytes += len(chunk)
                    if len(uploaded) > most:
                        raise too_large
                    if self._upload_bytes > memory:
                        raise RefusedError(503, 'other uploads take the memory; try again later')
        except TimeoutError:
            raise RefusedError(408, f'the upload took longer than {self._limits.timeout:g} s') from None

    async def _work(self, upload: bytes, ask: Ask, end: float) -> bytes:
        """Answers in another thread; if it takes too long or the client leaves, the thread is told to stop."""
        stopped = threading.Event()
        working = asyncio.get_running_loop().run_in_executor(self._workers, self._segmenter, upload, ask, stopped)
        try:
            async with asyncio.timeout_at(end):
                return await working
        except TimeoutError:
            raise RefusedError(503, f'no answer within {self._limits.timeout:g} s; try again later') from None
        finally:
            stopped.set()


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The bytes of the image, piece by piece."""
    is_form = request.content_type.startswith('multipart/')
    try:
        if not is_form:
            async for chunk in request.content.iter_chunked(_CHUNK):
                yield chunk
            return
        parts = await request.multipart()
        while (part := await parts.next()) is not None:
            if getattr(part, 'filename', None) is None:
                raise RefusedError(400, 'the form has a field that is no file; send one file, such as -F image=@a.jpg')
            while chunk := await part.read_chunk(_CHUNK):
                yield chunk
            return
    except _UNREADABLE as error:
        reason = ' '.join(str(error).split())[:200]
        raise RefusedError(400, f'the {"form" if is_form else "body"} cannot be read: {reason}') from None
    raise RefusedError(400, 'the form has no file; send one, such as -F image=@a.jpg')


def _allowed(error: web.HTTPException) -> dict[str, str]:
    return {'Allow': error.headers['Allow']} if 'Allow' in error.headers else {}


async def listen(
    application: web.Application,
    host: str,
    port: int,
    stop: asyncio.Event,
    timeout: float,
    listening: Callable[[str, int], None],
) -> None:
    """Serves an application until `stop` is set, then answers the requests in progress.

    Args:
      application: from `Server.ready`.
      host: address to listen on.
      port: 0 for any.
      stop: ends the server.
      timeout: seconds that a request may take.
      listening: is called with the address and the port.

    Raises:
      OSError: if it cannot listen there.
    """
    # Broken requests would fill the log with tracebacks. They are answered; a fault of ours is logged by `_answered`.
    silent = standard_logging.getLogger('seg.serving')
    silent.setLevel(standard_logging.CRITICAL)
    runner = web.AppRunner(
        application,
        handle_signals=False,
        handler_cancellation=True,
        access_log=None,
        logger=silent,
        keepalive_timeout=timeout,  # Also until the first byte of a connection.
        shutdown_timeout=timeout + _GRACE,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        listening(*runner.addresses[0][:2])
        await stop.wait()
    finally:
        await runner.cleanup()
