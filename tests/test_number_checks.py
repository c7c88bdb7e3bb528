"""Numbers within their range come back; others name the setting and the value."""

import numpy as np
import pytest

from seg.errors import UserError
from seg.number_checks import check_counts, check_fractions, check_number, check_whole, check_widths


@pytest.mark.parametrize(
    ('value', 'settings'),
    [
        (0, {}), (1e300, {}), (np.float64(0.5), {'high': 1}), (1, {'high': 1}), (0.1, {'above': True}),
        (0, {'high': 1, 'below': True}), (-3, {'low': -3}),
    ],
)  # fmt: skip
def test_numbers_in_range(value, settings):
    found = check_number('losses.dice.weight', value, **settings)
    assert found == value and type(found) is float


@pytest.mark.parametrize(
    ('value', 'settings', 'expected'),
    [
        (-1, {}, 'of at least 0'),
        (float('nan'), {}, 'of at least 0'),
        (float('inf'), {}, 'of at least 0'),
        (True, {}, 'of at least 0'),
        ('1', {}, 'of at least 0'),
        (None, {}, 'of at least 0'),
        (0, {'above': True}, 'above 0'),
        (1.5, {'high': 1}, 'from 0 to 1'),
        (1, {'high': 1, 'below': True}, 'of at least 0 and below 1'),
        (0, {'high': 1, 'above': True}, 'above 0 and at most 1'),
    ],
)
def test_numbers_out_of_range(value, settings, expected):
    with pytest.raises(UserError) as caught:
        check_number('losses.dice.weight', value, **settings)
    assert str(caught.value) == f'losses.dice.weight = {value!r}: expected a number {expected}.'


@pytest.mark.parametrize('value', [0, 1.0, True, '3', None, [1]])
def test_whole_numbers(value):
    assert check_whole('heads.rpn.channels', 3) == 3 and check_whole('RunConfig.seed', 0, 0, 5) == 0
    with pytest.raises(UserError) as caught:
        check_whole('heads.rpn.channels', value)
    assert str(caught.value).startswith(f'heads.rpn.channels = {value!r}: ')
    with pytest.raises(UserError, match='RunConfig.seed = 6: .*from 0 to 5'):
        check_whole('RunConfig.seed', 6, 0, 5)


@pytest.mark.parametrize(
    ('check', 'value', 'slot'),
    [
        (check_counts, 0, r'heads.box.x = 0'),
        (check_fractions, 2, r'heads.box.x = 2'),
        (check_widths, 256, r'heads.box.x = 256'),
        (check_widths, (8, 0), r'heads.box.x\[1\] = 0'),
    ],
)
def test_several_settings_of_a_part(check, value, slot):
    check('heads.box', y=(1,) if check is check_widths else 1)
    with pytest.raises(UserError, match=slot):
        check('heads.box', x=value)
