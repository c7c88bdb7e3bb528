"""The colours of classes: published, distinct, and as set."""

import colorsys
import itertools

import numpy as np
import pytest

from seg.drawing.labels import IGNORED
from seg.drawing.palette import class_palette, distinct_palette, instance_palette, voc_palette, with_colors
from seg.errors import UserError
from seg.known_classes import CAMVID_CLASS_NAMES, VOC_CLASS_NAMES


def test_the_published_colours():
    palette = voc_palette(256)
    published = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        7: (128, 128, 128),
        15: (192, 128, 128),
        20: (0, 64, 128),
    }
    assert {class_id: palette[class_id] for class_id in published} == published
    assert palette[255] == (224, 224, 192)
    assert len(set(palette)) == 256
    assert voc_palette(3) == palette[:3]
    assert voc_palette(0) == ()


def test_distinct_colours():
    palette = distinct_palette(256)
    assert len(set(palette)) == 256 and palette[:5] == distinct_palette(5) and distinct_palette(0) == ()
    assert len(distinct_palette(1000)) == 1000
    far = [(0, 0, 0), (255, 255, 255), (128, 128, 128), IGNORED]
    difference = lambda a, b: np.linalg.norm(np.subtract(a, b))  # noqa: E731
    assert min(difference(a, b) for a in palette[:30] for b in far) > 40
    assert min(difference(a, b) for a, b in itertools.combinations(palette[:20], 2)) > 40


def test_known_classes_have_their_colours():
    assert class_palette(VOC_CLASS_NAMES) == voc_palette(21)
    assert class_palette(('person', 'cat')) == (voc_palette(21)[15], voc_palette(21)[8])
    assert class_palette(CAMVID_CLASS_NAMES)[:2] == ((128, 128, 128), (128, 0, 0))
    assert class_palette(('sky', 'road', 'dragon')) == distinct_palette(3)
    assert class_palette(('Background', 'dragon')) == ((0, 0, 0), *distinct_palette(1))
    assert class_palette(()) == ()


def test_colours_that_are_set():
    names, colors = ('sky', 'road', 'car'), distinct_palette(3)
    chosen = {'car': (0, 0, 142), 'sky': '#4682b4'}
    assert with_colors('slot', chosen, names, colors) == ((70, 130, 180), colors[1], (0, 0, 142))
    for wrong, told in (
        ({'tree': '#4682b4'}, 'tree'),
        ({'car': 'blue'}, r"slot\['car'\] = 'blue'"),
        ({'car': (0, 0, 256)}, '256'),
        ('#4682b4', 'slot = '),
    ):
        with pytest.raises(UserError, match=told):
            with_colors('slot', wrong, names, colors)


def test_colours_of_instances():
    """Vivid ones, all different, the first ones far apart; those of few classes are those of many."""
    palette = instance_palette(80)
    assert len(set(palette)) == 80 and palette[:5] == instance_palette(5) and instance_palette(0) == ()
    assert all(max(color) - min(color) > 100 for color in palette)
    hues = [colorsys.rgb_to_hls(*(channel / 255 for channel in color))[0] for color in palette[:5]]
    assert min(abs((a - b + 0.5) % 1 - 0.5) for i, a in enumerate(hues) for b in hues[:i]) > 0.1
