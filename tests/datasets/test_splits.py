"""Members of splits: by fractions, folders and lists, for any order of the names."""

import random

import pytest

from seg.datasets import splits
from seg.errors import UserError

NAMES = [f'video{i // 10:02}_{i % 10}' for i in range(200)]


def members(names, split, **settings):
    return {names[i] for i in splits.by_fraction('datasets.mine', names, split, **settings)}


def refused(call, *args, **settings):
    with pytest.raises(UserError) as caught:
        call(*args, **settings)
    return str(caught.value)


def test_fractions_divide_the_names_whatever_their_order():
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    three = {'train': 0.7, 'val': 0.2, 'test': 0.1}
    found = [members(NAMES, split, fractions=three) for split in three]
    assert [len(each) for each in found] == [140, 40, 20] and set().union(*found) == set(NAMES)
    assert [members(shuffled, split, fractions=three) for split in three] == found
    assert members(NAMES, 'val+test', fractions=three) == found[1] | found[2]
    assert members(NAMES, 'val') != members(NAMES, 'val', seed=1)
    assert splits.by_fraction('datasets.mine', NAMES, 'val') == sorted(
        splits.by_fraction('datasets.mine', NAMES, 'val')
    )


def test_an_added_name_moves_few_others():
    before, after = members(NAMES, 'val'), members([*NAMES, 'late'], 'val')
    assert len(before ^ after) <= 2


def test_groups_stay_together():
    for pattern in (r'^(.*)_\d+$', r'^video\d+'):
        found = members(NAMES, 'val', groups=pattern)
        assert len({name[:7] for name in found}) == 4 and len(found) == 40
    message = refused(members, [*NAMES, 'other'], 'val', groups=r'^(video\d+)')
    assert 'datasets.mine.groups' in message and "'other'" in message and '1 of 201' in message


def test_composed_and_decomposed_names_are_divided_alike():
    composed, apart = [f'{i}\xe9' for i in range(20)], [f'{i}e\u0301' for i in range(20)]
    found = [splits.by_fraction('datasets.mine', names, 'val') for names in (composed, apart)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    'settings, slot',
    [
        ({'fractions': {'train': 0.5, 'val': 0.4}}, 'datasets.mine.fractions'),
        ({'fractions': {'train': 1.2, 'val': -0.2}}, "datasets.mine.fractions['train']"),
        ({'fractions': {'train': 1.0, 'val': 0.0}}, "datasets.mine.fractions['val']"),
        ({'fractions': 0.2}, 'datasets.mine.fractions'),
        ({'groups': '('}, 'datasets.mine.groups'),
        ({'seed': -1}, 'datasets.mine.split_seed'),
        ({'split': 'test'}, "datasets.mine.split = 'test'"),
        ({'split': ''}, "datasets.mine.split = ''"),
        ({'split': None}, 'datasets.mine.split = None'),
        ({'names': ['a', 'b']}, "datasets.mine.split = 'val'"),
    ],
)
def test_wrong_settings(settings, slot):
    settings = {'names': NAMES, 'split': 'val'} | settings
    assert refused(members, settings.pop('names'), settings.pop('split'), **settings).startswith(slot)


def test_folders():
    names = ['train/a', 'val/a', 'city/train/b', 'train', 'trains/c']
    assert splits.by_folder(names, 'train') == [0, 2] and splits.by_folder(names, 'val') == [1]


@pytest.mark.parametrize(
    'line',
    [
        'city/a b',
        'city/a b.png',
        './city/a b.jpeg',
        '/data/images/city/a b.jpg',
        'C:\\images\\city\\a b.jpg',
    ],
)
def test_a_line_may_have_ending_and_folders(line):
    assert listed(['', line, 'c'], ['c', 'city/a b']) == [1, 0]


def listed(lines, names):
    return splits.by_list('slot', 'list.txt', lines, names, [f'/home/images/{name}.jpg' for name in names])


@pytest.mark.parametrize('line', ['photo 3', 'city2/001.png', 'photo.c', 'city/photo 1/001'])
def test_a_line_never_means_another_image(line):
    assert "'" + line + "'" in refused(listed, [line], ['photo', 'photo 1', '001'])


def test_columns_comments_and_repeated_lines():
    lines = ['# made by hand', 'images/x.1.png labels/x.1.png', 'y,1', 'y', '  ']
    assert listed(lines, ['x.1', 'y', 'z']) == [0, 1]


def test_wrong_lists():
    message = refused(splits.by_list, 'datasets.mine.lists', 'l.txt', ['a', *'bcdefgh'], ['a'], ['a.png'])
    assert 'datasets.mine.lists' in message and 'l.txt' in message and '7 names' in message
    assert "'b', 'c', 'd', 'e', 'f', …" in message
    assert 'empty' in refused(splits.by_list, 'slot', 'l.txt', [' '], ['a'], ['a.png'])
