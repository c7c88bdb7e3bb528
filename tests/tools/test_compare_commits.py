"""Differences between the runs of two commits are reported by name, values and units in the last place."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from tools import compare_commits
from tools.compare_commits import differences

UP = np.float32(0.1) + np.spacing(np.float32(0.1))


@pytest.mark.parametrize(
    ('old', 'new', 'told'),
    [
        (float(np.float32(0.1)), float(UP), ': 0.10000000149011612 -> 0.10000000894069672 (1 ULPs)'),
        (0.1, 0.1 + 2**-55, ': 0.1 -> 0.10000000000000003 (2 ULPs)'),
        (0.0, -0.0, ': 0.0 -> -0.0 (1 ULPs)'),
        (np.float32([[1, 0.1]]), np.float32([[1, UP]]), '[0, 1]: 0.1'),
        (np.float16([-1, 1]), np.float16([-1.002, 1]), '[0]: -1.0 -> -1.001953125 (2 ULPs)'),
        (np.uint8([3, 4]), np.uint8([3, 5]), '[1]: 4 -> 5'),
        (np.zeros(2), np.zeros((1, 2)), ': float64 (2,) -> float64 (1, 2)'),
        (None, 0.5, ': None -> 0.5'),
        ('disc', 'ring', ': disc -> ring'),
    ],
)
def test_a_difference_in_any_bit_is_reported(old, new, told):
    (line,) = differences({'same': 1, 'x': old}, {'same': 1, 'x': new})
    assert line.startswith(f'x{told}')


def test_equal_entries_are_not_reported():
    one = {'nan': float('nan'), 'loss': 0.1, 'weights': np.float32([np.nan, -0.0]), 'id': 3, 'name': 'disc', 'no': None}
    assert differences(one, {key: np.copy(v) if isinstance(v, np.ndarray) else v for key, v in one.items()}) == []


def test_an_entry_of_one_side_is_reported_in_order():
    lines = differences({'a': 1, 'b': 2}, {'b': 3, 'c': 4})
    assert lines == ['a: only in the old one', 'b: 2 -> 3', 'c: only in the new one']


def test_entries_of_a_run(tmp_path):
    lines = [
        {'kind': 'train', 'step': 1, 'loss': 2.0, 'images_per_second': 3.0, 'host_memory_mb': 9.0},
        {'kind': 'eval', 'step': 1, 'miou': 0.5, 'none': None, 'seconds': 1.5},
    ]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    for step in (1, 2):
        save_file({'head/w': np.float32([step])}, tmp_path / f'ckpt-{step:08}.safetensors')
    output = tmp_path / 'predictions' / 'val'
    output.mkdir(parents=True)
    (output / 'predictions.jsonl').write_text('{"count": 2}\n{"count": 3}\n')
    (output / 'detections.json').write_text('[{"score": 0.5},\n {"score": 0.25}]')
    np.savez(output / '0.npz', probabilities=np.float16([1]))
    found = compare_commits.entries(tmp_path)
    assert list(found) == [
        'train/1/loss', 'weights/head/w', 'eval/1/miou', 'eval/1/none', 'predictions/val/0.npz/probabilities',
        'predictions/val/detections.json/0/0/score', 'predictions/val/detections.json/0/1/score',
        'predictions/val/predictions.jsonl/0/count', 'predictions/val/predictions.jsonl/1/count',
    ]  # fmt: skip
    assert found['weights/head/w'] == [2]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('no-such-commit', 'HEAD'), "'no-such-commit' is not a commit"),
        (('a', 'b', '--only=x'), '--only=x: expected some of'),
    ],
)
def test_a_mistake_has_one_message(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['compare_commits.py', *arguments])
    assert compare_commits.main() == 2
    assert capsys.readouterr().err.startswith(f'compare_commits.py: {message}')
