"""How long a model takes for a batch, and the memory of its process.

    python -m seg.serving.latency FILE BATCH ROUNDS

measures an exported file and prints the figures as JSON. Each file has a process of its own, so that its memory is its
own as well, and a runtime that crashes ends nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from seg.errors import UserError
from seg.export import apart

_WARM_UP = 3  # Calls before the measured ones: graphs are traced, kernels chosen, and memory is taken.


def measured(call: Callable[[], Any], batch: int, rounds: int) -> dict[str, float]:
    """Calls a model again and again.

    Args:
      call: predicts a batch and waits for its results.
      batch: images of the batch.
      rounds: measured calls.

    Returns:
      Milliseconds of a call `p50_ms`, `p90_ms` and `p99_ms`, `images_per_second`, `warm_up_ms` of the first call, and
      `peak_memory_mb` of this process since its beginning, or on Linux since this call.
    """
    _forget_peak()
    seconds = []
    for _ in range(_WARM_UP + rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    timed = np.array(seconds[_WARM_UP:])
    p50, p90, p99 = (round(1000 * float(value), 3) for value in np.percentile(timed, (50, 90, 99)))
    return {
        'p50_ms': p50,
        'p90_ms': p90,
        'p99_ms': p99,
        'images_per_second': round(batch * rounds / float(timed.sum()), 3),
        'warm_up_ms': round(1000 * seconds[0], 3),
        'peak_memory_mb': round(_peak() / 2**20, 1),
    }


def images(batch: int, canvas: Sequence[int]) -> np.ndarray:
    """Images of smooth noise that fill the canvas, uint8 [B, H, W, 3]; the same in every call."""
    coarse = np.random.default_rng(0).integers(0, 256, (batch, *(-(-side // 16) for side in canvas), 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : canvas[0], : canvas[1]]


def of_file(path: str, batch: int, rounds: int) -> dict[str, Any]:
    """Measures an exported file in a process of its own.

    Returns:
      `format` and `batch`, and the figures of `measured`; or `error`, the reason why there are none. A file with a
      fixed batch is measured with its own.
    """
    try:
        printed = apart.run('seg.serving.latency', path, str(batch), str(rounds))
    except UserError as error:
        return {'batch': batch, 'error': str(error)}
    return json.loads(printed.splitlines()[-1])


def _of_file(path: str, batch: int, rounds: int) -> dict[str, Any]:
    from seg.export.model_file import open_model

    file = open_model(path)
    about = file.description
    batch = about.batch or batch
    pixels, sizes = images(batch, about.canvas), np.tile(np.int32(about.canvas), (batch, 1))
    figures = measured(lambda: file.run(pixels, sizes), batch, rounds)
    return {'format': about.format, 'quantize': about.quantize, 'batch': batch, **figures}


def _forget_peak() -> None:
    """Lets the kernel measure the peak from here on; without this right it counts from the process's beginning."""
    with contextlib.suppress(OSError), open('/proc/self/clear_refs', 'w') as file:
        file.write('5')


def _peak() -> int:
    """The largest resident memory, in bytes; the current one if the system does not tell."""
    with contextlib.suppress(OSError, StopIteration), open('/proc/self/status', encoding='ascii') as file:
        return 1024 * int(next(line for line in file if line.startswith('VmHWM')).split()[1])
    return psutil.Process(os.getpid()).memory_info().rss


if __name__ == '__main__':
    try:
        print(json.dumps(_of_file(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    except UserError as error:
        sys.exit(str(error))
