"""What a training takes of the memory, said before the first step: if it does not suffice, the system kills unheard."""

from __future__ import annotations

from absl import logging

from seg.engine.base import Memory

_GIB = 2**30


def tell(needed: int, memory: Memory, batch_size: int) -> None:
    """Logs what the training takes, and warns if there is less.

    Args:
      needed: bytes that the training takes besides those in use, about.
      memory: the memory of the devices of this process.
      batch_size: images of a step.
    """
    total = memory.used + needed
    limit = '' if memory.limit is None else f' of {memory.limit / _GIB:.1f} GiB'
    logging.info('Memory: steps of %d image(s) take about %.1f%s.', batch_size, total / _GIB, limit or ' GiB')
    if memory.limit is not None and total > memory.limit:
        fits = int(0.9 * batch_size * (memory.limit - memory.used) / needed)  # It is an estimate.
        advice = f'{fits} may fit' if fits > 0 else '1 does not fit either'
        logging.warning(
            'The training may take more memory than there is; the system then kills this process. Lower '
            'RunConfig.batch_size (BATCH_SIZE in most gin files), now %d (%s), or the size of the images (CROP). '
            'docs/small_memory.md has more.',
            *(batch_size, advice),
        )
