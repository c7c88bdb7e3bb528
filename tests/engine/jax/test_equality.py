"""JAX on 1 device = on 4 = on 2 in each of 2 processes = TensorFlow: three steps in float64, and by turns."""

import collections
import re

import numpy as np
import pytest

from tests.engine.jax.both import Both


# Compiling takes long: a Mask R-CNN's step is compared on 4 devices alone.
@pytest.fixture(
    scope='module', params=[('deeplab_sync_sgd', '1', '4', '2x2'), ('rcnn_frozen_adamw', '4')], ids=lambda p: p[0]
)
def both(request, tmp_path_factory):
    case, *places = request.param
    made = Both(case, tmp_path_factory.mktemp(case), places)
    made.case = case
    return made


def test_steps_are_equal(both):
    """On all devices and with TensorFlow, also after a change of the engine.

    Of the four images one has no label or instance, and one is padding.
    """
    distances = both.distances()
    assert len(distances) == (10 if 'deeplab' in both.case else 4)
    assert {pair: found for pair, found in distances.items() if found[0] > 1e-9} == {}


def test_weights_averages_and_slots_move(both):
    """The comparison above is not one of things that stand still."""
    end, middle = both.end['4']['end'], both.end['4']['middle']
    moving = collections.Counter(
        name.split('/')[1] for name in end if name.startswith('state/') and not np.array_equal(end[name], middle[name])
    )
    assert min(moving[kind] for kind in ('model', 'ema', 'optimizer')) > 40
    assert np.all(end['result/totals'][0, 3] == 0) and np.all(end['result/losses'][:, 0] > 0)


def collectives(text):
    """Of the operations between devices in a compiled program: kinds, and whether each is in a loop."""
    own, calls, loops, found = '', collections.defaultdict(set), set(), []
    for line in text.splitlines():
        if head := re.match(r'(?:ENTRY )?%?([\w.\-]+) .*\{$', line):
            own = head[1]
        calls[own].update(re.findall(r'(?:to_apply|calls|body|condition)=%?([\w.\-]+)', line))
        loops.update(re.findall(r'(?:body|condition)=%?([\w.\-]+)', line))
        if operation := re.search(
            r' (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(', line
        ):
            found.append((operation[1], own))
    inside, todo = set(), list(loops)
    while todo:
        if (name := todo.pop()) not in inside:
            inside.add(name)
            todo += calls[name]
    return [(kind, place in inside) for kind, place in found]


def test_what_devices_exchange(both):
    """Two sums (the normalisers; then gradients, losses and counts), and for sync batch norm one in each direction.

    XLA merges some of them.
    """
    found = collectives(both.text)
    assert {kind for kind, _ in found} == {'all-reduce'} and not any(in_loop for _, in_loop in found)
    layers = len([name for name in both.end['4']['end'] if re.match(r'state/model/.*/moving_mean', name)])
    assert layers > 15 and len(found) <= 2 + (2 * layers if 'sync' in both.case else 0)
