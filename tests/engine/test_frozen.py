"""Parts of a model that are not trained."""

import keras
import numpy as np
import pytest

from seg.engine.frozen import freeze
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError
from seg.layers.norm import BatchNorm
from seg.run.settings import model_info, trainable
from tests.executor import linear


def parts():
    """A backbone of two blocks, each a layer and its normalisation, and a head."""
    x = image = keras.Input((1, 1, 3))
    for name in ('stage1', 'stage2'):
        x = keras.layers.Dense(4, name=f'{name}_conv')(x)
        x = BatchNorm(momentum=0.5, epsilon=1e-3, name=f'{name}_norm')(x)
    head = keras.layers.Dense(2, name='logits')
    head.build((None, 4))
    return {'backbone': keras.Model(image, x, name='backbone'), 'head': head}


def trained(made):
    return [f'{part}/{v.path}' for part, layer in made.items() for v in layer.trainable_variables]


FIRST = [f'backbone/stage1_{name}' for name in ('conv/kernel', 'conv/bias', 'norm/gamma', 'norm/beta')]
SECOND = [name.replace('stage1', 'stage2') for name in FIRST]
HEAD = ['head/logits/kernel', 'head/logits/bias']


@pytest.mark.parametrize(
    'patterns, left',
    [
        (['backbone'], HEAD),
        (['backbone/stage1_*'], [*SECOND, *HEAD]),
        (['backbone/stage1_conv', 'head'], [*FIRST[2:], *SECOND]),
        (['*/bias'], [name for name in FIRST + SECOND + HEAD if not name.endswith('bias')]),
        (['backbone/stage1_norm/gamma'], [name for name in FIRST + SECOND + HEAD if name != FIRST[2]]),
    ],
)
def test_patterns(patterns, left):
    made = parts()
    freeze(made, patterns)
    assert trained(made) == left


def test_statistics_stay_where_nothing_of_the_layer_is_trained():
    made = parts()
    freeze(made, ['backbone/stage1_*', 'backbone/stage2_norm/beta'])
    norms = {layer.name: layer for layer in made['backbone'].layers if layer.name.endswith('norm')}
    assert norms['stage1_norm'].is_stored(training=True) and not norms['stage2_norm'].is_stored(training=True)
    before = {v.path: v.numpy() for v in made['backbone'].variables}
    made['backbone'](np.ones((2, 1, 1, 3)), training=True)
    moved = [v.path for v in made['backbone'].variables if not np.array_equal(before[v.path], v.numpy())]
    assert moved == ['stage2_norm/moving_mean', 'stage2_norm/moving_variance']


def test_what_is_trained_is_counted():
    made = parts()
    assert trainable(made.values()) == '62 trainable weights of 78, in 10 of 14 variables'
    freeze(made, ['backbone'])
    lines = model_info(made).splitlines()
    assert lines[0] == '10 trainable weights of 78, in 2 of 14 variables'
    assert lines[1] == 'backbone: 0 trainable weights of 68, in 0 of 12 variables'
    assert '  stage1_conv/kernel (3, 4) (not trained)' in lines


@pytest.mark.parametrize('pattern, hint', [('bakbone', "'backbone'"), ('backbone/stage3_*', "'backbone/stage")])
def test_pattern_that_matches_nothing(pattern, hint):
    with pytest.raises(UserError) as caught:
        freeze(parts(), [pattern])
    text = str(caught.value)
    assert 'OptimizerStep.frozen' in text and repr(pattern) in text and hint in text and 'model_info.txt' in text


def test_nothing_is_left():
    with pytest.raises(UserError, match='OptimizerStep.frozen = .*nothing is left'):
        freeze(parts(), ['backbone', 'head'])


def test_training_with_a_frozen_layer(tmp_path):
    """Its variables, statistics and averages stay in every step, and it has no slot; the others move."""
    from seg.engine import precision

    precision.set_precision('float64')
    try:
        made = linear.executor(tmp_path, step=OptimizerStep(frozen=['net/net/norm'], ema_decay=0.5, l2=0.1))
        made.build_trainer()
        before = made.trainer.to_host()
        made.train(linear.training_input(linear.Table()), 2)
        after = made.trainer.to_host()
    finally:
        precision.set_precision('float32')
    assert before.keys() == after.keys() and not any('norm' in name for name in after if name.startswith('optimizer/'))
    same = {name for name in after if np.array_equal(before[name], after[name])}
    assert {name for name in after if '/norm/' in name} == {
        name for name in same if name.startswith(('model/', 'ema/'))
    }
