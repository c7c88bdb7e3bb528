"""`--mode=serve`."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import threading
from typing import Any

from absl import flags, logging

from seg.errors import UserError
from seg.modes.base import CHECKPOINT, Call, Flag
from seg.modes.predicting import MODEL, Predicting, predict_settings
from seg.serving.limits import Limits

_HELP = {
    'max_megabytes': 'Largest upload, in 2^20 bytes.',
    'max_megapixels': 'Largest image, in million pixels.',
    'max_requests': 'Requests in progress at a time; further ones are answered with status 503.',
    'memory_mb': 'Memory of the uploads, and once more of the images, in progress at a time, about, in 2^20 bytes.',
    'timeout': 'Seconds until an upload must be complete, and until its answer must be ready.',
    'batch_size': 'Most images of a batch; 0 for 4 with a run and 1 with a file. A fixed batch of a file stays.',
    'batch_wait_ms': 'Milliseconds that an image waits for others to fill its batch while the model is idle.',
}
_LIMITS = tuple(
    Flag(
        field.name,
        flags.DEFINE_integer if isinstance(field.default, int) and field.type == 'int' else flags.DEFINE_float,
        field.default,
        _HELP[field.name],
    )
    for field in dataclasses.fields(Limits)
)


class Serve(Predicting):
    """Answers images over HTTP with their predictions, and shows a page on which a person drops an image."""

    name = 'serve'
    aliases = ('server', 'serving', 'http', 'demo')
    flags = (
        MODEL,
        CHECKPOINT,
        Flag('host', flags.DEFINE_string, '127.0.0.1', 'Address to listen on; the default admits this machine alone.'),
        Flag('port', flags.DEFINE_integer, 8000, 'Port to listen on; 0 for any that is free.'),
        *_LIMITS,
    )

    def __init__(self, call: Call):
        """Checks the flags and loads the settings.

        Raises:
          UserError: for a mistake in them, or if the server's packages are not installed.
        """
        try:
            import aiohttp  # noqa: F401
            import prometheus_client  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError(
                f"--mode=serve needs {error.name}, which is not installed: pip install -e '.[serve]'."
            ) from None
        self._limits = Limits(**{flag.name: call.flags[flag.name] for flag in _LIMITS})
        port = call.flags['port']
        if not 0 <= port <= 65535:
            raise UserError(f'--port={port}: expected a number from 0 to 65535.')
        self.stop = threading.Event()
        super().__init__(call)

    def read_settings(self) -> Any:
        return predict_settings()

    def execute(self) -> dict[str, Any]:
        """Serves until SIGTERM, Ctrl-C or `self.stop`. Returns the number of images."""
        from seg.serving.server import Server

        server = Server(self.model(), self.settings, self._limits)
        with server.ready() as application:
            asyncio.run(self._serve(application))
        return {'segmented': server.measured.segmented}

    async def _serve(self, application: Any) -> None:
        from seg.serving.server import listen

        host, port = self.call.flags['host'], self.call.flags['port']
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def asked(number: int) -> None:
            logging.info('Asked to stop: requests in progress are answered first.')
            stop.set()
            loop.remove_signal_handler(number)  # The second Ctrl-C ends the process.

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, asked, number)
        waiting = loop.run_in_executor(None, self.stop.wait)
        waiting.add_done_callback(lambda _: stop.set())
        try:
            await listen(application, host, port, stop, self._limits.timeout, _tell)
        except OSError as error:
            raise UserError(f'--host={host} --port={port}: cannot listen there: {error.strerror or error}.') from None
        finally:
            self.stop.set()


def _tell(host: str, port: int) -> None:
    logging.info('Serving on http://%s:%d/', f'[{host}]' if ':' in host else host, port)


MODE = Serve
