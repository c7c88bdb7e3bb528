"""How many cores this process may use."""

import os


def usable() -> int:
    """Cores of this machine that this process may use, at least 1; where a core has two threads, each of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
