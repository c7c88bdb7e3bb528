"""Names of images and of their labels."""

import pytest

from seg.datasets.label_maps import matching
from seg.errors import UserError


def paired(images, labels):
    found, rule = matching.pair({name: f'{name}.jpg' for name in images}, {name: f'{name}.png' for name in labels})
    return {name: path[: -len('.png')] for name, path in found.items()}, rule


@pytest.mark.parametrize(
    'images, labels',
    [
        (['a', 'b'], ['a', 'b']),
        (['a', 'b'], ['a_mask', 'b_mask']),
        (['1', '10', '11'], ['1_gt', '10_gt', '11_gt']),
        (['img_1', 'img_10'], ['mask_1', 'mask_10']),
        (['x/a_rgb', 'y/a_rgb'], ['x/a_labelIds', 'y/a_labelIds']),
        (['P001 photo', 'P002 photo'], ['P001', 'P002']),
        (['frame_0001_L'], ['frame_0001']),
    ],
)
def test_pairs(images, labels):
    found, rule = paired(images, labels)
    assert found == dict(zip(images, labels, strict=True)) and bool(rule) == (images != labels)


def test_names_are_not_stretched():
    """1 is not 10, another folder is another name, and equal names take precedence over similar ones."""
    assert paired(['1', '2'], ['10', '20'])[0] == {}
    assert paired(['x/1'], ['y/1_mask'])[0] == {}
    assert paired(['1', '2'], ['1', '2', '1_mask', '2_mask'])[0] == {'1': '1', '2': '2'}
    assert paired(['a', 'b', 'c'], ['a', 'b', 'c_mask'])[0] == {'a': 'a', 'b': 'b'}


def test_many_names_are_paired_fast():
    names = [f'video{i // 100:03}/frame_{i:06}' for i in range(20000)]
    found, rule = paired(names, [f'{name}_mask' for name in names])
    assert len(found) == 20000 and '_mask' in rule


def test_places(tmp_path):
    for name in (
        'a/1.JPG',
        'a/b/2.png',
        'a/.hidden.png',
        'a/.git/3.png',
        'a/notes.txt',
        'c/x/img/4.png',
        'c/y/img/4.png',
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'a/loop').symlink_to(tmp_path / 'a')

    def find(where):
        return sorted(matching.find('slot', str(tmp_path), where, ('.jpg', '.png')))

    assert find('a') == ['1', 'b/2'] == find(str(tmp_path / 'a'))
    assert find('a/*.jpg') == ['1'] and find('c/*/img/*.png') == ['x/4', 'y/4'] == find('c/*/img')
    assert find('**/img/*.png') == ['c/x/4', 'c/y/4']
    for where in ('gone', 'a/*.gif', 'gone/*.png'):
        with pytest.raises(UserError, match='^slot'):
            find(where)
