"""The colours of PASCAL VOC."""

import colorsys

from seg.drawing.palette import instance_palette, voc_palette


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


def test_colours_of_instances():
    """Vivid ones, all different, the first ones far apart; those of few classes are those of many."""
    palette = instance_palette(80)
    assert len(set(palette)) == 80 and palette[:5] == instance_palette(5) and instance_palette(0) == ()
    assert all(max(color) - min(color) > 100 for color in palette)
    hues = [colorsys.rgb_to_hls(*(channel / 255 for channel in color))[0] for color in palette[:5]]
    assert min(abs((a - b + 0.5) % 1 - 0.5) for i, a in enumerate(hues) for b in hues[:i]) > 0.1
