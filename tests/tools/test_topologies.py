"""The table of steps compiled for TPUs: its lines, and that a run replaces its own ones only."""

import pytest

from seg.engine.jax import chips
from seg.engine.jax.step_cost import Compiled, StepCost
from tools import topologies

FITS = Compiled(4.7123, None, 794e9, 12.3e9, {'all-reduce': [98, 14_200_000]}, 134.4, 250.6)


@pytest.mark.parametrize(
    ('cost', 'cells'),
    [
        (
            StepCost('training', 8, 16, 16, FITS),
            'training | v3-8 | 2 | 4.71 of 16 | 794 | 12.3 | 98 all-reduce, 14.2 MB | 251',
        ),
        (
            StepCost('evaluation', 8, 16, 64, Compiled(23.1, 15.48), 40, FITS),
            'evaluation | v3-8 | 8 do not fit, 5 do | 23.1 of 16, 4.71 | 794 | 12.3 | 98 all-reduce, 14.2 MB | 251',
        ),
        (
            StepCost('training', 8, 16, 8, Compiled(23.1, 15.48)),
            'training | v3-8 | 1 do not fit | 23.1 of 16 |  |  |  | ',
        ),
    ],
)
def test_a_line(cost, cells):
    found = topologies.line('deeplab_voc:v3-8', cost)
    assert found == f'| deeplab_voc | {cells} |' and found.count('|') == topologies.HEAD[0].count('|')


def test_a_run_replaces_its_own_lines():
    empty = '\n'.join(['Above.', '', *topologies.HEAD, '', 'Below.\n'])
    cost = StepCost('training', 8, 16, 16, FITS)
    first = topologies.line('deeplab_voc:v3-8', cost)
    page = topologies.with_lines(empty, [first])
    assert page.startswith('Above.\n\n| gin file') and page.endswith(' |\n\nBelow.\n') and first in page
    assert page.count('not compiled') == page.count('\n| ') - 3  # Of the head's two lines and the first.
    again = topologies.line('deeplab_voc:v3-8', cost._replace(batch=32))
    second = topologies.line('cascade_coco:v3-8', cost)
    page = topologies.with_lines(page, [again, second])
    assert (
        first not in page and again in page and second in page and page.count('\n| ') == 2 + len(topologies.ROWS) + 6
    )  # Six rows have two steps.
    with pytest.raises(ValueError, match='gin file'):
        topologies.with_lines('Above.', [])


def test_rows_are_gin_files_and_slices():
    for row in topologies.ROWS:
        name, topology = row.split(':')
        assert (topologies.ROOT / 'gin' / f'{name}.gin').exists() and topology in chips.table()


def test_the_page_has_the_table():
    page = topologies.PAGE.read_text(encoding='utf-8')
    assert topologies.with_lines(page, []).count('\n| ') >= page.count('\n| ')
