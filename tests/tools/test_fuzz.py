"""The fuzz campaign: a short one of every format, and its handling of findings."""

import importlib
import json
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'fuzz.py'


def fuzz(*given):
    command = [sys.executable, str(TOOL), *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def rows(done):
    """{format: [tried, values, findings]} of the printed table."""
    lines = [line.split() for line in done.stdout.splitlines()]
    start = next(i for i, line in enumerate(lines) if line[:2] == ['format', 'tried'])
    return {line[0]: list(map(int, line[1:4])) for line in lines[start + 1 :]}


@pytest.mark.parametrize(
    'names',
    [
        *('pth,safetensors,h5', 'coco,labelme,yolo', 'image,label'),
        *(
            pytest.param(names, marks=pytest.mark.slow)
            for names in ('folders,cityscapes', 'tfrecord,arrayrecord', 'run')
        ),
    ],
)
def test_a_hundred_mutations(tmp_path, names):
    done = fuzz('--mutations', 100, '--formats', names, '--keep', tmp_path / 'kept')
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done)
    assert list(found) == names.split(',') and not (tmp_path / 'kept').exists()
    for name, (tried, values, findings) in found.items():
        assert tried == 100 and 0 < values < 100 and not findings, name


@pytest.mark.slow
def test_the_whole_campaign(tmp_path):
    done = fuzz('--keep', tmp_path / 'kept')
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(tried == 3000 for tried, _, _ in rows(done).values())


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    return importlib.import_module('fuzz'), importlib.import_module('fuzz_formats')


def test_numbers_give_the_same_file(tool, tmp_path):
    campaign, formats = tool
    made = formats.make('coco', tmp_path)
    first = [campaign.mutated(made.seeds, 0, 'coco', number) for number in range(40)]
    again = [campaign.mutated(made.seeds, 0, 'coco', number) for number in reversed(range(40))]
    assert first == again[::-1] and len({content for _, content in first}) > 30


@pytest.mark.parametrize(
    ('fault', 'what'),
    [
        ('raise KeyError("x")', 'KeyError'),
        ('b"1" * (100 << 20)', 'MB of memory'),
        ('b"1" * (5 << 30)', 'MemoryError'),
        ('sum(range(10**8))', 'CPU time'),
        ('os.kill(os.getpid(), 11)', 'the process died, status -11'),
        pytest.param('while True: pass', 'too long', marks=pytest.mark.slow),
    ],
)
def test_findings(tool, tmp_path, monkeypatch, fault, what):
    """A format whose reader has the fault at every file that begins with an odd byte; the others go on."""
    campaign, _ = tool
    worker = tmp_path / 'worker.py'
    worker.write_text(
        f'import os, random, sys\nsys.path[:0] = [{str(TOOL.parent)!r}]\nimport fuzz, fuzz_formats as f\n'
        f'def read(path):\n    if open(path, "rb").read(1)[0] % 2:\n        {fault}\n'
        'def change(draw, content): return bytes([draw.randrange(2)])\n'
        'def make(name, folder): return f.Format([f.Seed("a.bin", b"\\0", (change,))], read, (ValueError,))\n'
        'fuzz._CPU, fuzz._MEMORY, fuzz.make = 0.5, 50 << 20, make\nf.FORMATS["odd"] = make\nsys.exit(fuzz.main())\n'
    )
    monkeypatch.setattr(campaign, '__file__', str(worker))
    monkeypatch.setattr(campaign, '_CPU', 1.0)
    tally = campaign.campaign('odd', 0, range(3), tmp_path / 'kept')
    assert tally.ends.total() == 3 and 0 < len(tally.findings) < 3
    for number, told, file in tally.findings:
        assert what in told and pathlib.Path(file).read_bytes() == b'\1', (number, told)


def test_unknown_format():
    done = fuzz('--formats', 'npz')
    assert done.returncode == 2 and 'npz' in done.stderr and 'safetensors' in done.stderr


def test_of_json_reaches_every_value(tool):
    mutations = importlib.import_module('fuzz_mutations')
    content = json.dumps({'a': [1, {'b': None}], 'c': 'd'}).encode()
    changed = {mutations.of_json(random.Random(i), content) for i in range(300)}
    assert len(changed) > 150 and any(b'[' * 5000 in each for each in changed)
