"""Reads thousands of damaged files of every format that seg reads; each must end in a value or in one message.

    python tools/fuzz.py [--formats pth,h5] [--mutations 3000] [--seed 0] [--first 0] [--keep DIR]

Small valid files are made, changed at random and read, one after the other, by a worker process for each format. A
mutation is a finding if it raises another exception than a `UserError` (or `ImageError`, or TensorFlow's `OpError`
if the reader is a graph), kills the worker, or needs more than 2 s of CPU time or more than 1 GB of memory. The
files of findings are kept, and the number of each reproduces it:

    python tools/fuzz.py --formats h5 --first 1234 --mutations 1

Prints a table. The exit status is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import BinaryIO

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402
from fuzz_formats import FORMATS, make, restore  # noqa: E402
from fuzz_seeds import Format, Seed  # noqa: E402

_CPU = 2.0  # Seconds of a mutation.
_MEMORY = 1 << 30  # Bytes that a mutation may add.
_ADDRESSES = 3 << 30  # Bytes of address space that the worker may add, which protects the machine.
_SILENCE = 60.0  # Seconds without CPU time after which a worker counts as blocked.
_SHOWN = 10  # Findings of a format that are printed.


@dataclasses.dataclass
class Tally:
    """The results of one format's mutations: counts by result, and (number, description, file) of each finding."""

    ends: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    findings: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    most_seconds: float = 0.0
    most_bytes: int = 0


def mutated(seeds: list[Seed], campaign: int, name: str, number: int) -> tuple[Seed, bytes]:
    """The file of a mutation, by its number alone."""
    draw = random.Random(f'{campaign}/{name}/{number}')
    seed = draw.choice(seeds)
    return seed, draw.choice(seed.mutations)(draw, seed.content)


def work(name: str, campaign: int, numbers: range, folder: pathlib.Path, keep: pathlib.Path) -> None:
    """Reads the mutations; writes a line of JSON before each and one after it, and keeps the files of findings."""
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    chosen = make(name, folder)
    for seed in chosen.seeds:  # The valid files are read first, so that modules that load late are loaded.
        restore(folder, seed)
        chosen.read(str(folder / seed.name))
        restore(folder, seed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = psutil.Process().memory_info().vms + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in numbers:
        seed, content = mutated(chosen.seeds, campaign, name, number)
        path = folder / seed.name
        path.write_bytes(content)
        kept = keep / f'{name}-{campaign}-{number}-{path.name}'
        print(json.dumps({'begin': number, 'file': str(path), 'kept': str(kept)}), file=answers)
        ended = _tried(chosen, str(path))
        if ended['finding']:
            keep.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(content)
        print(json.dumps(ended), file=answers)
        restore(folder, seed)


def _tried(chosen: Format, path: str) -> dict[str, object]:
    """The result of the reading: `end`, `finding` (None if it is right), CPU `seconds`, `bytes` of memory added."""
    finding, end = None, 'value'
    _forget_peak()
    before, seconds = _peak(), time.process_time()
    try:
        chosen.read(path)
    except BaseException as error:  # Any exception may be a finding.
        end = type(error).__name__
        if not isinstance(error, chosen.refusals):
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if str(ROOT / 'seg') in frame.filename
            ]
            place = f' at {os.path.relpath(frames[-1].filename, ROOT)}:{frames[-1].lineno}' if frames else ''
            finding = f'{end}{place}: {str(error)[:120]}'
        elif _in_chain(error, MemoryError):
            finding = f'{end}, out of memory'
        elif len(str(error)) > 10_000:
            finding = f'{end} of {len(str(error))} characters'
    seconds, added = time.process_time() - seconds, _peak() - before
    if finding is None and seconds > _CPU:
        finding = f'{seconds:.1f} s of CPU time'
    if finding is None and added > _MEMORY:
        finding = f'{added / 1e6:.0f} MB of memory'
    return {'end': end, 'finding': finding, 'seconds': seconds, 'bytes': added}


def _in_chain(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _forget_peak() -> None:
    """Resets the kernel's record of the peak memory."""
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')


def _peak() -> int:
    """The peak memory of this process in bytes since `_forget_peak`."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith('VmHWM'))


def campaign(name: str, seed: int, numbers: range, keep: pathlib.Path) -> Tally:
    """Tries the mutations of a format; another worker replaces one that died."""
    tally, first = Tally(), numbers.start
    while first < numbers.stop:
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
            rest = range(first, numbers.stop)
            first = _watched(name, seed, rest, pathlib.Path(scratch), log, keep, tally)
    return tally


def _watched(
    name: str, seed: int, numbers: range, folder: pathlib.Path, log: BinaryIO, keep: pathlib.Path, tally: Tally
) -> int:
    """Runs one worker until its end. Returns the number to continue with. Messages of libraries go to the log."""
    command = [sys.executable, __file__, '--worker', '--formats', name, '--seed', str(seed), '--folder', str(folder)]
    command += ['--first', str(numbers.start), '--mutations', str(len(numbers)), '--keep', str(keep)]
    environment = os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''}
    environment['XDG_CACHE_HOME'] = str(folder / '.cache')
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    number, file, kept = None, '', ''
    for line in _lines(worker):
        if line is None:
            worker.kill()
            break
        if 'begin' in line:
            number, file, kept = line['begin'], line['file'], line['kept']
            continue
        tally.ends[line['end']] += 1
        tally.most_seconds = max(tally.most_seconds, line['seconds'])
        tally.most_bytes = max(tally.most_bytes, line['bytes'])
        if line['finding']:
            tally.findings.append((number, line['finding'], kept))
        number, done = None, number
    status = worker.wait()
    worker.stdout.close()
    if number is not None:
        what = 'too long' if status == -signal.SIGKILL else f'the process died, status {status}'
        tally.ends['killed'] += 1
        keep.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept)
        tally.findings.append((number, what, kept))
        return number + 1
    if status:
        log.seek(0)
        last = log.read()[-3000:].decode(errors='replace')
        raise RuntimeError(f'{name}: the valid files cannot be read; the worker ended with {status}:\n{last}')
    return done + 1


def _lines(worker: subprocess.Popen):
    """The worker's lines; None if a mutation takes far too long."""
    process, rest = psutil.Process(worker.pid), b''
    cpu, since, began = 0.0, time.monotonic(), False
    while True:
        if select.select([worker.stdout], [], [], 1)[0]:
            if not (data := os.read(worker.stdout.fileno(), 1 << 16)):
                return
            *whole, rest = (rest + data).split(b'\n')
            yield from map(json.loads, whole)
            cpu, since, began = _cpu(process), time.monotonic(), True
        elif began and (_cpu(process) - cpu > 10 * _CPU or time.monotonic() - since > _SILENCE + 10 * _CPU):
            yield None


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def table(tallies: dict[str, Tally]) -> str:
    lines = [f'{"format":12} {"tried":>6} {"values":>7} {"findings":>9} {"most CPU s":>11} {"most MB":>8}  refusals']
    for name, tally in tallies.items():
        refusals = ', '.join(f'{end} {count}' for end, count in tally.ends.most_common() if end != 'value')
        lines.append(
            f'{name:12} {tally.ends.total():6} {tally.ends["value"]:7} {len(tally.findings):9} '
            f'{tally.most_seconds:11.2f} {tally.most_bytes / 1e6:8.0f}  {refusals}'
        )
    return '\n'.join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--formats', default=','.join(FORMATS), help='comma-separated; all by default')
    parser.add_argument('--mutations', type=int, default=3000, help='of each format')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first mutation')
    parser.add_argument(
        '--keep', type=pathlib.Path, default=pathlib.Path('fuzz_findings'), help='for files of findings'
    )
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.formats.split(',')
    if unknown := set(names) - set(FORMATS):
        parser.error(f'--formats: {", ".join(sorted(unknown))}: expected some of {", ".join(FORMATS)}')
    numbers = range(given.first, given.first + given.mutations)
    if given.worker:
        work(names[0], given.seed, numbers, given.folder, given.keep)
        return 0
    tallies = {}
    for name in names:
        tallies[name] = campaign(name, given.seed, numbers, given.keep)
        for number, what, file in tallies[name].findings[:_SHOWN]:
            print(f'{name} {number}: {what} ({file})', flush=True)
    print(table(tallies))
    return 1 if any(tally.findings for tally in tallies.values()) else 0


if __name__ == '__main__':
    sys.exit(main())
