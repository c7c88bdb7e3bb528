"""The settings of a training step beside the optimizer."""

import pytest

from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError


@pytest.mark.parametrize(
    'settings', [{'l2': -1e-4}, {'clip_norm': 0}, {'clip_norm': -1.0}, {'ema_decay': 0.0}, {'ema_decay': 1.0}]
)
def test_optimizer_step(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f'OptimizerStep.{name} = '):
        OptimizerStep(**settings)


@pytest.mark.parametrize('rate', [-0.1, '0.1', float('nan'), 0, 0.0])
def test_rates_of_parts(rate):
    """0 is refused: to freeze a part is a setting of its own."""
    with pytest.raises(UserError, match=r"OptimizerStep.part_rates\['backbone'\] = "):
        OptimizerStep(part_rates={'backbone': rate})


@pytest.mark.parametrize('frozen', ['backbone', [1], [''], {'backbone': True}])
def test_frozen(frozen):
    with pytest.raises(UserError, match='OptimizerStep.frozen = '):
        OptimizerStep(frozen=frozen)
