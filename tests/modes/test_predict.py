"""The writer of predictions that a task makes."""

import inspect

import pytest

from seg.errors import UserError
from seg.prediction.outputs import Outputs
from seg.serving import model
from seg.structures import DatasetInfo


class Halved(Outputs):
    def plan(self, image, canvas):
        return None


def writer(make):
    """The writer of `--mode=predict` for a task whose method `writer` is `make`."""
    task = type('Mine', (), {'writer': lambda self, *arguments: make(*arguments)})()
    return model.task_writer(task, DatasetInfo('mine/train', (), 1, (8, 8)), 'out', None, False)


def test_a_writer_without_its_methods():
    with pytest.raises(UserError) as caught:
        writer(lambda folder, info, settings, probabilities: Halved(folder, info))
    place = f'tests/modes/test_predict.py:{caught_line(test_a_writer_without_its_methods, "Halved(folder")}'
    assert all(part in str(caught.value) for part in ('Mine.writer', place, 'Halved', 'prediction_bytes', 'write'))


def test_a_writer_of_another_type():
    with pytest.raises(UserError) as caught:
        writer(lambda *arguments: 7)
    assert all(part in str(caught.value) for part in ('Mine.writer', '7', 'seg.prediction.outputs.Outputs'))


def caught_line(function, text):
    """The number of the line with a text in a function."""
    code = inspect.getsource(function).splitlines()
    return function.__code__.co_firstlineno + next(i for i, line in enumerate(code) if text in line)
