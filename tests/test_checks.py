"""Checks that the parts of a run fit together."""

import types

import numpy as np
import pytest

from seg import checks
from seg.errors import UserError
from seg.metrics.mean_iou import MeanIoU
from tests.executor import runs

METRICS = [MeanIoU(num_classes=2, class_names=('ground', 'disc'), ignore_label=255)]


@pytest.mark.parametrize(
    ('name', 'losses', 'known'),
    [('miou', [], True), ('loss', ['dice'], True), ('loss/dice', ['dice'], True), ('loss', [], False),
     ('mask_ap', [], False), ('loss/dise', ['dice'], False), ('loss/dice', [], False)],
)  # fmt: skip
def test_the_best_metric_is_one_of_an_evaluation(name, losses, known):
    if known:
        checks.best_metric(name, METRICS, losses)
        return
    with pytest.raises(UserError) as caught:
        checks.best_metric(name, METRICS, losses)
    text = str(caught.value)
    assert f'RunConfig.best_metric = {name!r}' in text and 'iou/disc' in text
    assert ('loss, loss/dice' in text) == bool(losses) == ("Did you mean 'loss/dice'" in text)


def test_image_size():
    """Of a backbone for images of one size."""
    source = runs.fixed_input([{'image': np.zeros((2, 64, 96, 3), 'float32'), 'weight': np.ones(2, 'float32')}])
    backbone = types.SimpleNamespace(name='swin', image_size=(64, 96))
    checks.image_size(backbone, [source])
    checks.image_size(types.SimpleNamespace(name='resnet'), [source])
    backbone.image_size = (96, 96)
    with pytest.raises(UserError, match=r'swin .* 96 x 96 .* 64 x 96'):
        checks.image_size(backbone, [source])
