"""1 device = n devices: the same step, statistics and metrics for the same global batch."""

import os
import subprocess
import sys

import numpy as np
import pytest

from seg import registry
from tests.engine.tensorflow import equality_worker


@pytest.fixture(scope='module')
def numbers(tmp_path_factory):
    """What equality_worker computes on 1, 2 and 4 devices."""
    folder = tmp_path_factory.mktemp('equality')
    results = {}
    for n in (1, 2, 4):  # One after the other: each takes 2 GB.
        done = subprocess.run(
            [sys.executable, equality_worker.__file__, str(n), str(folder / f'run-{n}'), str(folder / f'{n}.npz')],
            text=True,
            stderr=subprocess.PIPE,
            env=os.environ | {'PYTHONPATH': os.getcwd()},
            timeout=1200,
        )
        assert done.returncode == 0, f'{n} devices:\n{done.stderr[-4000:]}'
        results[n] = dict(np.load(folder / f'{n}.npz'))
    return results


def part(numbers, prefix):
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def test_every_registered_model_is_compared():
    from seg import plugins

    plugins.load_builtins()
    assert registry.models.names() == ['cascade_rcnn', 'deeplab_v3plus', 'mask_rcnn'], (
        'add the new model to equality_worker.CASES'
    )


@pytest.mark.parametrize(
    'replicas, case',
    [(n, case) for n in (2, 4) for case in equality_worker.CASES_OF[n] if equality_worker.CASES[case][-1] == 'float64'],
)
def test_step_in_float64(numbers, replicas, case):
    one, other = part(numbers[1], f'{case}/'), part(numbers[replicas], f'{case}/')
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_frozen_layers_stay(numbers):
    """Weights and statistics; those of other layers do not."""
    before, after = part(numbers[2], 'cascade/before/model/'), part(numbers[2], 'cascade/after/model/')
    stay = {name for name, value in before.items() if np.array_equal(value, after[name])}
    frozen = {name for name in before if name.startswith('backbone/stage2_')}
    statistics = {name for name in before if name.startswith('backbone/') and 'moving' in name}
    assert frozen <= stay and statistics & frozen and statistics - frozen and not stay & (statistics - frozen)


@pytest.mark.parametrize('replicas', [2, 4])
def test_losses_in_float32_over_several_steps(numbers, replicas):
    one = numbers[1]['float32/result/losses']
    assert one.shape == (4, 3) and one[0, 0] > one[3, 0]
    np.testing.assert_allclose(numbers[replicas]['float32/result/losses'], one, rtol=1e-5)


def test_statistics_and_weights_move(numbers):
    """The comparison above is not one of things that stand still."""
    for case, moves in (('sync', True), ('frozen', False)):
        before, after = part(numbers[1], f'{case}/before/'), part(numbers[1], f'{case}/after/')
        statistics = [name for name in before if 'moving_' in name and name.startswith('model/')]
        assert statistics and all(np.array_equal(before[n], after[n]) != moves for n in statistics)
        kernels = [name for name in before if name.endswith('kernel') and name.startswith('model/')]
        assert all(not np.array_equal(before[name], after[name]) for name in kernels)


def test_ignored_and_padded_images_add_nothing(numbers):
    totals = numbers[4]['sync/result/totals']
    assert np.all(totals[0, [1, 3]] == 0) and np.all(totals[0, [0, 2]] > 0)


def test_a_replica_without_instances(numbers):
    """Of four devices one has an image without instances, and one only padding."""
    names = ['rpn_score', 'rpn_box', 'box_class', 'box_regression', 'mask']
    totals = numbers[4]['instances/result/totals'][0]
    assert totals.shape == (4, len(names))
    np.testing.assert_array_equal(totals[3], 0)
    np.testing.assert_array_equal(totals[1] > 0, [True, False, True, False, False])
    assert np.all(totals[[0, 2]] > 0)


@pytest.mark.parametrize('replicas', [2, 4])
@pytest.mark.parametrize('labels, name', [('', 'miou'), ('instances/', 'box_ap50')])
def test_metrics_with_a_ragged_last_batch(numbers, replicas, labels, name):
    """6 images in batches of 4."""
    one, other = part(numbers[1], f'{labels}metrics/'), part(numbers[replicas], f'{labels}metrics/')
    assert one.keys() == other.keys() and 0 <= one[name] < 1
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize('replicas', [2, 4])
def test_metrics_of_rows(numbers, replicas):
    """Rows of all replicas come to the host in order, those of padding and of an unreadable image do not."""
    one, other = part(numbers[1], 'rows/'), part(numbers[replicas], 'rows/')
    assert one == other and 0 < one['mask_ap'] < 1 and 0 < one['box_ap'] < 1


@pytest.mark.parametrize('replicas', [2, 4])
@pytest.mark.parametrize('prefix, chart', [('figures/', 'confusion_matrix'), ('row_figures/', 'class_ap')])
def test_images(numbers, replicas, prefix, chart):
    """The same images are picked from the replicas' shares, and look the same."""
    one, other = part(numbers[1], prefix), part(numbers[replicas], prefix)
    # Of the six images with rows two are fixed and one is unreadable; each of the others is drawn once.
    assert one.keys() == other.keys() and {'fixed/2', 'worst/2', 'best/1', chart} <= set(one)
    for tag, pixels in one.items():
        np.testing.assert_array_equal(other[tag], pixels, err_msg=tag)


def test_metrics_do_not_depend_on_the_batch_size(numbers):
    alone = part(numbers[1], 'alone/')
    for name, value in part(numbers[1], 'metrics/').items():
        assert alone[name] == pytest.approx(float(value), rel=1e-9), name


def test_gradient_matches_a_plain_tape(numbers):
    """The executor's step is that of the mean over the labelled pixels of the whole batch, written plainly."""
    before, after = part(numbers[1], 'sync/before/'), part(numbers[1], 'sync/after/')
    gradients = part(numbers[1], 'gradient/')
    assert len(gradients) > 20
    for name, gradient in gradients.items():
        rate = equality_worker.SETTINGS.part_rates.get(name.split('/')[1], 1.0)
        np.testing.assert_allclose(before[name] - after[name], rate * gradient, rtol=1e-8, atol=1e-10, err_msg=name)
