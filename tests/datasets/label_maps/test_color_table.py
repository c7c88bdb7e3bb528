"""Tables of colours as people and tools write them."""

import pytest

from seg.datasets.label_maps import color_table
from seg.errors import UserError

EXPECTED = (('road', 'traffic light'), ((128, 64, 128), (250, 170, 30)))


@pytest.mark.parametrize(
    'text',
    [
        'road = #804080\ntraffic light = #FAAA1E\n',
        '# comment\r\nroad:#804080\r\n\r\n#faaa1e traffic light',
        'name,r,g,b\nroad,128,64,128\n"traffic light",250,170,30\n',
        'id;Name;Red;Green;Blue;void\n0;road;128;64;128;0\n1;traffic light;250;170;30;0\n',
        'road,128,64,128\ntraffic light,250,170,30',
        '128 64 128 road\n250 170 30 traffic light\n',
        '# label:color_rgb:parts:actions\nroad:128,64,128::\ntraffic light:250,170,30::\n',
        '\ufeffroad\t128\t64\t128\ntraffic light\t250\t170\t30\n',
    ],
)
def test_files(tmp_path, text):
    path = tmp_path / 'colors.txt'
    path.write_bytes(text.encode())
    assert color_table.make('slot', 'colors.txt', str(path)) == EXPECTED


def test_dicts():
    found = color_table.make('slot', {'road': '#804080', 'traffic light': (250, 170, 30)}, None)
    assert found == EXPECTED


@pytest.mark.parametrize(
    'text, place, value',
    [
        ('road = #804080\ncar = #80408\n', 'line 2', '#80408'),
        ('road,128,64,128\ncar,0,0,256\n', 'line 2', '256'),
        ('road,128,64,128\n0,0,142\n', 'line 2', '0,0,142'),
        ('road = #804080\n\nroad = #000000\n', 'line 3', "'road'"),
        ('road = #804080\ncar = #804080\n', 'line 2', '#804080'),
        ('road = #804080\n', 'slot', '1 colours'),
        ('', 'slot', '0 colours'),
    ],
)
def test_wrong_files(tmp_path, text, place, value):
    path = tmp_path / 'colors.txt'
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        color_table.make('slot', 'colors.txt', str(path))
    assert place in str(caught.value) and value in str(caught.value)


@pytest.mark.parametrize('value', [3, ['#000000'], {'a': '#000000', 'b': 'red'}, {'a': (0, 0, 0), 'b': (0, 0, 300)}])
def test_wrong_settings(value):
    with pytest.raises(UserError, match='^slot'):
        color_table.make('slot', value, None)
