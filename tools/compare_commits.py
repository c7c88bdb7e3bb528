"""Compares two commits of the project bit for bit, in float32 on this machine.

    python tools/compare_commits.py OLD NEW [--only NAME,NAME]

Each commit runs in its own worktree under a temporary folder, through the command line: the trainings of
tools/golden.py in float32, with `--deterministic`, and predictions of their evaluation data with the last checkpoint.
The tool compares the numbers of metrics.jsonl (except times and memory), the tensors of the last checkpoint, and the
files of the predictions (probabilities or detections, class maps, lines).

A line for each training says that all are equal, or how many differ. For the first difference (in the order training
steps, weights, evaluations, predictions) it gives name, both values, and the distance in units in the last place.

Both inherit the environment. TF_ENABLE_ONEDNN_OPTS, for which commits have different defaults, is 1 unless it is set.
Exit status: 0 if all is equal, 1 if anything differs, 2 if a commit is unknown or cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from tools import golden  # noqa: E402

_FLAGS = ('--strategy=one', '--precision=float32', '--deterministic')
# Keys of metrics.jsonl that differ between any two runs, or that name files.
_CHANGING = re.compile(r'.*(_per_second|seconds|memory_mb)|split|weights|details')


class Failure(Exception):
    """The reason why the commits cannot be compared."""


@contextlib.contextmanager
def worktree(commit: str, folder: pathlib.Path) -> Iterator[None]:
    """Context in which `folder` holds the files of a commit."""
    _git(
        f'{commit!r} is not a commit of this project',
        'rev-parse',
        '--verify',
        '--quiet',
        '--end-of-options',
        f'{commit}^{{commit}}',
    )
    _git(f'{commit!r} cannot be checked out', 'worktree', 'add', '--quiet', '--detach', str(folder), commit)
    try:
        yield
    finally:
        _git(f'{folder} cannot be removed', 'worktree', 'remove', '--force', str(folder))


def _git(complaint: str, *arguments: str) -> None:
    done = subprocess.run(['git', *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f'{complaint}. {done.stderr.strip()}'.strip())


def run(commit: str, code: pathlib.Path, name: str, model_dir: pathlib.Path) -> None:
    """Trains one of `golden.TRAININGS` by the code of a commit, and predicts.

    Raises:
      Failure: if a command fails; it has the command's last lines.
    """
    gin_file, *params = golden.TRAININGS[name]
    probabilities = ['--probabilities'] if 'deeplab' in gin_file else []  # Of pixels; instances have none.
    for arguments in (
        [f'--gin_file={gin_file}', *(f'--gin_param={param}' for param in params)],
        ['--mode=predict', *probabilities],
    ):
        command = [sys.executable, '-m', 'seg.seg_main', f'--model_dir={model_dir}', *_FLAGS, *arguments]
        environment = {'TF_ENABLE_ONEDNN_OPTS': '1', **os.environ, 'PYTHONPATH': str(code)}
        done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True)
        if done.returncode:
            end = '\n'.join((done.stdout + done.stderr).splitlines()[-10:])
            raise Failure(f'{name} at {commit}: exit status {done.returncode} of {" ".join(arguments)}:\n{end}')


def entries(model_dir: pathlib.Path) -> dict[str, Any]:
    """All compared values of a run, by name: numbers, strings and arrays."""
    lines = [json.loads(line) for line in (model_dir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    numbers = {'train': {}, 'eval': {}}
    for line in lines:
        kind, step = line.pop('kind'), line.pop('step')
        kept = {key: value for key, value in line.items() if not _CHANGING.fullmatch(key)}
        numbers[kind].update(golden.flat(kept, f'{kind}/{step}'))
    checkpoint = max(model_dir.glob('ckpt-*.safetensors'), key=lambda path: path.name)
    weights = {f'weights/{key}': tensor for key, tensor in sorted(load_file(checkpoint).items())}
    predicted: dict[str, Any] = {}
    for path in sorted((model_dir / 'predictions').rglob('*.*')):
        name = str(path.relative_to(model_dir))
        if path.suffix == '.npz':
            with np.load(path) as arrays:
                predicted |= {f'{name}/{key}': arrays[key] for key in arrays.files}
        elif path.suffix == '.png':
            predicted[name] = np.asarray(Image.open(path))
        elif path.suffix in ('.json', '.jsonl'):
            text = path.read_text(encoding='utf-8')
            records = text.splitlines() if path.suffix == '.jsonl' else [text]
            predicted |= golden.flat([json.loads(record) for record in records], name)
    return {**numbers['train'], **weights, **numbers['eval'], **predicted}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines on the entries of two runs that differ in any bit, in their order, and on the differences."""
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in old or key not in new:
            lines.append(f'{key}: only in the {"old" if key in old else "new"} one')
        elif difference := _difference(old[key], new[key]):
            lines.append(f'{key}{difference}')
    return lines


def _difference(old: Any, new: Any) -> str:
    """Describes the difference of two entries; '' if all of their bits are equal."""
    if isinstance(old, float) and isinstance(new, float):
        single = all(value != value or float(np.float32(value)) == value for value in (old, new))
        old, new = np.array([old, new], np.float32 if single else np.float64)  # The step computes in float32.
    old, new = np.asarray(old), np.asarray(new)
    if old.dtype != new.dtype or old.shape != new.shape:
        return f': {old.dtype} {old.shape} -> {new.dtype} {new.shape}' if old.ndim or new.ndim else f': {old} -> {new}'
    floating = old.dtype.kind == 'f'
    left, right = (_places(old), _places(new)) if floating else (old, new)
    differs = np.argwhere(left != right)
    if not len(differs):
        return ''
    index = tuple(differs[0].tolist())
    units = f' ({abs(int(left[index]) - int(right[index]))} ULPs)' if floating else ''
    return f'{list(index) if index else ""}: {old[index]} -> {new[index]}{units}'


def _places(values: np.ndarray) -> np.ndarray:
    """Ranks of floating point numbers among all numbers of their dtype: neighbours differ by 1, and -0 is below 0."""
    bits = values.view(f'i{values.itemsize}')
    return bits ^ (bits >> (8 * values.itemsize - 1) & np.iinfo(bits.dtype).max)


def compare(old: str, new: str, names: list[str]) -> bool:
    """Prints a line for each training; returns whether all are equal."""
    equal = True
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = pathlib.Path(scratch)
        for side, commit in (('old', old), ('new', new)):
            stack.enter_context(worktree(commit, folder / side))
        for name in names:
            found = []
            for side, commit in (('old', old), ('new', new)):
                model_dir = folder / f'{side}-runs' / name
                run(commit, folder / side, name, model_dir)
                found.append(entries(model_dir))
            lines = differences(*found)
            equal = equal and not lines
            result = (
                f'{len(lines)} of {len(found[0])} differ; {lines[0]}' if lines else f'equal ({len(found[0])} entries)'
            )
            print(f'{name}: {result}', flush=True)
    return equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old', help='a commit, branch or tag')
    parser.add_argument('new', help='another one')
    parser.add_argument('--only', default='', help=f'some of {", ".join(golden.TRAININGS)}, separated by commas')
    given = parser.parse_args()
    names = list(filter(None, given.only.split(','))) or list(golden.TRAININGS)
    try:
        if unknown := [name for name in names if name not in golden.TRAININGS]:
            raise Failure(f'--only={unknown[0]}: expected some of {", ".join(golden.TRAININGS)}.')
        return 0 if compare(given.old, given.new, names) else 1
    except Failure as failure:
        print(f'compare_commits.py: {failure}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
