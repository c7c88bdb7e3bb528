"""The colours of PASCAL VOC."""

from seg.datasets.palette import voc_palette


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
