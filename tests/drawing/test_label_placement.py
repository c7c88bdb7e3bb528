"""Places of names: beside their instances, never over each other, not over small neighbours."""

import numpy as np

from seg.drawing.label_placement import Label, place


def scene(boxes, shape=(200, 300)):
    instances = np.full(shape, -1, np.int16)
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        instances[y0:y1, x0:x1] = i
    return instances


def areas(places, height, width):
    return [(y, x, y + height, x + width) for y, x in (p for p in places if p)]


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_above_its_box_where_that_is_free():
    boxes = [(50, 50, 100, 120)]
    assert place([Label(boxes[0], 12, 40, 0)], scene(boxes)) == [(38, 50)]


def test_within_the_image():
    boxes = [(0, 280, 5, 300), (195, 0, 200, 10), (0, 0, 200, 300)]
    tags = [Label(box, 12, 60, i) for i, box in enumerate(boxes)]
    for y, x in place(tags, scene(boxes[:2])):
        assert 0 <= y <= 188 and 0 <= x <= 240


def test_never_over_another_label():
    random = np.random.default_rng(0)
    corners = random.integers(0, 180, (60, 2))
    boxes = [(y, x, y + 15, x + 15) for y, x in corners]
    places = place([Label(box, 10, 30, i) for i, box in enumerate(boxes)], scene(boxes))
    there = areas(places, 10, 30)
    assert 5 < len(there) < 60
    assert not any(overlap(a, b) for i, a in enumerate(there) for b in there[:i])


def test_little_of_the_image_is_covered():
    """For any number of instances, and any size of the image."""
    boxes = [(y, x, y + 6, x + 6) for y in range(20, 600, 40) for x in range(20, 900, 60)]
    places = place([Label(box, 12, 30, i) for i, box in enumerate(boxes)], scene(boxes, (640, 960)))
    assert sum(p is not None for p in places) * 12 * 30 <= 0.07 * 640 * 960
    assert all(p is not None for p in places[:100])


def test_not_over_small_neighbours():
    grid = [(y, x, y + 18, x + 18) for y in range(0, 200, 20) for x in range(0, 300, 20)]
    assert not any(place([Label(box, 12, 40, i) for i, box in enumerate(grid)], scene(grid)))


def test_no_small_instance_is_hidden():
    """Neither a neighbour of a few pixels nor its own one, of which a label covers nearly nothing itself."""
    boxes = [(0, 100, 8, 108), (20, 150, 22, 152), (100, 40, 180, 140)]
    found = place([Label(box, 12, 60, i) for i, box in enumerate(boxes)], scene(boxes))
    covered = np.zeros((200, 300), bool)
    for y0, x0, y1, x1 in areas(found, 12, 60):
        covered[y0:y1, x0:x1] = True
    for y0, x0, y1, x1 in boxes:
        assert covered[y0:y1, x0:x1].mean() <= 0.15
    assert found[0] is not None and found[2] is not None


def test_on_a_much_larger_instance():
    """A cup on a table has its name."""
    boxes = [(20, 0, 200, 300), (100, 100, 130, 130)]
    found = place([Label(boxes[1], 12, 40, 1)], scene(boxes))
    assert found == [(88, 100)]


def test_no_room_at_all():
    assert place([Label((0, 0, 5, 5), 12, 40, 0)], scene([], (10, 30))) == [None]
    assert place([], scene([])) == []
