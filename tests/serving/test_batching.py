"""Batches of windows: their sizes, their order, and what happens to those that nobody needs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from seg.prediction import canvas
from seg.prediction.jobs import StoppedError
from seg.serving.batching import Batcher, batch_sizes
from tests.prediction import fakes
from tests.serving import servers


def test_batch_sizes():
    assert batch_sizes(1) == [1] and batch_sizes(4) == [1, 2, 4] and batch_sizes(6) == [1, 2, 4, 6]
    assert batch_sizes(8, replicas=2) == [2, 4, 8] and batch_sizes(1, replicas=2) == [2]


def test_windows_of_a_large_image_come_back_in_their_order():
    image = fakes.noise(90, 70)
    plan = canvas.plan(image, servers.CANVAS, 'tile', 0.25, True)
    with Batcher(servers.Predictor(), servers.CANVAS, [1, 4], wait=0) as batcher:
        bands = list(plan.prediction(batcher.results(plan, threading.Event())))
    assert np.array_equal(np.concatenate([band.classes for band in bands]), fakes.colours(image).argmax(-1))


def test_a_waiting_image_can_be_given_up():
    predictor, stopped = servers.Predictor(), threading.Event()
    plan = canvas.Whole(fakes.noise(8, 8), False)
    with Batcher(predictor, servers.CANVAS, [1], wait=0) as batcher, ThreadPoolExecutor(2) as pool:
        predictor.free.clear()
        predictor.running.clear()
        first = pool.submit(lambda: list(batcher.results(plan, threading.Event())))
        assert predictor.running.wait(10)
        second = pool.submit(lambda: list(batcher.results(plan, stopped)))
        stopped.set()
        with pytest.raises(StoppedError):
            second.result(10)
        predictor.free.set()
        assert len(first.result(10)) == 1
    assert len(predictor.batches) == 2  # Warm-up and the first: nothing ran for the other.


def test_an_error_of_the_model_reaches_those_who_wait():
    class Broken(servers.Predictor):
        def __call__(self, batch):
            if self.batches:
                raise RuntimeError('broken')
            return super().__call__(batch)

    plan = canvas.Whole(fakes.noise(8, 8), False)
    with Batcher(Broken(), servers.CANVAS, [1], wait=0) as batcher:
        for _ in range(2):
            with pytest.raises(RuntimeError, match='broken'):
                list(batcher.results(plan, threading.Event()))
