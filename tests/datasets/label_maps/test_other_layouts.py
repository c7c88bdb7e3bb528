"""Folders that another reader reads are told."""

import pytest

from seg.datasets.folders import folders
from seg.datasets.label_maps import other_layouts
from seg.datasets.voc_layout import voc_layout
from seg.errors import UserError


@pytest.mark.parametrize(
    'files, reader',
    [
        ({'JPEGImages/a.jpg': '', 'SegmentationClass/a.png': ''}, '@datasets.voc_layout'),
        ({'leftImg8bit/a': '', 'gtFine/a': ''}, '@datasets.cityscapes'),
        ({'annotations/instances_train.json': '{"images": [], "annotations": []}'}, '@datasets.coco'),
        ({'photos/a.json': '{"version": "5.0", "shapes": []}'}, '@datasets.labelme'),
        ({'data.yaml': 'names: [a]'}, '@datasets.yolo'),
    ],
)
def test_readers_that_fit(tmp_path, files, reader):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert reader in other_layouts.described(str(tmp_path))
    with pytest.raises(UserError, match=reader):
        folders(data_dir=str(tmp_path), images='pictures', labels='masks')
    if 'JPEGImages/a.jpg' not in files:
        with pytest.raises(UserError, match=reader):
            voc_layout(data_dir=str(tmp_path))


def test_other_folders(tmp_path):
    (tmp_path / 'pictures').mkdir()
    assert other_layouts.described(str(tmp_path)) == "It holds 'pictures'."
    with pytest.raises(UserError, match='@datasets.folders'):
        voc_layout(data_dir=str(tmp_path))
