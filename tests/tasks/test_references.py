"""Losses, metrics and tasks are held against their contract before anything runs."""

import keras
import numpy as np
import pytest

from seg import registry
from seg.errors import UserError
from seg.metrics.base import RowMetric, SumMetric, higher_is_better
from seg.metrics.coco_ap import CocoAP
from seg.metrics.mean_iou import MeanIoU
from seg.registry import losses, metrics, models, tasks
from seg.structures import LossTerm
from seg.tasks.base import Task
from seg.tasks.references import TRIAL_IMAGES, build_losses, build_metrics, build_model, check_model

SUPPLIED = {'num_classes': 3, 'ignore_label': 255, 'class_histogram': None}


class Net(keras.Model):
    """A model that returns what a function makes of a batch."""

    def __init__(self, function):
        super().__init__()
        self.function, self.parts, self.output_stride = function, {}, 1

    def call(self, batch, training=False):
        return self.function(batch)


class Listed(Net):
    parts = property(lambda self: [], lambda self, value: None)


def try_model(model):
    """Builds and calls a model as a task does that needs `scores` [2, 4, …]."""
    with registry.temporary():

        @models.register('mine')
        def mine(*, num_classes):
            """Mine."""
            return model

        made, factory = build_model(mine, 'tasks.semantic.model', 3)
        check_model(factory, made, {'image': keras.KerasTensor((2, 4, 4, 3))}, False, {'scores': (2, 4, None)})


def test_a_model_that_keeps_the_contract():
    try_model(Net(lambda batch: {'scores': batch['image'][..., 0], 'others': batch['image']}))


@pytest.mark.parametrize(
    ('model', 'fault'),
    [
        (keras.Sequential(), 'returned a Sequential without parts and output_stride'),
        (Listed(lambda batch: batch), 'returned a Listed with parts = []'),
        (print, 'returned a builtin_function_or_method; expected a keras.models.Model'),
        (Net(lambda batch: batch['image']), 'returned a tensor of shape (2, 4, 4, 3) from call(batch, training=False)'),
        (Net(lambda batch: {'logits': batch['image']}), 'returned a dict of logits, without scores from call('),
        (Net(lambda batch: {'scores': batch['image']}), 'scores (2, 4, 4, 3)'),
        (Net(lambda batch: batch['depth']), 'call(batch, training=False) for a batch of image failed'),
    ],
)
def test_a_model_that_does_not(model, fault):
    with pytest.raises(UserError) as caught:
        try_model(model)
    text = str(caught.value)
    assert fault in text and text.startswith('tasks.semantic.model: @models.mine (') and 'test_references.py:' in text


def trial():
    """Outputs, batch and step without values."""
    shape = (TRIAL_IMAGES, 16, 16)
    outputs, batch = {'logits': keras.KerasTensor((*shape, 3))}, {'label': keras.KerasTensor(shape, 'int32')}
    return outputs, batch, keras.KerasTensor((), 'int32')


def build(loss, name='mine'):
    with registry.temporary():

        @losses.register(name)
        def mine():
            """Mine."""
            return loss

        return build_losses([mine], 'tasks.semantic.losses', 'label_map', trial, **SUPPLIED)


def per_image(outputs, batch, step):
    logits = outputs['logits']
    total = keras.ops.sum(logits, (1, 2, 3))
    return LossTerm(total, keras.ops.ones_like(total), {'pixels': total})


def test_a_loss_that_keeps_the_contract():
    assert list(build(per_image)) == ['mine']


def test_a_loss_with_the_name_of_the_penalty():
    with pytest.raises(UserError, match=r'losses\[0\]: @losses.l2 .*OptimizerStep.l2'):
        build(per_image, 'l2')


@pytest.mark.parametrize(
    ('loss', 'found'),
    [
        (lambda outputs, batch, step: keras.ops.mean(outputs['logits']), 'a tensor of shape ()'),
        (lambda outputs, batch, step: LossTerm(*[outputs['logits'][..., 0]] * 2), 'total (2, 16, 16)'),
        (lambda outputs, batch, step: LossTerm(outputs['logits'][:, 0, 0, 0], 1.0), 'weight ()'),
        (lambda outputs, batch, step: None, 'None'),
        (lambda outputs, batch, step: per_image(outputs, batch, step)._replace(counts={'n': 3.0}), 'n ()'),
    ],
)
def test_a_loss_that_does_not(loss, found):
    with pytest.raises(UserError) as caught:
        build(loss)
    text = str(caught.value)
    assert 'tasks.semantic.losses[0]: @losses.mine' in text and 'test_references.py:' in text
    assert f'returned {found}' in text and 'total [B] and weight [B]' in text


def test_a_loss_that_fails_names_the_line():
    with pytest.raises(UserError) as caught:
        build(lambda outputs, batch, step: batch['depth'])
    assert all(
        part in str(caught.value) for part in ("KeyError: 'depth'", 'loss(outputs, batch, step)', 'references.py:')
    )


@pytest.mark.parametrize('target', ['label_map', None, 'depth'])
def test_targets(target):
    with registry.temporary():

        @losses.register('aimed', target=target)
        def aimed():
            """Aimed."""
            return per_image

        if target == 'depth':
            with pytest.raises(UserError, match=r"losses\[0\]: @losses.aimed .*'depth'.*'label_map'"):
                build_losses([aimed], 'tasks.semantic.losses', 'label_map', trial, **SUPPLIED)
        else:
            assert list(build_losses([aimed], 'tasks.semantic.losses', 'label_map', trial, **SUPPLIED)) == ['aimed']


class Sums(SumMetric):
    def reset(self):
        pass

    def names(self):
        return ['error', 'share']

    def result(self):
        return {}

    def higher_is_better(self, name):
        return name != 'error'

    def update(self, batch, predictions):
        return {'sum': keras.ops.sum(predictions['value'])}

    def add(self, sums):
        pass


class Rows(Sums, RowMetric):
    def rows(self, batch, predictions):
        return {'rows': predictions['value'], 'sum': keras.ops.sum(predictions['value'])}


class NoDict(Sums):
    def update(self, batch, predictions):
        return keras.ops.sum(predictions['value'])


class Half(RowMetric):
    def reset(self):
        pass


@pytest.mark.parametrize(
    ('metric', 'found'),
    [
        (Sums, None),
        (Rows, 'sum () for 2 images'),
        (NoDict, 'a tensor of shape ()'),
        (Half, 'a Half without add, names, result, rows'),
        (object, 'a object'),
        (lambda: Sums, 'the class Sums'),
    ],
)
def test_metrics(metric, found):
    with registry.temporary():

        @metrics.register('mine')
        def mine():
            """Mine."""
            return metric()

        def given():
            return {}, {'value': keras.KerasTensor((TRIAL_IMAGES, 4))}

        if not found:
            (made,) = build_metrics([mine], 'tasks.depth.metrics', 'depth', given)
            assert [higher_is_better([made], name) for name in ('error', 'share', 'loss', 'loss/dice')] == [
                False, True, False, False,
            ]  # fmt: skip
            return
        with pytest.raises(UserError) as caught:
            build_metrics([mine], 'tasks.depth.metrics', 'depth', given)
        text = str(caught.value)
        assert 'tasks.depth.metrics[0]: @metrics.mine' in text and 'test_references.py:' in text
        assert f'returned {found}' in text


@pytest.mark.parametrize(
    ('name', 'number', 'also'), [('seconds', 1, 'record'), ('loss', 1, 'loss'), ('error', 2, '[0]')]
)
def test_names_of_scores_are_taken_once(name, number, also):
    class Named(Sums):
        def names(self):
            return [name]

    with registry.temporary():

        @metrics.register('mine')
        def mine():
            """Mine."""
            return Named()

        with pytest.raises(UserError) as caught:
            build_metrics(
                [mine] * number, 'tasks.depth.metrics', 'depth', lambda: ({}, {'value': keras.KerasTensor((2,))})
            )
    text = str(caught.value)
    assert f'tasks.depth.metrics[{number - 1}]: @metrics.mine' in text and repr(name) in text and also in text


def test_names_of_scores_are_a_list():
    class Text(Sums):
        def names(self):
            return 'error'

    with registry.temporary():

        @metrics.register('mine')
        def mine():
            """Mine."""
            return Text()

        with pytest.raises(UserError, match=r"metrics\[0\]: @metrics.mine .*'error' from names\(\)"):
            build_metrics([mine], 'tasks.depth.metrics', 'depth', lambda: ({}, {}))


def test_an_object_that_is_no_task():
    class Part(Task):
        def __init__(self):
            super().__init__(checkpoint_items={}, inputs=lambda: None, metrics=[])

    with registry.temporary():
        for built, found in (
            (Part, 'a Part without figure, image_scores, loss_terms, predict, writer'),
            (dict, 'a dict'),
        ):

            @tasks.register('mine', target='depth')
            def mine(*, dataset_info):
                """Mine."""
                return built()  # noqa: B023

            with pytest.raises(UserError) as caught:
                tasks.check(mine, 'experiment.task').make(Task, dataset_info=None)
            text = str(caught.value)
            assert (
                'experiment.task: @tasks.mine' in text and f'returned {found}' in text and 'seg.tasks.base.Task' in text
            )


def test_metrics_know_their_names():
    names = ('background', 'disc')
    metric = MeanIoU(num_classes=2, class_names=names, ignore_label=255)
    metric.confusion = np.array([[5, 1], [2, 3]])
    assert set(metric.result()) == set(metric.names())
    expected = {'box_ap', 'mask_ap50', 'mask_ar_small', 'box_ar20', 'f1', 'mask_ap/disc'}
    assert expected <= set(CocoAP(num_classes=2, class_names=names, max_detections=20).names())


def test_inputs_that_are_no_function():
    class Part(Task):
        figure = image_scores = loss_terms = predict = writer = None

    with pytest.raises(UserError, match="Part: inputs = 'inputs'; expected a function"):
        Part(checkpoint_items={}, inputs='inputs', metrics=[])
