"""Runs an exported file on given images: the program of the check, in a process of its own.

    python -m seg.export.run_file FILE INPUT.npz OUTPUT.npz

INPUT holds `images <i>` and `sizes <i>` of each case. OUTPUT gets `<i> <name>` for each output of each case, and
`seconds`. A runtime that crashes ends this process only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seg.errors import UserError
from seg.export.model_file import open_model

_ROUNDS = 7

Case = tuple[np.ndarray, np.ndarray]  # uint8 [N, H, W, 3] and int32 [N, 2].


class Found(NamedTuple):
    """The results of a file.

    Attributes:
      outputs: the outputs of each case by name.
      seconds: median duration of one call with the first image, in each place of a batch, per image.
    """

    outputs: list[dict[str, np.ndarray]]
    seconds: float


def run(path: str, cases: Sequence[Case]) -> Found:
    """Runs all cases, then measures the first one.

    Raises:
      UserError: if the file cannot be opened.
    """
    file = open_model(path)
    outputs = [file.run(*case) for case in cases]
    batch = file.description.batch or 1
    repeated = [np.repeat(array[:1], batch, axis=0) for array in cases[0]]
    return Found(outputs, median_seconds(lambda: file.run(*repeated)) / batch)


def median_seconds(call) -> float:
    """The median duration of a call that has been made before."""
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def save_cases(path: str, cases: Sequence[Case]) -> None:
    """Writes INPUT."""
    arrays = {f'{key} {i}': value for i, case in enumerate(cases) for key, value in zip(_KEYS, case, strict=True)}
    np.savez(path, **arrays)


def read_found(path: str, count: int) -> Found:
    """Reads OUTPUT of a number of cases."""
    with np.load(path) as found:
        outputs: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
        for key in found.files:
            number, _, name = key.partition(' ')
            if name:
                outputs[int(number)][name] = found[key]
        return Found(outputs, float(found['seconds']))


_KEYS = ('images', 'sizes')


def main(path: str, source: str, target: str) -> None:
    with np.load(source) as given:
        cases = [tuple(given[f'{key} {i}'] for key in _KEYS) for i in range(len(given.files) // len(_KEYS))]
    found = run(path, cases)
    arrays = {f'{i} {name}': value for i, outputs in enumerate(found.outputs) for name, value in outputs.items()}
    np.savez(target, seconds=found.seconds, **arrays)


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
