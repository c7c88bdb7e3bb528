"""The settings classes, merge and void: one class for each name in the files."""

import numpy as np
import pytest

from seg.datasets.class_maps import VOID, class_map, ignored_values
from seg.errors import UserError

NAMES = ('sky', 'road', 'car', 'truck', 'pole')


def made(**settings):
    return class_map('datasets.mine', NAMES, **settings)


def refused(**settings):
    with pytest.raises(UserError) as caught:
        made(**settings)
    return str(caught.value)


def test_without_settings_nothing_changes():
    found = made()
    assert found.changes_nothing and found.names == NAMES and found.origins == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(found.ids, range(5))
    assert found.ids.dtype == np.int32


def test_merge_keeps_the_place_of_an_old_name_and_of_the_first_of_a_new_one():
    old = made(merge={'truck': 'car'})
    assert old.names == ('sky', 'road', 'car', 'pole') and old.ids.tolist() == [0, 1, 2, 2, 3]
    assert old.origins == (0, 1, 2, 4) and not old.changes_nothing
    new = made(merge={'truck': 'vehicle', 'car': 'vehicle'})
    assert new.names == ('sky', 'road', 'vehicle', 'pole') and new.ids.tolist() == [0, 1, 2, 2, 3]
    assert new.origins == (0, 1, 2, 4)
    later = made(merge={'sky': 'pole'})  # The place of the first name, the id and the colour of its own.
    assert later.names == ('pole', 'road', 'car', 'truck') and later.origins == (4, 1, 2, 3)


def test_void_and_classes():
    assert made(void=('road',)).ids.tolist() == [0, VOID, 1, 2, 3]
    found = made(classes=['pole', 'vehicle'], merge={'truck': 'vehicle', 'car': 'vehicle'}, void=['sky'])
    assert found.names == ('pole', 'vehicle') and found.ids.tolist() == [VOID, VOID, 1, 1, 0]
    assert found.origins == (4, 2)


def test_a_name_may_be_swapped_for_another():
    found = made(merge={'car': 'auto'})
    assert found.names == ('sky', 'road', 'auto', 'truck', 'pole') and not set(found.ids) - set(range(5))


@pytest.mark.parametrize(
    'settings, slot, value',
    [
        ({'merge': {'cra': 'road'}}, "datasets.mine.merge['cra']", "'car'"),
        ({'merge': {'car': 3}}, "datasets.mine.merge['car']", '3'),
        ({'merge': ['car']}, 'datasets.mine.merge', "['car']"),
        ({'merge': {'car': 'truck', 'truck': 'pole'}}, "datasets.mine.merge['car']", "'pole'"),
        ({'merge': {'car': 'truck'}, 'void': ['truck']}, "datasets.mine.merge['car']", "'truck'"),
        ({'merge': {'car': 'truck'}, 'void': ['car']}, 'datasets.mine.void', "'car'"),
        ({'void': 'car'}, 'datasets.mine.void', "'car'"),
        ({'void': NAMES}, 'datasets.mine.void', '5'),
        ({'classes': ()}, 'datasets.mine.classes', '()'),
        ({'classes': ['car', 'car']}, 'datasets.mine.classes', "'car' twice"),
        ({'classes': ['truck'], 'merge': {'truck': 'car'}}, 'datasets.mine.classes', "'truck'"),
        ({'classes': [1]}, 'datasets.mine.classes', '[1]'),
    ],
)
def test_wrong_settings(settings, slot, value):
    message = refused(**settings)
    assert message.startswith(slot) and value in message


def test_ignored_values():
    assert ignored_values('datasets.mine', [0, 254]) == (0, 254)
    for values, slot in ((255, 'ignore_values = 255'), ((2**16,), 'ignore_values[0]'), ((1.5,), 'ignore_values[0]')):
        with pytest.raises(UserError, match='datasets.mine') as caught:
            ignored_values('datasets.mine', values)
        assert slot in str(caught.value)
