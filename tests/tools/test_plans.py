"""The tables of plans in docs/results.md."""

from seg.planner import estimate, table, tables
from tests.planner.test_estimate import FACTS, row
from tools import plans


def test_rows_are_in_the_order_of_the_recipe_and_name_their_steps():
    first, *others = list(plans.RECIPES['deeplab_voc'])
    refused = estimate.refused_row(tables.hardware(first), FACTS, 'bfloat16', 'too large')
    made = [table.as_json([row('v3-8')], tables.prices(), 200), table.as_json([refused], tables.prices(), 100)]
    text = plans.text('deeplab_voc', made, 120)
    lines = [line for line in text.splitlines() if line.startswith(f'| {first}') or line.startswith('| v3-8')]
    assert lines[0].startswith(f'| {first} | 100 |') and lines[1].startswith('| v3-8 | 200 |')
    begin, end = plans.markers('deeplab_voc')
    assert text.startswith(begin) and text.endswith(end) and tables.prices().date in text


def test_ten_kinds_of_hardware_and_every_fragment():
    for names in plans.RECIPES.values():
        assert len(names) >= 10 and all(tables.hardware(name) for name in names)
    fragments = {path.stem for path in plans.ROOT.glob('gin/hardware/*.gin')}
    assert fragments <= set(plans.RECIPES['maskrcnn_coco'])


def test_the_page_has_a_place_for_each():
    page = plans.PAGE.read_text(encoding='utf-8')
    for name in plans.RECIPES:
        begin, end = plans.markers(name)
        assert page.count(begin) == page.count(end) == 1 and page.index(begin) < page.index(end)
