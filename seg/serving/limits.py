"""What the server accepts: the flags of `--mode=serve`."""

from __future__ import annotations

import dataclasses

from seg.number_checks import check_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server accepts; each is a flag of `--mode=serve`.

    Attributes:
      max_megabytes: size of an upload, in 2^20 bytes.
      max_megapixels: size of an image, in million pixels.
      max_requests: requests in progress at a time, from their first byte to the last one of their answers.
      memory_mb: memory of the uploads, and once more of the images, in progress at a time, about, in 2^20 bytes.
      timeout: seconds until an upload must be complete, and until its answer must be ready.
      batch_size: most images of a batch; 0 for 4 with a run and 1 with an exported file, whose runtime uses all cores
        for a single image.
      batch_wait_ms: milliseconds that an image waits for others to fill its batch while the model is idle.
    """

    max_megabytes: float = 32
    max_megapixels: float = 40
    max_requests: int = 64
    memory_mb: float = 1024
    timeout: float = 30
    batch_size: int = 0
    batch_wait_ms: float = 2

    def __post_init__(self):
        for name, lowest, highest in (
            ('max_megabytes', 0.001, 1e5),
            ('max_megapixels', 0.001, 1e5),
            ('max_requests', 1, 1e5),
            ('memory_mb', 1, 1e9),
            ('timeout', 0.01, 1e6),
            ('batch_size', 0, 1e4),
            ('batch_wait_ms', 0, 1e6),
        ):
            check_number(f'--{name}', getattr(self, name), lowest, highest)
