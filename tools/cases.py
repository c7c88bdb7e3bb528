"""Runs a folder of cases, each a folder `<id>_<name>/` with a `run.sh`, and checks how their commands end.

    python tools/cases.py FOLDER [--only 53b,74] [--keep DIR] [--expected tools/cases_expected.tsv]

Bash runs `run.sh` in a copy of FOLDER, with this checkout's `seg_main` on the PATH. Exit status and output of each of
its `seg_main` commands are compared with the table of expectations. A traceback, "bug of seg", a signal and a time-out
are always findings. The exit status is 1 if there are findings.

The table has tab-separated columns: case, number of the command in `run.sh`, valid exit statuses (`0|2`), texts that
the output must contain (`data/train & 'a.jpg' & !crowds`; `!` marks one that it must not contain; case does not
matter), and a description of the right behaviour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import preloaded

_LIMIT = 240  # Seconds of one seg_main command on a busy machine.
_TOGETHER = 2  # Cases at a time.
_SHIM = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
server.sendall(json.dumps([os.environ['SEG_CASE'], os.getcwd(), sys.argv[1:]]).encode() + b'\\n')
status, output = json.loads(server.makefile().readline())
sys.stdout.buffer.write(open(output, 'rb').read())
sys.exit(status)
"""


@dataclasses.dataclass
class Command:
    """One `seg_main` command of a case."""

    args: list[str]
    output: str
    process: int
    caller: socket.socket
    start: float
    status: int | None = None
    timed_out: bool = False
    seconds: float = 0.0

    def text(self) -> str:
        return pathlib.Path(self.output).read_text(encoding='utf-8', errors='replace')

    def message(self) -> str:
        """The first line of the last message, or else the last line."""
        lines = [line for line in self.text().splitlines() if line.strip()]
        messages = [line.partition('seg_main: ')[2] for line in lines if line.startswith('seg_main: ')]
        return (messages or lines or [''])[-1]

    def faults(self) -> list[str]:
        text = self.text()
        return [
            *(['time-out'] if self.timed_out else [f'signal {-self.status}'] if self.status < 0 else []),
            *(word for word in ('Traceback', 'bug of seg') if word in text),
        ]


@dataclasses.dataclass(frozen=True)
class Expectation:
    """A row of the table."""

    statuses: tuple[int, ...]
    needles: tuple[str, ...]
    right: str

    def misses(self, command: Command) -> list[str]:
        text = re.sub(r'\s+', ' ', command.text()).lower()
        found = [] if command.status in self.statuses else [f'status {command.status}']
        for needle in self.needles:
            forbidden = needle.startswith('!')
            if (needle.removeprefix('!').lower() in text) == forbidden:
                found.append(f'says {needle[1:]!r}' if forbidden else f'does not say {needle!r}')
        return found


def read_expected(path: str) -> dict[tuple[str, int], Expectation]:
    """Expectations by case id and number of the command, from 1."""
    rows = {}
    for line in pathlib.Path(path).read_text(encoding='utf-8').splitlines()[1:]:
        case, number, statuses, needles, right = line.split('\t')
        wanted = tuple(needle.strip() for needle in needles.split(' & ') if needle.strip())
        rows[case, int(number)] = Expectation(tuple(map(int, statuses.split('|'))), wanted, right)
    return rows


class Cases:
    """Runs cases, and serves the requests of the `seg_main` on their PATH."""

    def __init__(self, folder: pathlib.Path, scratch: pathlib.Path):
        """Makes the server and the commands on the PATH.

        Args:
          folder: a copy of the cases.
          scratch: folder for the outputs and the commands.
        """
        self._folder, self._scratch = folder, scratch
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(scratch / 'server'))
        self._server.listen()
        self._bin = scratch / 'bin'
        self._bin.mkdir()
        shim = _SHIM.format(python=sys.executable, address=str(scratch / 'server'))
        # A start takes a second here, so a script that waits for one can wait for a shorter time.
        for name, text in (('seg_main', shim), ('sleep', '#!/bin/sh\nexec /bin/sleep 3\n')):
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)
        (self._bin / 'python').symlink_to(sys.executable)
        self.commands: dict[str, list[Command]] = {}

    def run(self, cases: list[str]) -> None:
        """Runs cases, `_TOGETHER` at a time."""
        waiting, running = list(cases), {}
        while waiting or running:
            while waiting and len(running) < _TOGETHER:
                case = waiting.pop(0)
                running[case] = self._start(case)
            if select.select([self._server], [], [], 0.05)[0]:
                self._answer(self._server.accept()[0])
            for commands in self.commands.values():
                for command in commands:
                    self._look_at(command)
            for case in [case for case, process in running.items() if process.poll() is not None]:
                del running[case]

    def _start(self, case: str) -> subprocess.Popen:
        self.commands[case] = []
        environment = os.environ | {'PATH': f'{self._bin}:{os.environ["PATH"]}', 'SEG_CASE': case}
        log = open(self._scratch / f'{case}.sh.out', 'wb')
        with log:
            script = ['bash', str(self._folder / case / 'run.sh')]
            return subprocess.Popen(script, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def _answer(self, caller: socket.socket) -> None:
        case, folder, args = json.loads(caller.makefile().readline())
        output = str(self._scratch / f'{case}.{len(self.commands[case]) + 1}.out')
        process = preloaded.start(args, output, folder)
        self.commands[case].append(Command(args, output, process, caller, time.monotonic()))

    def _look_at(self, command: Command) -> None:
        if command.status is not None:
            return
        command.seconds = time.monotonic() - command.start
        if command.seconds > _LIMIT and not command.timed_out:
            command.timed_out = True
            os.kill(command.process, signal.SIGKILL)
        process, status = os.waitpid(command.process, os.WNOHANG)
        if process:
            command.status = os.waitstatus_to_exitcode(status)
            reply = [command.status if command.status >= 0 else 128 - command.status, command.output]
            command.caller.sendall(json.dumps(reply).encode() + b'\n')
            command.caller.close()


def identity(case: str) -> str:
    return case.partition('_')[0]


def choose(folder: pathlib.Path, only: list[str]) -> list[list[str]]:
    """The cases to run: first those whose runs other cases read, then the rest."""
    scripts = {path.parent.name: path.read_text() for path in sorted(folder.glob('*/run.sh'))}
    unknown = set(only) - set(map(identity, scripts))
    if unknown:
        raise SystemExit(f'--only: {folder} has no case {", ".join(sorted(unknown))}')
    chosen = [case for case in scripts if not only or identity(case) in only]
    read = {case for case in scripts for other in chosen if f'../{case}/run' in scripts[other]}
    return [sorted(read), [case for case in chosen if case not in read]]


def judge(case: str, commands: list[Command], expected: dict[tuple[str, int], Expectation]) -> list[str]:
    """The findings of a case, a line each."""
    listed = {number for name, number in expected if name == identity(case)}
    found = []
    for number, command in enumerate(commands, 1):
        row = expected.get((identity(case), number))
        allowed = 'bug of seg' if row and 1 in row.statuses else None  # A plugin's mistake may have this message.
        lines = [fault for fault in command.faults() if fault != allowed]
        lines += row.misses(command) if row else ['not in the table']
        if lines:
            found.append(f'command {number}: {"; ".join(lines)}' + (f'. Right: {row.right}' if row else ''))
    return found + [f'command {number} did not run' for number in sorted(listed) if number > len(commands)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--only', default='', help='ids of cases, separated by commas')
    parser.add_argument('--keep', type=pathlib.Path, help='folder for the copy and the outputs, which then stay')
    parser.add_argument('--expected', default=str(pathlib.Path(__file__).with_name('cases_expected.tsv')))
    args = parser.parse_args()
    expected = read_expected(args.expected)
    phases = choose(args.folder, [name for name in args.only.split(',') if name])
    scratch = pathlib.Path(args.keep or tempfile.mkdtemp(prefix='cases-')).resolve()
    try:
        folder = scratch / 'cases'
        shutil.copytree(args.folder, folder)
        subprocess.run(['chmod', '-R', 'u+w', str(folder)], check=True)
        cases = Cases(folder, scratch)
        start = time.monotonic()
        for phase in phases:
            cases.run(phase)
        wrong = 0
        for case, commands in cases.commands.items():
            found = judge(case, commands, expected)
            wrong += bool(found)
            print(f'{"NOT" if found else "as "} expected  {case}')
            for command in commands:
                print(f'      {command.status:4d} {command.seconds:5.1f} s  {command.message()[:150]}')
            for line in found:
                print(f'      -> {line}')
        total = sum(map(len, cases.commands.values()))
        print(
            f'{len(cases.commands)} cases, {total} commands, {wrong} cases not as expected, '
            f'{time.monotonic() - start:.0f} s'
        )
        if args.keep:
            summary = {
                case: [
                    {'command': shlex.join(['seg_main', *c.args]), 'status': c.status, 'message': c.message()}
                    for c in commands
                ]
                for case, commands in cases.commands.items()
            }
            (scratch / 'summary.json').write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    finally:
        if not args.keep:
            shutil.rmtree(scratch)
    return int(wrong > 0)


if __name__ == '__main__':
    sys.exit(main())
