"""What a task's losses return is held against their contract before anything runs."""

import keras
import numpy as np
import pytest

from seg import registry
from seg.errors import UserError
from seg.metrics.coco_ap import CocoAP
from seg.metrics.mean_iou import MeanIoU
from seg.registry import losses
from seg.structures import LossTerm
from seg.tasks.references import TRIAL_IMAGES, build_losses

SUPPLIED = {'num_classes': 3, 'ignore_label': 255, 'class_histogram': None}


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


def test_metrics_know_their_names():
    names = ('background', 'disc')
    metric = MeanIoU(num_classes=2, class_names=names, ignore_label=255)
    metric.confusion = np.array([[5, 1], [2, 3]])
    assert set(metric.result()) == set(metric.names())
    expected = {'box_ap', 'mask_ap50', 'mask_ar_small', 'box_ar20', 'f1', 'mask_ap/disc'}
    assert expected <= set(CocoAP(num_classes=2, class_names=names, max_detections=20).names())
