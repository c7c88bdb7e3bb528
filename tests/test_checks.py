"""Checks that the parts of a run fit together."""

import pytest

from seg import checks
from seg.errors import UserError
from seg.metrics.mean_iou import MeanIoU

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
