"""Instances beside the truth and over images: matching, drawing, and labels."""

import sys

import numpy as np
import pytest
from pycocotools import mask as coco

from seg.drawing import InstanceComparison
from seg.drawing.instance_colors import readable_on, shade, spread, vivid
from seg.drawing.instances import above, match, overlay
from seg.drawing.mask_overlay import Shape, paint
from seg.drawing.palette import instance_palette
from seg.structures import Annotations, Detections

NAMES = ('cat', 'dog')
COLORS = ((0, 200, 0), (200, 0, 0))
SIZE = (120, 160)


def rle(box, size=SIZE):
    mask = np.zeros(size, np.uint8, order='F')
    y0, x0, y1, x1 = (round(side) for side in box)
    mask[y0:y1, x0:x1] = 1
    return coco.encode(mask)


def truth(boxes, classes=None, crowd=None, size=SIZE):
    count = len(boxes)
    masks = [rle(box, size) for box in boxes]
    return Annotations(
        *size,
        np.float32(boxes).reshape(-1, 4),
        np.int32([0] * count if classes is None else classes),
        np.array([False] * count if crowd is None else crowd, bool),
        np.float32([coco.area(mask) for mask in masks]),
        masks,
    )


def detections(boxes, classes=None, scores=None, size=SIZE):
    count = len(boxes)
    return Detections(
        np.float32(boxes).reshape(-1, 4),
        np.float32(0.9 - 0.01 * np.arange(count) if scores is None else scores),
        np.int32([0] * count if classes is None else classes),
        [rle(box, size) for box in boxes],
    )


def make(there, found, image=None, names=NAMES, colors=COLORS, name='image_1', **settings):
    image = np.full((*SIZE, 3), 90, np.uint8) if image is None else image
    return InstanceComparison(name, image, there, found, class_names=names, colors=colors, **settings)


BOXES = [(10, 10, 40, 40), (10, 60, 40, 100), (60, 10, 110, 60), (60, 80, 110, 150)]


# ---- Figures ---------------------------------------------------------------------------------------------------------


def test_each_instance_is_matched_once():
    """By the better score, though the other one fits better."""
    found = match(truth(BOXES[:1]), detections([BOXES[0], (12, 10, 40, 40), BOXES[0]], scores=[0.5, 0.9, 0.7]))
    assert found.truth.tolist() == [-1, 0, -1] and found.found.tolist() == [1]


def test_a_detection_matches_the_instance_that_it_fits_best():
    there = truth([(0, 0, 20, 20), (0, 6, 20, 26)])
    assert match(there, detections([(0, 5, 20, 25)])).truth.tolist() == [1]
    both = match(there, detections([(0, 5, 20, 25), (0, 6, 20, 26)]))
    assert both.truth.tolist() == [1, 0] and both.found.tolist() == [1, 0], 'the second one has IoU 0.54 with the other'


def test_iou_of_the_masks_decides_from_a_half_on():
    there = truth([(0, 0, 20, 20)])
    assert match(there, detections([(0, 0, 20, 10)])).truth.tolist() == [0], 'exactly 0.5'
    assert match(there, detections([(0, 0, 19, 10)])).truth.tolist() == [-1]
    same_box = detections([(0, 0, 20, 20)])._replace(masks=[rle((0, 0, 5, 20))])
    assert match(there, same_box).truth.tolist() == [-1]


def test_other_classes_match_nothing():
    found = match(truth(BOXES[:2], [0, 1]), detections(BOXES[:2], [1, 1]))
    assert found.truth.tolist() == [-1, 1] and found.found.tolist() == [-1, 1]


def test_detections_within_a_crowd_do_not_count():
    there = truth([BOXES[0], (50, 0, 120, 160), (50, 0, 120, 160)], [0, 0, 1], [False, True, True])
    made = make(there, detections([BOXES[0], BOXES[2], BOXES[3], (20, 60, 60, 100)], [0, 0, 1, 0]))
    assert made._matches.truth.tolist() == [0, -2, -2, -1]
    assert (made.found, made.missed, made.false) == (1, 0, 1) and made.f1 == pytest.approx(2 / 3)


def test_figures():
    made = make(truth(BOXES, [0, 0, 1, 1]), detections([BOXES[0], BOXES[2], BOXES[1]], [0, 0, 0]))
    assert (made.found, made.missed, made.false) == (2, 2, 1) and made.f1 == pytest.approx(4 / 7)
    low = make(truth(BOXES), detections(BOXES, scores=[0.9, 0.5, 0.4999, 0.1]))
    assert (low.found, low.missed, low.false) == (2, 2, 0)
    assert make(truth(BOXES), detections(BOXES, scores=[0.1] * 4), min_score=0.05).f1 == 1


def test_panels_of_what_is_missed_and_what_is_false():
    panels = make(truth(BOXES[:2]), detections([BOXES[0], BOXES[3]])).panels()
    assert list(panels.pixels) == ['image', 'truth', 'prediction', 'errors']
    assert panels.caption.startswith('mask F1 0.5')
    assert len({pixels.shape for pixels in panels.pixels.values()}) == 1
    errors = panels.pixels['errors']
    scale = errors.shape[0] / SIZE[0]
    at = lambda y0, x0, y1, x1: errors[round((y0 + y1) / 2 * scale), round((x0 + x1) / 2 * scale)]  # noqa: E731
    found, missed, false = (at(*BOXES[i]).astype(int) for i in (0, 1, 3))
    assert np.ptp(found) == 0 and missed[2] > missed[0] + 40 and false[0] > false[2] + 40


def test_no_instances_at_all():
    assert make(truth([]), detections([])).f1 is None
    assert make(truth([]), detections(BOXES)).f1 == 0 and make(truth(BOXES), detections([])).f1 == 0
    for there in (truth([]), truth(BOXES)):
        for found in (detections([]), detections(BOXES)):
            assert make(there, found).draw().dtype == np.uint8


# ---- Images ----------------------------------------------------------------------------------------------------------


def panels(strip, count=2):
    """The panels, found by their frames: 480 x 640 pixels for an image of 120 x 160."""
    height, width = 360, 480
    row = next(y for y in range(len(strip)) if np.all(strip[y, 12 : 12 + width] == 160)) + 1
    edges = [x for x in range(strip.shape[1]) if np.all(strip[row : row + height, x] == 160)]
    lefts = [x + 1 for x in edges if x + width + 1 in edges]
    assert len(lefts) == count
    return [strip[row : row + height, x : x + width] for x in lefts]


def colors_along(panel, box):
    """Of the outline of an instance's box, one pixel inside its edge, at three times the size."""
    y0, x0, y1, x1 = (3 * side for side in box)
    y1, x1 = y1 - 1, x1 - 1
    lines = panel[y0, x0:x1], panel[y1, x0:x1], panel[y0:y1, x0], panel[y0:y1, x1]
    return {tuple(map(int, color)) for line in lines for color in line}


def test_right_is_solid_and_wrong_is_dashed():
    there, found = panels(make(truth(BOXES[:2]), detections([BOXES[0], BOXES[3]])).draw())
    solid = colors_along(there, BOXES[0])
    assert solid == colors_along(found, BOXES[0]), 'an instance has the colour of its detection'
    assert not {(255, 255, 255), (0, 0, 0)} & solid
    for panel, box in ((there, BOXES[1]), (found, BOXES[3])):
        dashed = colors_along(panel, box)
        assert {(255, 255, 255), (0, 0, 0)} <= dashed
    middle = there[3 * 80, 3 * 120]
    assert np.all(middle == 90), 'nothing else is touched'


def test_dashes_alternate_along_the_edge():
    pixels = np.full((100, 100, 3), 90, np.uint8)
    paint(pixels, [Shape((10, 10, 90, 90), rle((10, 10, 90, 90), (100, 100)), COLORS[0], dashed=True)], 0.4)
    for line in (pixels[11, 12:88], pixels[88, 12:88], pixels[12:88, 11], pixels[12:88, 88]):
        light = (line[:, 0] > 128).astype(int)
        assert 8 <= np.abs(np.diff(light)).sum() <= 30 and 0.3 < light.mean() < 0.7


def test_crowds_are_hatched():
    there, _ = panels(make(truth([(10, 10, 110, 150)], crowd=[True]), detections([])).draw())
    inside = there[150:250, 150:350]
    near = np.abs(inside.astype(int) - COLORS[0]).sum(-1)
    assert 0.1 < (near < 120).mean() < 0.5 and (near > 150).mean() > 0.4
    assert not {(255, 255, 255)} & colors_along(there, (10, 10, 110, 150))


def test_neighbours_of_one_class_have_different_shades():
    boxes = [(y, x, y + 20, x + 20) for y in (0, 20, 40) for x in (0, 20, 40)]
    numbers = spread(boxes, [0] * 9, [-1] * 9)
    grid = np.array(numbers).reshape(3, 3)
    assert (grid[1:] != grid[:-1]).all() and (grid[:, 1:] != grid[:, :-1]).all()
    assert (grid[1:, 1:] != grid[:-1, :-1]).all() and (grid[1:, :-1] != grid[:-1, 1:]).all()
    assert spread([(0, 0, 9, 9), (0, 5, 9, 14)], [0, 0], [3, -1])[0] == 3
    shades = {shade(COLORS[0], n) for n in range(6)}
    assert len(shades) == 6 and all(max(s) - min(s) > 60 for s in shades)


def test_colours_are_visible_on_black_and_on_white():
    for color in (*instance_palette(12), (64, 0, 0), (0, 0, 128), (230, 230, 230)):
        for n in range(6):
            drawn = np.array(shade(color, n))
            assert 60 < drawn.max() and drawn.min() < 235, (color, n)
    assert vivid((128, 0, 0)) == (255, 0, 0)
    assert readable_on((255, 255, 0)) == (0, 0, 0) and readable_on((120, 0, 60)) == (255, 255, 255)


def test_memory_does_not_grow_with_the_image():
    size = (3000, 4000)
    box = [(100, 100, 2900, 3900)]
    made = make(truth(box, size=size), detections(box, size=size), np.zeros((*size, 3), np.uint8))
    held = [value for value in vars(made).values() if isinstance(value, np.ndarray)]
    owners = [value if value.base is None else value.base for value in held]
    assert held and sum(sys.getsizeof(owner) for owner in owners) < 1.5e6
    assert made.draw().shape[1] < 1400


def test_image_of_another_size_than_the_masks():
    """As the canvas shows it: the panels are the same where they are not the image."""
    there, found = truth(BOXES), detections(BOXES[:2])
    half = make(there, found, np.full((60, 80, 3), 90, np.uint8)).draw()
    assert half.shape == make(there, found, np.full((60, 80, 3), 90, np.uint8)).draw().shape
    twice = make(there, found, np.full((240, 320, 3), 90, np.uint8))
    assert twice.f1 == make(there, found).f1 and twice.draw().shape[1] > 640


def ink(strip):
    return np.any(strip[:, :11] != 255) or np.any(strip[:, -11:] != 255)


@pytest.mark.parametrize('names', [('Straße', '道路'), ('$x_1$', '$\\frac{'), ('a' * 300, 'x'), ('two\nlines', ' ')])
def test_any_names(names):
    """Nothing runs over the margins."""
    there = truth(BOXES, [0, 1, 0, 1], [False, False, False, True])
    strip = make(there, detections(BOXES, [0, 1, 1, 1]), names=names, name=f'folder/{"long " * 80}').draw()
    assert strip.shape[1] < 1400 and not ink(strip)


# ---- Overlays --------------------------------------------------------------------------------------------------------


def test_overlay_changes_the_image_in_place_and_only_at_its_instances():
    image = np.full((*SIZE, 3), 90, np.uint8)
    made = overlay(image, detections([BOXES[2]]), class_names=NAMES, colors=COLORS)
    assert made is image
    changed = np.any(image != 90, axis=-1)
    rows, columns = np.nonzero(changed)
    assert changed[60:110, 10:60].all() and rows.max() < 110 and columns.min() >= 10, 'its tag is above'
    assert changed.sum() < 50 * 50 + 20 * 90


def test_overlay_omits_low_scores():
    image = np.full((*SIZE, 3), 90, np.uint8)
    overlay(image, detections(BOXES, scores=[0.49] * 4), class_names=NAMES, colors=COLORS)
    assert np.all(image == 90)
    assert above(detections(BOXES, scores=[0.4, 0.5, 0.6, 0.1]), 0.5).classes.tolist() == [0, 0]


def test_opacity():
    bare, full = (
        overlay(np.full((*SIZE, 3), 90, np.uint8), detections(BOXES[2:3]), class_names=NAMES, colors=COLORS, opacity=o)
        for o in (0.0, 1.0)
    )
    assert bare[85, 35].tolist() == [90] * 3 and full[85, 35].tolist() == list(shade(COLORS[0], 0))


def test_lines_are_thicker_on_large_images():
    for size, thick in (((200, 300), 2), ((2000, 3000), 6)):
        image = np.full((*size, 3), 90, np.uint8)
        box = (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2)
        overlay(image, detections([box], size=size), class_names=('one',), colors=COLORS, opacity=0.0)
        line = image[box[0] : box[2], (box[1] + box[3]) // 2]
        assert np.any(line != 90, -1)[: 3 * thick].sum() == thick


@pytest.mark.parametrize(
    'box', [(0, 0, 120, 160), (119, 159, 120, 160), (0, 0, 1, 160), (50, 50, 50, 50), (-5, -5, 3, 3)]
)
def test_instances_of_any_size(box):
    """The whole image, one pixel, a line, an empty box."""
    found = detections([box])
    made = overlay(np.full((*SIZE, 3), 90, np.uint8), found, class_names=NAMES, colors=COLORS)
    assert made.shape == (*SIZE, 3) and np.any(made != 90)
    make(truth([box]), found).draw()


def test_small_images():
    for size in ((1, 1), (3, 200), (9, 9)):
        found = detections([(0, 0, *size)], size=size)
        overlay(np.zeros((*size, 3), np.uint8), found, class_names=NAMES, colors=COLORS)
        make(truth([(0, 0, *size)], size=size), found, np.zeros((*size, 3), np.uint8)).draw()
