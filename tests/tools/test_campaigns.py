"""The commands of tools/: a training that is killed and interrupted, and a folder of cases, small enough for a test."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = 'case\tcommand\tstatus\tneedles\tright\n'


def tool(name, *args):
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500)


@pytest.mark.slow
def test_a_kill_and_a_sigterm_end_as_the_base_does():
    done = tool('kill', '--kills', 1, '--early_stops', 1, '--continued', 1, '--signals', 1)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert ' SIGKILLs, 1 SIGTERM' in done.stdout and ' 0 trials with findings' in done.stdout


@pytest.fixture
def cases(tmp_path):
    """Two commands: a mistake, whose output the script redirects, and a list of parts."""
    folder = tmp_path / 'cases' / '1_two_commands'
    folder.mkdir(parents=True)
    script = 'cd "$(dirname "$0")"\nseg_main --gin_file=ä.gin > log 2>&1\ngrep -q ä.gin log && seg_main --list=losses\n'
    (folder / 'run.sh').write_text(script, encoding='utf-8')
    return tmp_path / 'cases'


@pytest.mark.slow
def test_cases_are_compared_with_the_table(cases, tmp_path):
    table = tmp_path / 'expected.tsv'
    table.write_text(
        HEADER + '1\t1\t2\t--gin_file & ä.gin & !trains\ttold\n1\t2\t0|1\tdice\tlisted\n', encoding='utf-8'
    )
    done = tool('cases', cases, '--expected', table)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert '1 cases, 2 commands, 0 cases not as expected' in done.stdout

    table.write_text(HEADER + '1\t1\t0\tä.gin\ttold\n1\t2\t0\t!dice\tx\n1\t3\t0\t\tx\n', encoding='utf-8')
    done = tool('cases', cases, '--expected', table, '--only', '1')
    assert done.returncode == 1
    for finding in ('command 1: status 2', "command 2: says 'dice'", 'command 3 did not run'):
        assert finding in done.stdout, finding
