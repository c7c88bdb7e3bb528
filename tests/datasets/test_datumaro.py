"""The reader by Datumaro: a message without the library; with it, polygons, masks, groups and subsets."""

import sys

import numpy as np
import pytest
from PIL import Image

from seg.datasets import findings
from seg.datasets.datumaro import datumaro
from seg.errors import UserError
from tests.datasets.coco_files import decoded

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>cat</name><attributes></attributes></label><label><name>dog</name><attributes></attributes></label>
</labels></task></meta>
<image id="0" name="a.png" width="40" height="30">
<polygon label="cat" source="manual" occluded="0" points="4.0,5.0;14.0,5.0;14.0,17.0;4.0,17.0" z_order="1"></polygon>
<mask label="dog" source="manual" occluded="0" rle="3, 4, 5" left="20" top="3" width="4" height="3" z_order="0"></mask>
<box label="dog" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4" z_order="0"></box>
<polygon label="dog" group_id="4" occluded="0" points="20,20;30,20;30,28;20,28" z_order="2"></polygon>
<polygon label="dog" group_id="4" occluded="0" points="2,20;12,20;12,28;2,28" z_order="2"></polygon>
</image><image id="1" name="b.png" width="40" height="30"></image></annotations>"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images').mkdir()
    for name in ('a', 'b'):
        Image.new('RGB', (40, 30)).save(tmp_path / f'images/{name}.png')
    (tmp_path / 'annotations.xml').write_text(CVAT)
    return tmp_path


def test_the_message_names_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'datumaro', None)
    with pytest.raises(UserError, match=r"datasets.datumaro needs .*pip install -e '\.\[formats\]'"):
        datumaro(data_dir=str(folder), format='cvat')


@pytest.fixture
def library():
    pytest.importorskip('datumaro', reason="pip install -e '.[formats]' brings Datumaro")


def test_instances_and_label_maps(folder, library):
    settings = {'data_dir': str(folder), 'format': 'cvat', 'split': 'annotations'}
    dataset = datumaro(**settings)
    dataset.verify()
    assert dataset.info.class_names == ('cat', 'dog') and dataset.info.num_examples == 2
    truth = dataset.annotations(0)
    assert truth.classes.tolist() == [1, 0, 1] and not dataset.annotations(1).masks
    mask, square, pair = map(decoded, truth.masks)
    assert np.flatnonzero(mask.reshape(-1)).tolist() == [143, 180, 181, 182]
    assert square.sum() == 120 and square[5:17, 4:14].all()
    assert pair.sum() == 160 and pair[20:28, 2:12].all() and pair[20:28, 20:30].all()
    assert any('0 annotations have no label, and 1 no mask' in finding.text for finding in findings.of(dataset, True))
    label = datumaro(target='label_map', **settings).load(0)['label'].numpy()
    assert label[6, 6] == 1 and label[22, 4] == 2 and label[0, 0] == 0
    parts = [datumaro(data_dir=str(folder), format='cvat', split=split, fractions={'train': 0.5, 'val': 0.5})
             for split in ('train', 'val')]  # fmt: skip
    assert {dataset.image_name(0) for dataset in parts} == {'images/a', 'images/b'}


def test_wrong_formats_and_files(folder, library):
    for form in (None, 'nonsense'):
        with pytest.raises(UserError, match="datumaro.format = .*takes the folder for 'cvat'. It knows ade20k"):
            datumaro(data_dir=str(folder), format=form)
    with pytest.raises(UserError, match="format 'voc': Datumaro cannot read .*DatasetNotFoundError"):
        datumaro(data_dir=str(folder), format='voc')
    (folder / 'annotations.xml').write_text(CVAT[:-200])
    with pytest.raises(UserError, match="format 'cvat': Datumaro cannot read"):
        datumaro(data_dir=str(folder), format='cvat')
    (folder / 'annotations.xml').write_text(CVAT)
    (folder / 'images/b.png').unlink()
    with pytest.raises(UserError, match='Cannot find an image which has name=b.png'):
        datumaro(data_dir=str(folder), format='cvat')
