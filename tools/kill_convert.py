"""Kills a conversion at random moments; started again, it must end in the bytes of an undisturbed one.

    python tools/kill_convert.py [--kills 10] [--seed 0] [--examples 4000] [--keep DIR]

For label maps and for instances: the base is one undisturbed conversion of procedural scenes. Then the same command is
killed (SIGKILL) when a random number of further files are complete, and a random time later, and started again, until
it ends; this is repeated in new folders until the number of kills is reached. After a kill, every file of records that
has its name must have the bytes of the base. At the end, all files must, and no other may remain. The exit status is 1
if there are findings.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import math
import pathlib
import random
import shutil
import signal
import tempfile
import time

from trainings import Launch, Run, conversion

_NAMES = '*.array_record-?????-of-?????'  # Of files of records that are complete.
_FURTHER = 3  # Files that a start completes at most before its kill.
_RECIPES = {'label_map': 'gin/deeplab_shapes.gin', 'instances': 'gin/maskrcnn_shapes.gin'}


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _records(hashes: dict[str, str]) -> dict[str, str]:
    """Those of the files of records that are complete."""
    return {name: digest for name, digest in hashes.items() if fnmatch.fnmatch(name, _NAMES)}


def campaign(target: str, kills: int, examples: int, scratch: pathlib.Path, chance: random.Random) -> int:
    """Returns the number of findings."""
    launch = Launch('tensorflow', 1, scratch)
    settings = ('CROP=(64, 64)', f'datasets.shapes.num_examples={examples}')

    def new(name: str) -> Run:
        return conversion(scratch / f'{target}-{name}', launch, _RECIPES[target], settings)

    base, begin = new('base'), time.monotonic()
    base.start()
    base.wait()
    seconds = time.monotonic() - begin
    if base.status:
        print(f'{target}: the base ended with {base.status}: {base.last_words()}')
        return 1
    expected = _hashes(base.folder)
    print(f'{target}: {len(_records(expected))} files in {seconds:.0f} s', flush=True)
    done = trials = starts = wrong = 0
    while done < kills:
        trials += 1
        run = new(f'{trials:02d}')
        while True:
            run.start()
            wanted = min(len(run.names(_NAMES)) + chance.randint(0, _FURTHER), len(_records(expected)) - 1)
            wanted = wanted if done < kills else math.inf
            if run.until(lambda run, wanted=wanted: len(run.names(_NAMES)) >= wanted):
                time.sleep(chance.uniform(0, 2 * seconds / len(_records(expected))))
            if not run.alive():
                break
            run.send(signal.SIGKILL)
            run.wait()
            done += 1
            there = _records(_hashes(run.folder)) if run.folder.exists() else {}
            different = [name for name, digest in there.items() if expected[name] != digest]
            wrong += bool(different)
            print(f'    kill {done}: {len(there)} files{f"; DIFFERENT: {different}" if different else ""}', flush=True)
        starts += run.starts
        found = _hashes(run.folder)
        same = run.status == 0 and found == expected
        wrong += not same
        differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        print(f'{run.folder.name}: {"equal" if same else f"FOUND: status {run.status}, {differ}"}', flush=True)
    print(f'{target}: {done} SIGKILLs, {starts} starts, {trials} conversions: {wrong} findings', flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=10, help='for each target')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--examples', type=int, default=4000, help='of the training data, and of the evaluation data')
    parser.add_argument('--keep', type=pathlib.Path, help='folder for the records and the logs, which then stay')
    args = parser.parse_args()
    chance = random.Random(args.seed)
    scratch = pathlib.Path(args.keep or tempfile.mkdtemp(prefix='kill-convert-')).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return int(any([campaign(target, args.kills, args.examples, scratch, chance) for target in _RECIPES]))
    finally:
        if not args.keep:
            shutil.rmtree(scratch)


if __name__ == '__main__':
    raise SystemExit(main())
