"""Runs that have measured a configuration: their speed, from the files of a run."""

from __future__ import annotations

import os

from seg.errors import UserError
from seg.planner.estimate import Facts, Measured
from seg.planner.tables import Hardware
from seg.run import results
from seg.run.folder import RunFolder
from seg.run.run_json import About
from seg.run.values import number, whole


def recorded(
    folder: RunFolder, hardware: Hardware, facts: Facts, config: str, processor: tuple[str, int]
) -> Measured | None:
    """The speed of the run in a folder, if it had these settings and ran on this hardware; None otherwise.

    Args:
      folder: the run's.
      hardware: devices of the row.
      facts: of the training.
      config: the settings as a run stores them.
      processor: name and number of cores of this machine, which a row `cpu` means.
    """
    try:
        with open(folder.config, encoding='utf-8') as file:
            same = file.read() == config
        about, scores = About.read(folder), results.read(folder.results, '') or {}
    except (OSError, UnicodeDecodeError, UserError):
        return None
    speed = number(scores.get('train_images_per_second'))
    if not (same and speed and about.batch_size == facts.batch and _ran_on(about, hardware, processor)):
        return None
    return Measured(facts.batch / speed, None, None, f'the run in {os.path.basename(os.path.abspath(folder.path))}')


def _ran_on(about: About, hardware: Hardware, processor: tuple[str, int]) -> bool:
    versions, devices = about.versions, about.versions.get('devices')
    if not isinstance(devices, list) or not devices or whole(about.hardware.get('replicas')) != hardware.devices:
        return False
    first = str(devices[0])
    if hardware.facts is None:
        return first.startswith('CPU') and (versions.get('processor'), versions.get('cpu_cores')) == processor
    if hardware.family == 'gpu':
        return any(name in first for name in hardware.facts.names)
    return first in hardware.facts.names
