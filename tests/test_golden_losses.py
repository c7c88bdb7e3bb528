"""Short trainings in float64: losses, counts, norms and metrics are those of tests/golden/losses.json."""

import json

import pytest

from tools import golden


@pytest.mark.parametrize('name', golden.TRAININGS)
def test_training_goes_as_before(name, tmp_path):
    kept = json.loads(golden.LOSSES.read_text(encoding='utf-8'))
    changes = golden.changes(kept[name], golden.train(name, tmp_path / 'run'))
    assert not changes, '\n'.join(
        [f'{name} has changed:', *changes[:20], f'{len(changes)} numbers in all.', golden.ADVICE]
    )


def test_no_other_training_is_kept():
    assert list(json.loads(golden.LOSSES.read_text(encoding='utf-8'))) == list(golden.TRAININGS), golden.ADVICE
