"""Metrics that compare on the host: which rows and which truth they get, and that batches do not matter."""

import pytest

from seg.engine.tensorflow.engine import TensorFlowEngine
from seg.errors import UserError
from seg.executor.evaluator import Evaluator
from seg.metrics.base import RowMetric, SumMetric
from seg.metrics.coco_ap import CocoAP
from tests.executor import runs
from tests.metrics import scenes

NAMES = ('a', 'b', 'c', 'd')


class Rows(RowMetric):
    """Keeps its arguments."""

    def reset(self):
        self.found = []

    def names(self):
        return ['rows']

    def rows(self, batch, predictions):
        return {'index': batch['index'], 'scores': predictions['scores']}

    def add(self, rows, truth):
        self.found += list(zip(rows['index'].tolist(), rows['scores'][:, 0].tolist(), truth, strict=True))

    def result(self):
        return {'rows': len(self.found)}


@pytest.fixture(scope='module')
def made():
    return scenes.make(0, images=7)


def evaluate(metric, source, num_pictures=0, jit=False):
    return Evaluator(scenes.Finder(metric), TensorFlowEngine(runs.strategy(1), jit_compile=jit)).evaluate(
        source, num_pictures
    )


@pytest.mark.parametrize('batch_size', [1, 3, 7])
def test_every_image_that_counts_is_given_once_with_its_truth(made, batch_size):
    truth, values = made
    metric = Rows()
    found = evaluate(metric, scenes.source(truth, values, batch_size, unread=(4,)))
    expected = [(i, float(values['scores'][i, 0])) for i in range(7) if i != 4]
    assert [(index, score) for index, score, _ in metric.found] == expected
    assert all(given is truth[index] for index, _, given in metric.found)
    assert found.examples == found.metrics['rows'] == 6
    assert 'loss' not in found.metrics, 'a task without losses has none'


def test_a_score_that_the_metric_does_not_list(made):
    class Hidden(Rows):
        def names(self):
            return ['pixels']

    with pytest.raises(UserError, match='Hidden: .* rows, .*names()'):
        evaluate(Hidden(), scenes.source(*made, 7))


class FailsInAdd(Rows):
    def add(self, rows, truth):
        return rows['boxes']


class FailsInResult(Rows):
    def result(self):
        return {'rows': 1 / 0}


class GivesNoNumber(Rows):
    def result(self):
        return {'rows': 'many'}


@pytest.mark.parametrize(
    ('metric', 'method', 'fault'),
    [
        (FailsInAdd, 'add', "KeyError: 'boxes'"),
        (FailsInResult, 'result', 'ZeroDivisionError'),
        (GivesNoNumber, 'result', "{'rows': 'many'}"),
    ],
)
def test_a_metric_that_fails_on_the_host_names_the_line(made, metric, method, fault):
    with pytest.raises(UserError) as caught:
        evaluate(metric(), scenes.source(*made, 7))
    text = str(caught.value)
    assert f'{metric.__name__}: {method}' in text and fault in text
    if metric is not GivesNoNumber:
        line = getattr(metric, method).__code__.co_firstlineno + 1
        assert f'tests/executor/test_evaluator.py:{line}: ' in text


def test_a_metric_from_a_setting_is_named_by_it(made):
    metric = FailsInAdd()
    metric.origin = 'tasks.instance.metrics[0]: @metrics.mine'
    with pytest.raises(UserError, match=r'^tasks.instance.metrics\[0\]: @metrics.mine: add failed, .*boxes'):
        evaluate(metric, scenes.source(*made, 7))


def test_a_figure_without_panels_names_the_task(made, monkeypatch):
    monkeypatch.delattr(scenes.Drawn, 'panels')
    with pytest.raises(UserError, match=r'scenes.Finder.figure .*Drawn.* panels'):
        evaluate(Rows(), scenes.source(*made, 7), 1)


@pytest.mark.parametrize('jit', [False, True])
def test_scores_are_those_of_the_metric_alone(made, jit):
    """Boxes come back from a canvas of half the size."""
    truth, values = made
    alone = CocoAP(num_classes=4, class_names=NAMES)
    alone.add(values, truth)
    found = evaluate(CocoAP(num_classes=4, class_names=NAMES), scenes.source(truth, values, 4), 2, jit)
    assert found.metrics == pytest.approx(alone.result(), abs=1e-9)
    assert found.details == alone.details()
    tags = [image.tag for image in found.figures]
    assert tags[:2] == ['fixed/1', 'fixed/2'] and tags[-3:] == ['precision_recall', 'class_ap', 'score_histogram']
    assert found.figures[0].pixels.shape == (truth[0].height, truth[0].width, 3), 'drawn with its truth'


def test_metrics_of_both_forms_side_by_side(made):
    truth, values = made

    class Sum(SumMetric):
        def names(self):
            return ['sum']

        def reset(self):
            self.sum = 0.0

        def update(self, batch, predictions):
            return {'sum': predictions['scores'][0, 0]}

        def add(self, values):
            self.sum += float(values['sum'])

        def result(self):
            return {'sum': self.sum}

    task, rows = scenes.Finder(Rows()), Rows()
    task._metrics = [rows, Sum(), Rows()]
    found = Evaluator(task, TensorFlowEngine(runs.strategy(1))).evaluate(scenes.source(truth, values, 2))
    assert found.metrics['rows'] == 7
    assert found.metrics['sum'] == pytest.approx(values['scores'][[0, 2, 4, 6], 0].sum())
