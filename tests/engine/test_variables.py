"""Names of a run's variables in checkpoints."""

import keras
import numpy as np
import pytest

from seg.engine.variables import Variables
from seg.optimizers.sgd import SGD

MAKERS = {
    'sgd': lambda: SGD(0.1),
    'momentum': lambda: SGD(0.1, momentum=0.9),
    'adamw': lambda: keras.optimizers.AdamW(0.1),
    'rmsprop': lambda: keras.optimizers.RMSprop(0.1, momentum=0.5),
}
SLOTS = {'sgd': (), 'momentum': ('velocity',), 'adamw': ('momentum', 'velocity'), 'rmsprop': ('velocity', 'momentum')}


def layer(units, name='dense'):
    made = keras.layers.Dense(units, name=name)
    made.build((None, 3))
    return made


def named(parts, maker):
    """Variables of these parts, of which the optimizer's hold the number of their weights."""
    variables = Variables(parts, MAKERS[maker]())
    for variable in variables.optimizer.values():
        if variable.shape:
            variable.assign(np.full(variable.shape, np.prod(variable.shape)))
    return variables


@pytest.mark.parametrize('maker', MAKERS)
def test_names_do_not_depend_on_the_order(maker):
    """Nor on layers of the same path in two parts."""
    one = named({'head': layer(2), 'aux': layer(5), 'other': layer(7, 'dense_more')}, maker)
    other = named({'other': layer(7, 'dense_more'), 'aux': layer(5), 'head': layer(2)}, maker)
    owners = [f'{part}/kernel' for part in ('head/dense', 'aux/dense', 'other/dense_more')]
    assert one.optimizer.keys() == other.optimizer.keys() >= {'iteration', 'learning_rate'}
    assert {n for n in one.optimizer if n.endswith('kernel')} == {f'{s}/{o}' for s in SLOTS[maker] for o in owners}
    for name, variable in one.optimizer.items():
        assert variable.shape == other.optimizer[name].shape
        np.testing.assert_array_equal(variable, other.optimizer[name], name)
