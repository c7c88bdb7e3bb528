"""What the server counts and measures, in the text form of Prometheus."""

from __future__ import annotations

from typing import Any

import prometheus_client

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Measured:
    """The metrics of one server; also those of its process, such as `process_resident_memory_bytes`."""

    content_type = prometheus_client.CONTENT_TYPE_LATEST

    def __init__(self):
        prometheus_client.disable_created_metrics()  # They would double the text.
        self._registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        self._answers = prometheus_client.Counter(
            'seg_requests', 'Requests by path and status.', ['path', 'status'], registry=registry
        )
        self._left = prometheus_client.Counter(
            'seg_requests_left', 'Requests whose client left before the answer.', registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            'seg_segment_seconds',
            'Seconds from the head of a request to its image, until the answer.',
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_progress = prometheus_client.Gauge(
            'seg_requests_in_progress', 'Requests with an image that are in progress.', registry=registry
        )
        self._images = prometheus_client.Histogram(
            'seg_batch_images', 'Images of a batch.', buckets=_IMAGES, registry=registry
        )
        self._model_seconds = prometheus_client.Histogram(
            'seg_model_seconds', 'Seconds that the model takes for a batch.', buckets=_SECONDS, registry=registry
        )
        self.segmented = 0

    def answered(self, resource: Any, status: int, seconds: float) -> None:
        """Counts an answer; `resource` is aiohttp's of the path, None for an unknown one."""
        path = resource.canonical if resource else 'unknown'
        self._answers.labels(path, str(status)).inc()
        if path == '/segment' and status == 200:
            self.segmented += 1
            self._seconds.observe(seconds)

    def left(self) -> None:
        self._left.inc()

    def in_progress(self, requests: int) -> None:
        self._in_progress.set(requests)

    def ran(self, images: int, seconds: float) -> None:
        """Records a batch; called in the model's thread."""
        self._images.observe(images)
        self._model_seconds.observe(seconds)

    def text(self) -> bytes:
        return prometheus_client.generate_latest(self._registry)
