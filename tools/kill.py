"""Kills and interrupts a training at chosen and random moments; resumed, it must end as an uninterrupted run does.

    python tools/kill.py [--kills 20] [--early_stops 4] [--continued 4] [--signals 10] [--seed 0] [--keep DIR]
    python tools/kill.py --engine jax [--processes 2] [--records]

The experiment is a small network on procedural scenes, bit-equal in every run: 60 steps, saves every 5, evaluations
every 20. The base is one uninterrupted run. Every trial starts the same training, stops it (SIGKILL twice, or SIGTERM
or SIGINT once), and runs the same command again until the training is complete. Every tensor of the last checkpoint and
of `best/`, metrics.jsonl, results.json and the evaluations' files must equal the base, except times, speed and memory.
No temporary file may remain, and no checkpoint beyond `keep_checkpoint_max`. After SIGTERM and SIGINT the trained steps
must be saved. The exit status is 1 if there are findings.

Two more bases get SIGKILLs alone: a training that ends early by `RunConfig.patience`, and the finished base that
continues with more steps, whose trials start from copies of it.

With --records, the scenes are converted to records first, and the trainings read those.

With several processes, which share a run, one of them gets the signal, and the others must end by themselves within a
minute. Their numbers may differ from the base by 1e-6, relative to the size of a number above 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

os.environ['OPENBLAS_NUM_THREADS'] = '1'  # numpy's import would start threads, and trainings are forks.

import numpy as np  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from trainings import KEPT, SAVES, SCENES, STEPS, Launch, Run, conversion, of_records, training  # noqa: E402

# Keys whose values differ between two equal runs.
MEASURED = ('seconds', 'train_seconds', 'compile_seconds', 'images_per_second', 'host_memory_mb', 'device_memory_mb')
MEASURED += ('train_images_per_second', 'eval_images_per_second', 'data_wait', 'time', 'wall_time')
PATIENT = ('TRAIN_STEPS=400', 'RunConfig.patience=2', 'RunConfig.eval_every=10')
LONGER = 'TRAIN_STEPS=100'
_ALONE = 60  # Seconds until all processes have ended that lost one.
_GRACE = 30  # Seconds that a cluster leaves a process after SIGTERM.


# ---- Moments: when to stop a run -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Aim:
    """A moment, and the longest delay of the signal after it in seconds."""

    name: str
    moment: Callable[[Run], bool]
    delay: float = 0.0


def _described(run: Run) -> bool:
    return bool(run.names('dataset_info.json'))


def _half_written(step: int) -> Callable[[Run], bool]:
    return lambda run: run.saved() >= step and bool(run.names('ckpt-*.tmp-*'))


def _other_temporary(run: Run) -> bool:
    return any(not name.startswith('ckpt-') for name in run.names('**/*.tmp-*'))


def _evaluating(step: int) -> Callable[[Run], bool]:
    return lambda run: run.saved() >= step and run.reached('eval') < step


def _saved(step: int) -> Callable[[Run], bool]:
    return lambda run: run.saved() >= step


def _trained(step: int) -> Callable[[Run], bool]:
    return lambda run: run.reached('train') >= step


def _kill_trials(seconds: float, chance: random.Random) -> Iterator[tuple[Aim, Aim]]:
    """Endless aims of trials with two SIGKILLs.

    Args:
      seconds: from a start to the first line of training, in the base.
      chance: draws the steps.
    """

    def step(low: int, high: int) -> int:
        return SAVES * chance.randint(low // SAVES, high // SAVES)

    while True:
        yield (
            Aim('start', lambda run: True, seconds / 2),
            Aim('checkpoint, not evaluated', _evaluating(40), 0.1),
        )
        yield (
            Aim('half-written checkpoint', _half_written(step(0, 15))),
            Aim('half-written checkpoint', _half_written(step(25, 50))),
        )
        yield (
            Aim('just after a save', _saved(step(5, 20)), 0.02),
            Aim('last checkpoint, not evaluated', _evaluating(60), 0.05),
        )
        yield (
            Aim('checkpoint, not evaluated', _evaluating(20), 0.5),
            Aim('just after a save', _saved(step(25, 55)), 0.01),
        )
        yield (
            Aim('half-written file beside', _other_temporary),
            Aim('training', _trained(step(10, 40)), 0.2),
        )


def _evaluated(step: int) -> Callable[[Run], bool]:
    return lambda run: run.reached('eval') >= step


def _later_kill_trials(first: int, last: int, seconds: float, chance: random.Random) -> Iterator[tuple[Aim, Aim]]:
    """Endless aims of trials with two SIGKILLs between the steps `first` and `last`, the end."""

    def step(part: int) -> int:  # Of the first or the second half.
        half = (last - first) // 2
        return first + SAVES * chance.randint(1, half // SAVES) + part * half - SAVES * part

    while True:
        yield (
            Aim('start', lambda run: True, seconds),
            Aim('last checkpoint, not evaluated', _evaluating(last), 0.1),
        )
        yield (
            Aim('half-written checkpoint', _half_written(step(0) - SAVES)),
            Aim('last evaluation, no results', _evaluated(last), 0.02),
        )
        yield (
            Aim('training', _trained(step(0)), 0.2),
            Aim('just after a save', _saved(step(1)), 0.02),
        )


def _signals(number: int) -> list[tuple[int, Aim]]:
    aims = [
        Aim('training', _trained(5), 0.1),
        Aim('evaluation of step 20', _evaluating(20), 0.3),
        Aim('before the first step', _described, 0.3),
        Aim('start', lambda run: run.folder.exists(), 0.3),
        Aim('save of step 20', lambda run: run.saved() == 15 and bool(run.names('ckpt-*.tmp-*'))),
    ]
    return [((signal.SIGTERM, signal.SIGINT)[i % 2], aims[i // 2 % len(aims)]) for i in range(number)]


# ---- Comparison with the base ----------------------------------------------------------------------------------------


def _without_measures(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_measures(item) for key, item in value.items() if key not in MEASURED}
    return value


def _different_tensors(one: pathlib.Path, other: pathlib.Path, within: float) -> list[str]:
    try:
        a, b = load_file(one), load_file(other)
    except (OSError, SafetensorError) as error:
        return [str(error)]
    if a.keys() != b.keys():
        return [f'other names of tensors: {sorted(a.keys() ^ b.keys())[:3]}']
    equal = lambda x, y: np.allclose(x, y, within, within) if within else x.tobytes() == y.tobytes()  # noqa: E731
    different = [name for name in a if not equal(a[name], b[name])]
    return [f'{len(different)} of {len(a)} tensors differ, such as {different[0]}'] if different else []


def _json(path: pathlib.Path, folder: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8').replace(str(folder), 'RUN'))


def _equal(one: Any, other: Any, within: float) -> bool:
    """Whether two values of JSON are equal, but for what was measured."""
    one, other = _without_measures(one), _without_measures(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key], within) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(*pair, within) for pair in zip(one, other, strict=True))
    if within and isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=within, abs_tol=within)
    return one == other


def differences(run: Run, base: Run, within: float) -> list[str]:
    """The differences of a finished run from the base; numbers may differ by `within`."""
    found = [] if run.status == 0 else [f'status {run.status}: {run.last_words()[:200]}']
    last = f'ckpt-{base.saved():08d}.safetensors'
    found += _different_tensors(base.folder / last, run.folder / last, within)
    if (best := run.names('best/*')) != base.names('best/*'):
        found.append(f'best/ holds {best}, not {base.names("best/*")}')
    else:
        found += _different_tensors(*(one.folder / one.names('best/*.safetensors')[0] for one in (base, run)), within)
    lines, wanted = run.lines(), base.lines()
    keys = [(line['kind'], line['step']) for line in lines]
    if len(set(keys)) < len(keys):
        found.append('metrics.jsonl has a line twice')
    if not _equal(lines, wanted, within):
        found.append('metrics.jsonl differs')
    for name in ('results.json', *base.names('eval/*.json'), *base.names('best/*.json')):
        path = run.folder / name
        if not path.exists() or not _equal(_json(path, run.folder), _json(base.folder / name, base.folder), within):
            found.append(f'{name} differs')
    changes = [_json(each.folder / 'run.json', each.folder)['train_steps_changes'] for each in (base, run)]
    if changes[0] != changes[1]:
        found.append(f'run.json: train_steps_changes is {changes[1]}, not {changes[0]}')
    if left := run.names('**/*.tmp-*'):
        found.append(f'temporary files: {left}')
    if (count := len(run.names('ckpt-*'))) > KEPT:
        found.append(f'{count} files of checkpoints, at most {KEPT} are kept')
    return found


# ---- Trials ----------------------------------------------------------------------------------------------------------


def _finish(run: Run) -> None:
    run.start()
    run.wait()


def _copy(origin: Run, folder: pathlib.Path, launch: Launch, settings: Sequence[str]) -> Run:
    """A training with other settings in a copy of the folder of a finished one."""
    shutil.copytree(origin.folder, folder)
    return training(folder, launch, settings)


def _state(run: Run) -> str:
    partial = [name for name in run.names('**/*.tmp-*')]
    return f'trained {run.reached("train")}, saved {run.saved()}, evaluated {run.reached("eval")}' + (
        f', half {os.path.basename(partial[0]).partition(".tmp-")[0]}' if partial else ''
    )


def kill_trial(run: Run, aims: Iterable[Aim], chance: random.Random) -> tuple[int, list[str], list[str]]:
    """Returns the number of kills that met their moment, a line each on all of them, and the findings."""
    kills, notes, found = 0, [], []
    for aim in aims:
        run.start()
        if run.until(aim.moment):
            time.sleep(chance.uniform(0, aim.delay))
        met, which = run.alive(), chance.randrange(len(run.statuses))
        run.send(signal.SIGKILL, which)
        seconds = run.wait()
        kills += met
        notes.append(f'{aim.name}: {_state(run) if met else "ended before"}; process {which}, statuses {run.statuses}')
        if met and (seconds > _ALONE or 0 in run.statuses):
            found.append(f'statuses {run.statuses} after {seconds:.0f} s')
    _finish(run)
    return kills, notes, found


def signal_trial(run: Run, number: int, aim: Aim, chance: random.Random) -> tuple[str, list[str]]:
    """Returns a description of the trial, and its findings before the same command starts again."""
    run.start()
    if run.until(aim.moment):
        time.sleep(chance.uniform(0, aim.delay))
    which = chance.randrange(len(run.statuses))
    run.send(number, which)
    seconds = run.wait()
    status, found = run.statuses[which], []
    if status not in _statuses(number, run.reached('train')) or (
        run.reached('train') and run.statuses.count(0) < len(run.statuses) - 1
    ):
        found.append(f'statuses {run.statuses} after {signal.Signals(number).name}')
    if seconds > _GRACE:
        found.append(f'{seconds:.0f} s to the end')
    if run.saved() < run.reached('train'):
        found.append(f'trained to step {run.reached("train")}, saved step {run.saved()}')
    note = f'{signal.Signals(number).name} at {aim.name}: status {status} after {seconds:.1f} s; {_state(run)}'
    _finish(run)
    return note, found


def _statuses(number: int, trained: int) -> tuple[int, ...]:
    """The valid exit statuses. Before any training, SIGTERM may end the process with the signal's own status."""
    if number == signal.SIGINT:
        return (130,)
    return (0,) if trained else (0, -signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--early_stops', type=int, default=4, help='SIGKILLs of a training that ends early')
    parser.add_argument('--continued', type=int, default=4, help='SIGKILLs of a training continued with more steps')
    parser.add_argument('--signals', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--keep', type=pathlib.Path, help='folder for the runs and their logs, which then stay')
    parser.add_argument('--engine', default='tensorflow', choices=['tensorflow', 'jax'])
    parser.add_argument('--processes', type=int, default=1, help='processes that share a run; only with --engine jax')
    parser.add_argument('--records', action='store_true', help='train on records of the scenes')
    args = parser.parse_args()
    if args.processes > 1 and args.engine != 'jax':
        parser.error('--processes needs --engine jax')
    chance = random.Random(args.seed)
    scratch = pathlib.Path(args.keep or tempfile.mkdtemp(prefix='kill-')).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    launch, within = Launch(args.engine, args.processes, scratch / 'compiled'), 1e-6 if args.processes > 1 else 0.0
    begin = time.monotonic()
    try:
        data: Sequence[str] = SCENES
        if args.records:
            records = conversion(scratch / 'records', launch, 'gin/deeplab_shapes.gin', SCENES)
            _finish(records)
            if records.status != 0:
                print(f'the conversion ended with {records.status}: {records.last_words()}')
                return 1
            data = of_records(records.folder)
        base = training(scratch / 'base', launch, data)
        base.start()
        before = time.monotonic()
        base.until(_trained(1))
        first = time.monotonic() - before
        base.wait()
        if base.status != 0:
            print(f'the base ended with {base.status}: {base.last_words()}')
            return 1
        print(f'base: {time.monotonic() - begin:.0f} s, first line after {first:.1f} s', flush=True)
        campaigns = [('kill', args.kills, base, None, data, _kill_trials(first, chance))]
        if args.early_stops:
            early = training(scratch / 'early-base', launch, (*data, *PATIENT))
            _finish(early)
            if early.status or not _json(early.folder / 'results.json', early.folder)['early_stop']:
                print(f'the base did not end early: {early.status}, {early.last_words()}')
                return 1
            aims = _later_kill_trials(0, early.saved(), first, chance)
            campaigns.append(('early', args.early_stops, early, None, (*data, *PATIENT), aims))
        if args.continued:
            longer = _copy(base, scratch / 'continued-base', launch, (*data, LONGER))
            _finish(longer)
            aims = _later_kill_trials(STEPS, longer.saved(), first, chance)
            campaigns.append(('continued', args.continued, longer, base, (*data, LONGER), aims))
        kills = wrong = starts = 0
        for name, number, wanted, origin, settings, trials in campaigns:
            met = 0
            for i, aims in enumerate(trials, 1):
                if met >= number:
                    break
                folder = scratch / f'{name}-{i:02d}'
                run = _copy(origin, folder, launch, settings) if origin else training(folder, launch, settings)
                more, notes, found = kill_trial(run, aims, chance)
                met, starts = met + more, starts + run.starts
                wrong += _report(run.folder.name, notes, found + differences(run, wanted, within))
            kills += met
        for i, (number, aim) in enumerate(_signals(args.signals), 1):
            run = training(scratch / f'signal-{i:02d}', launch, data)
            note, found = signal_trial(run, number, aim, chance)
            starts += run.starts
            wrong += _report(run.folder.name, [note], found + differences(run, base, within))
        print(
            f'{kills} SIGKILLs, {args.signals} SIGTERM and SIGINT, {starts} starts: {wrong} trials with findings; '
            f'{time.monotonic() - begin:.0f} s'
        )
    finally:
        if not args.keep:
            shutil.rmtree(scratch)
    return int(wrong > 0)


def _report(name: str, notes: Iterable[str], found: Iterable[str]) -> bool:
    found = list(found)
    print(f'{name}: {"FOUND" if found else "equal"}')
    for line in notes:
        print(f'    {line}')
    for line in found:
        print(f'    -> {line}')
    sys.stdout.flush()
    return bool(found)


if __name__ == '__main__':
    sys.exit(main())
