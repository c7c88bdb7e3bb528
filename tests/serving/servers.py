"""A server in a thread of its own, and requests to it."""

import asyncio
import contextlib
import http.client
import io
import threading
import time

import numpy as np
from PIL import Image

from seg.prediction.class_maps import ClassMaps
from seg.prediction.instances import InstanceOutputs
from seg.prediction.settings import PredictSettings
from seg.serving.limits import Limits
from seg.serving.model import Model
from tests.prediction import fakes

CANVAS = (32, 48)


class Predictor:
    """Class maps by the colour of each pixel; counts its batches, and may be held."""

    checkpoint, replicas = 'fake', 1

    def __init__(self):
        self.batches, self.free, self.running = [], threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, batch):
        self.running.set()
        assert self.free.wait(20)
        self.batches.append(batch['size'].copy())
        probabilities = fakes.colours(batch['image'])
        return fakes.Predictions(
            {'probabilities': probabilities, 'classes': probabilities.argmax(-1), 'confidence': probabilities.max(-1)}
        )


class Detector(Predictor):
    """Two detections in every image: of class 0 with score 0.9, and of class 2 with 0.4; then an empty row."""

    def __call__(self, batch):
        count = len(batch['size'])
        boxes = np.array([[2, 4, 10, 20], [0, 0, 6, 6], [0, 0, 0, 0]], np.float32)
        rows = {'boxes': boxes, 'scores': np.float32([0.9, 0.4, 0]), 'classes': np.int32([0, 2, -1])}
        rows['masks'] = np.ones((3, 4, 4), np.float32)
        return fakes.Predictions({key: np.repeat(value[None], count, 0) for key, value in rows.items()})


def model(predictor=None, batch=None):
    """A model of class maps, or of instances if the predictor is a `Detector`."""
    predictor = predictor or Predictor()

    def writer(folder, settings, probabilities):
        if isinstance(predictor, Detector):
            return InstanceOutputs(folder, fakes.INFO, fakes.COLORS, settings, False)
        return ClassMaps(folder, fakes.INFO, fakes.COLORS, settings, probabilities)

    return Model('runs/fake', 'checkpoint', fakes.INFO, CANVAS, batch, predictor, writer)


class Serving:
    """A server that listens on a free port.

    Attributes:
      port: the port.
    """

    def __init__(self, server, limits):
        self._server, self._limits = server, limits
        self._listening = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self._listening.wait(20)

    def _run(self):
        from seg.serving.server import listen

        async def serve(application):
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

            def listening(host, port):
                self.port = port
                self._listening.set()

            await listen(application, '127.0.0.1', 0, self._stop, self._limits.timeout, listening)

        with self._server.ready() as application:
            asyncio.run(serve(application))

    def stop(self):
        with contextlib.suppress(RuntimeError):  # It has ended before.
            self._loop.call_soon_threadsafe(self._stop.set)

    def ask(self, method='GET', path='/', body=None, headers=None, timeout=20):
        """Returns status, headers and body of an answer."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def metric(self, name):
        """The value of a metric, named with its labels; 0 without one."""
        lines = self.ask(path='/metrics')[2].decode().splitlines()
        return next((float(line.rpartition(' ')[2]) for line in lines if line.rpartition(' ')[0] == name), 0)


@contextlib.contextmanager
def serving(made=None, **limits):
    """A server of a model, with limits."""
    from seg.serving.server import Server

    limits = Limits(**limits)
    found = Serving(Server(made or model(), PredictSettings(), limits), limits)
    try:
        yield found
    finally:
        found.stop()
        found.thread.join(30)
        assert not found.thread.is_alive()


def encoded(pixels, kind='PNG', **settings):
    """The bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def until(condition, seconds=10):
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
