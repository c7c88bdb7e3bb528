"""Runs the sides of a benchmark alternately.

Each side has its own process, because the thread pools of two libraries disturb each other in one process. The sides
take turns, so that only one computes at a time and a change in the machine's speed affects both. Every ratio is of two
successive measurements. Load by other processes slows down threads that wait for each other by more than its share of
CPU time. So a round in which other processes took more than `--company` of the CPU time is measured again, at most as
many times as there are rounds, and the output states the load. If the machine is never idle, use the ratio of CPU times
with `--threads 1`.

A side is a class, made with the arguments in its own process. It has the methods `train` and `infer`, the attributes
`weights` (their number) and `versions`, and optionally `note`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psutil

Targets = Mapping[tuple[str, str], float]


def work(arguments: argparse.Namespace, sides: Mapping[str, Any]) -> None:
    """Serves one side: reads `<what> <times>`, and answers with the seconds of each run, elapsed and of CPU time."""
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # The output of the libraries goes to standard error.
    side = sides[arguments.worker](arguments)
    facts = {'weights': side.weights, 'versions': side.versions, 'note': getattr(side, 'note', '')}
    answers.write(json.dumps(facts) + '\n')
    for line in sys.stdin:
        what, times = line.split()
        run: Callable[[], float] = getattr(side, what)
        seconds = []
        for _ in range(int(times)):
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            seconds.append((time.perf_counter() - start, time.process_time() - start_cpu))
        answers.write(json.dumps(seconds) + '\n')


class Measured(NamedTuple):
    """Medians of a few runs.

    Attributes:
      clock: seconds per run.
      processor: seconds of processor time per run, all threads together.
      company: the other processes' share of the processors meanwhile.
    """

    clock: float
    processor: float
    company: float


class Worker:
    """The process of one side."""

    def __init__(self, name: str, precision: str, arguments: argparse.Namespace):
        self.name = name
        command = [sys.executable, os.path.abspath(sys.argv[0]), '--worker', name, '--precisions', precision]
        for key in ('threads', 'size', 'batch', *arguments.choices):
            command += [f'--{key}', str(getattr(arguments, key))]
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
        environment = {
            **os.environ,
            'PYTHONPATH': os.pathsep.join(paths),
            'TF_CPP_MIN_LOG_LEVEL': '3',
            'OMP_NUM_THREADS': str(arguments.threads),
            'CUDA_VISIBLE_DEVICES': '',
        }
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.usage = psutil.Process(self.process.pid)
        self.facts = self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'The process of side {self.name} ended: see its message above.')
        return json.loads(line)

    def __call__(self, what: str, times: int) -> Measured:
        """Runs one side so many times."""
        before = self._used()
        self.process.stdin.write(f'{what} {times}\n')
        self.process.stdin.flush()
        runs = self._read()
        others, total = (after - start for after, start in zip(self._used(), before, strict=True))
        clock, processor = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
        return Measured(clock, processor, max(0.0, others) / max(total, 1e-9))

    def _used(self) -> tuple[float, float]:
        """Seconds of CPU time so far: of all other processes, and the total available."""
        machine, own = psutil.cpu_times(), self.usage.cpu_times()
        total = sum(machine)
        return total - machine.idle - getattr(machine, 'iowait', 0.0) - own.user - own.system, total

    def peak(self) -> float:
        """MiB that the process has had in memory at most."""
        with open(f'/proc/{self.process.pid}/status') as status:
            return int(next(line for line in status if line.startswith('VmHWM')).split()[1]) / 1024

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f'{statistics.median(values):.3f} (from {min(values):.3f} to {max(values):.3f})'


def compare(precision: str, arguments: argparse.Namespace, targets: Targets) -> dict[str, Any]:
    """Times both sides in one precision, and prints the results.

    Returns:
      By `train` and `infer` and then by side: the medians of the seconds per step. By `memory` and side: MiB.
    """
    found: dict[str, Any] = {}
    workers = [Worker(name, precision, arguments) for name in arguments.sides]
    for worker in workers:
        facts = worker.facts
        print(f'{worker.name}: {facts["versions"]}; {facts["weights"]:,} weights{facts["note"]}', flush=True)
    for what in arguments.what:
        for worker in workers:
            worker(what, 2)
        rounds = measure(workers, what, arguments)
        title = f'{what} {precision}'
        print(f'{title}: company {spread(max(side.company for side in round.values()) for round in rounds)}')
        found[what] = {name: statistics.median(round[name].clock for round in rounds) for name in arguments.sides}
        for name in arguments.sides:
            print(f'{title} {name}: seconds per step {spread(round[name].clock for round in rounds)}', flush=True)
        for name in arguments.sides:
            if 'ours' in arguments.sides and name != 'ours':
                clock = spread(round['ours'].clock / round[name].clock for round in rounds)
                processor = spread(round['ours'].processor / round[name].processor for round in rounds)
                aim = f'aim {targets[what, precision]:.2f}'
                print(f'{title}: ours / {name} {clock}, {aim}; of processor time {processor}', flush=True)
    found['memory'] = {worker.name: worker.peak() for worker in workers}
    for worker in workers:
        print(f'{worker.name} {precision}: {found["memory"][worker.name]:.0f} MiB of memory at most', flush=True)
        worker.close()
    return found


def measure(workers: list[Worker], what: str, arguments: argparse.Namespace) -> list[dict[str, Measured]]:
    """Returns the measurements of each side, per round."""
    rounds: list[dict[str, Measured]] = []
    for attempt in range(2 * arguments.rounds):
        # The first side of a round is the last one of the previous round, so that the order alternates.
        order = workers if attempt % 2 else workers[::-1]
        measured = {worker.name: worker(what, arguments.steps) for worker in order}
        disturbed = max(side.company for side in measured.values()) > arguments.company
        if disturbed and attempt < arguments.rounds + len(rounds):
            continue  # There are attempts left for all missing rounds.
        rounds.append(measured)
        if len(rounds) == arguments.rounds:
            break
    return rounds


def main(
    doc: str,
    sides: Mapping[str, Any],
    targets: Targets,
    choices: Mapping[str, Sequence[str]] | None = None,
    **defaults: Any,
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Reads the command line, and runs the benchmark or serves one of its sides.

    Args:
      doc: docstring of the benchmark.
      sides: class by name: 'ours', and those to compare with.
      targets: target ratio by (what, precision).
      choices: values of further flags, by name; the first is the default. The sides also get them.
      defaults: defaults of flags that differ from those below.

    Returns:
      The flags, and the results of `compare` by precision; empty where a side was served.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=3, help='steps of each side per round; their median counts')
    parser.add_argument('--company', type=float, default=0.05, help="other processes' share that a round may have")
    parser.add_argument('--size', type=int, default=512)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--precisions', nargs='+', default=['float32', 'bfloat16'], choices=['float32', 'bfloat16'])
    parser.add_argument('--what', nargs='+', default=['train', 'infer'], choices=['train', 'infer'])
    parser.add_argument('--sides', nargs='+', default=list(sides), choices=list(sides))
    parser.add_argument('--worker', choices=list(sides), help=argparse.SUPPRESS)
    for name, values in (choices or {}).items():
        parser.add_argument(f'--{name}', default=values[0], choices=values)
    parser.set_defaults(choices=list(choices or {}), **defaults)
    arguments = parser.parse_args()
    if arguments.worker:
        (arguments.precision,) = arguments.precisions
        work(arguments, sides)
        return arguments, {}
    return arguments, {precision: compare(precision, arguments, targets) for precision in arguments.precisions}
