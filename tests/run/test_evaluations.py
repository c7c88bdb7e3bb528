"""Evaluations read from records: values of a wrong type, the best one, and the details of older runs."""

import json

import pytest

from seg.run import evaluations
from seg.run.evaluations import Evaluation
from seg.run.folder import RunFolder

LINE = {
    **{'kind': 'eval', 'step': 4, 'miou': 0.5, 'iou/a': 0.25, 'examples': 7, 'seconds': 2.0},
    **{'split': 'val', 'weights': 'ema', 'details': {'confusion': 'eval/confusion-val-4.json'}},
}


def test_a_line():
    assert evaluations.of_line(LINE) == Evaluation(
        step=4,
        metrics={'miou': 0.5, 'iou/a': 0.25},
        examples=7,
        seconds=2.0,
        images_per_second=3.5,
        split='val',
        weights='ema',
        details={'confusion': 'eval/confusion-val-4.json'},
    )


@pytest.mark.parametrize('odd', [None, True, [], {}, -1, 10**400, float('nan'), 'x'])
def test_odd_values_count_as_missing(odd):
    found = evaluations.of_line(LINE | {key: odd for key in LINE if key not in ('kind', 'step')})
    assert found.metrics.keys() <= {'miou', 'iou/a'} and found.weights == '' and found.details in ({}, None)
    assert found.examples is None and found.images_per_second is None
    results = {'step': 4, 'metrics': {'miou': odd}, 'examples': odd, 'eval_images_per_second': odd, 'settings': odd}
    assert evaluations.of_results(results).examples is None


def scored(*values):
    return [Evaluation(step=step, metrics={'score': value}) for step, value in enumerate(values)]


@pytest.mark.parametrize(('higher', 'step'), [(True, 1), (False, 3)])
def test_the_best_is_the_first_of_its_value(higher, step):
    found = [Evaluation(step=9, metrics={'other': 7.0}), *scored(0.5, 0.7, 0.7, 0.1, 0.1)]
    assert evaluations.best(found, 'score', higher).step == step
    assert evaluations.best(found, 'nothing', higher) is None


def test_details_of_older_runs_by_name(tmp_path):
    """Files of the training's split at two steps, and of another split and with another setting at one of them."""
    folder = RunFolder(str(tmp_path))
    (tmp_path / 'eval').mkdir()
    for name in ('val-4', 'val-8', 'a-test-8', 'val-8-12ab3f', 'only-2'):
        (tmp_path / 'eval' / f'confusion-{name}.json').write_text(json.dumps({}))
    (tmp_path / 'eval' / 'counts-val-8.json').write_text('{}')
    assert evaluations.details_by_name(folder, 8) == {'confusion': 'eval/confusion-val-8.json'}
    assert evaluations.details_by_name(folder, 2) == {'confusion': 'eval/confusion-only-2.json'}
    assert evaluations.details_by_name(folder, 8, 'val-8-12ab3f') == {'confusion': 'eval/confusion-val-8-12ab3f.json'}
    assert evaluations.details_by_name(folder, 6) == {} == evaluations.details_by_name(folder, 4, 'a-test-4')


def test_a_record_names_no_file_elsewhere(tmp_path):
    for place in (str(tmp_path), '.', 'runs/mine', '/'):
        folder = RunFolder(place)
        assert folder.named('eval/x-val-4.json').endswith('eval/x-val-4.json')
        assert place == '/' or folder.named('../x.json') is None is folder.named('/etc/x.json')
