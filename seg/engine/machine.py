"""Describes the machine, for `--version`, `run.json` and reports."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import keras
import psutil

from seg import __version__, cores
from seg.engine.base import Memory

# The limits of a container, version 2 and 1.
_LIMITS = ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')


def memory() -> Memory:
    """The memory of this process: what it uses and what is free, within the limit of a container."""
    used = psutil.Process().memory_info().rss
    limits = [used + psutil.virtual_memory().available]
    for path in _LIMITS:
        try:
            with open(path, encoding='ascii') as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):  # 'max' for no limit.
            continue
    return Memory(used, min(limits))


def describe(framework: Mapping[str, str], devices: Sequence[str]) -> dict[str, object]:
    """Returns versions, system, processor, devices and memory.

    Args:
      framework: versions of the engine's libraries by name, and the like.
      devices: names of the devices.
    """
    return {
        'seg': __version__,
        'python': platform.python_version(),
        **framework,
        'keras': keras.__version__,
        'system': platform.platform(),
        'processor': _processor_name(),
        'devices': list(devices),
        'cpu_cores': cores.usable(),
        'memory_gib': round(psutil.virtual_memory().total / 2**30, 1),
    }


def _processor_name() -> str:
    """The processor's trade name if the system gives it, otherwise its architecture."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names and names[0] else platform.processor() or platform.machine()
