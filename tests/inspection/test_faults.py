"""Faults that were planted into sound data: each is found, with its severity and the images that have it."""

import numpy as np
import pytest
from PIL import Image

from seg.datasets.findings import FIX, NOTE, WARN
from seg.errors import UserError
from seg.inspection import check, thumbnails
from seg.structures import DataLimits
from tests.inspection.made import CLASSES, SIDE, Instances, LabelMaps, random_image, save


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / 'images')


def found(dataset, limits=DataLimits(stride=8)):  # noqa: B008
    """Findings by kind."""
    target = 'instances' if isinstance(dataset, Instances) else 'label_map'
    checked = check.check({'experiment.train_data': dataset}, target, limits)
    return {finding.kind: finding for _, finding in checked.found}


def expect(findings, kind, severity, images):
    """Only this finding, of these images, and with a remedy."""
    assert set(findings) == {kind}, {kind: finding.message() for kind, finding in findings.items()}
    finding = findings[kind]
    assert finding.severity == severity and list(finding.images) == images and finding.remedy
    return finding


@pytest.mark.parametrize('kind', [LabelMaps, Instances])
def test_sound_data_have_no_finding(folder, kind):
    assert found(kind(folder)) == {}


# ---- Files -----------------------------------------------------------------------------------------------------------


def cut(path):
    with open(path, 'rb') as file:
        content = file.read()
    with open(path, 'wb') as file:
        file.write(content[:-40])


def test_a_truncated_file(folder):
    cut(f'{folder}/1.png')
    finding = expect(found(LabelMaps(folder)), 'unreadable', FIX, ['1'])
    assert f'{folder}/1.png' in finding.lines[0] and 'PNG' in finding.lines[0]


def test_a_truncated_jpeg(folder):
    Image.fromarray(random_image(9)).save(f'{folder}/4.jpg')
    cut(f'{folder}/4.jpg')
    expect(found(LabelMaps(folder)), 'unreadable', FIX, ['4'])


def test_an_empty_file(folder):
    open(f'{folder}/2.png', 'wb').close()
    expect(found(LabelMaps(folder)), 'unreadable', FIX, ['2'])


def test_a_file_that_is_no_image(folder):
    with open(f'{folder}/2.png', 'w') as file:
        file.write('<html>404</html>')
    expect(found(LabelMaps(folder)), 'unreadable', FIX, ['2'])


def test_a_missing_file(folder):
    dataset = LabelMaps(folder)
    dataset.paths[3] += '.gone'
    assert 'No such file' in expect(found(dataset), 'unreadable', FIX, ['3']).lines[0]


def test_a_png_that_is_called_jpg(folder):
    Image.fromarray(random_image(9)).save(f'{folder}/4.jpg', 'PNG')
    assert 'PNG' in expect(found(LabelMaps(folder)), 'wrong_name', WARN, ['4']).lines[0]


def test_an_image_that_is_turned_by_exif(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_image(9)).save(f'{folder}/4.jpg', exif=exif)
    assert 'orientation 6' in expect(found(LabelMaps(folder)), 'exif_turned', WARN, ['4']).lines[0]


def test_cmyk(folder):
    Image.fromarray(random_image(9)).convert('CMYK').save(f'{folder}/4.jpg')
    expect(found(LabelMaps(folder)), 'cmyk', WARN, ['4'])


def test_16_bits(folder):
    Image.fromarray(random_image(9)[..., 0].astype(np.uint16) * 257).save(f'{folder}/4.png')
    expect(found(LabelMaps(folder)), 'deep', NOTE, ['4'])


def test_16_bits_of_a_camera_with_12(folder):
    Image.fromarray(random_image(9)[..., 0].astype(np.uint16) * 16).save(f'{folder}/4.png')
    assert list(found(LabelMaps(folder))['dark_image'].images) == ['4']


def test_a_blank_image(folder):
    Image.new('RGB', (SIDE, SIDE), (90, 90, 90)).save(f'{folder}/4.png')
    expect(found(LabelMaps(folder)), 'blank_image', WARN, ['4'])


def test_an_image_below_the_stride(folder):
    Image.fromarray(random_image(9, 8)[:6]).save(f'{folder}/4.png')
    assert '6 x 8' in expect(found(LabelMaps(folder)), 'small_image', WARN, ['4']).lines[0]


def test_an_image_that_makes_all_others_large(folder):
    Image.fromarray(random_image(9, 10 * SIDE)).save(f'{folder}/4.png')
    assert '800 x 800' in expect(found(LabelMaps(folder)), 'uneven_sizes', WARN, ['4']).text


def test_an_image_that_is_listed_twice(folder):
    names = ['0.png', '1.png', '2.png', '1.png']
    assert list(found(LabelMaps(folder, names=names))['repeated_image'].images) == ['1']


def test_an_id_of_two_images(folder):
    expect(found(LabelMaps(folder, ids=[1, 2, 2, 3])), 'repeated_image_id', FIX, ['2'])


def test_a_copy_in_the_same_split(folder):
    Image.fromarray(random_image(2, 2 * SIDE)).save(f'{folder}/4.jpg', quality=80, subsampling=0)
    assert "as '2'" in expect(found(LabelMaps(folder)), 'near_duplicates', NOTE, ['4']).lines[0]


# ---- Label maps ------------------------------------------------------------------------------------------------------


def label(*values):
    """Stripes of these values."""
    return np.repeat(np.asarray(values)[:, None], SIDE // len(values), 0).repeat(SIDE, 1)


def test_a_value_that_is_no_class(folder):
    finding = expect(found(LabelMaps(folder, {'2': label(0, 1, 7, 1)})), 'unknown_values', FIX, ['2'])
    assert '7 (1600 pixels)' in finding.lines[0] and '0..1' in finding.text


def test_negative_and_very_large_values(folder):
    findings = found(LabelMaps(folder, {'2': label(-3, 1), '3': label(0, 2**20)}))
    lines = expect(findings, 'unknown_values', FIX, ['2', '3']).lines
    assert 'negative values (3200' in lines[0] and '65536 or more (3200' in lines[1]


def test_labels_that_start_at_1(folder):
    finding = found(LabelMaps(folder, {str(i): label(1, 2) for i in range(4)}))['unknown_values']
    assert 'subtract 1' in finding.remedy


def test_labels_that_are_colours(folder):
    values = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 251
    assert 'colours' in found(LabelMaps(folder, {'0': values}))['unknown_values'].remedy


def test_a_binary_mask_with_255(folder):
    findings = found(LabelMaps(folder, {str(i): label(0, 255) for i in range(4)}))
    assert findings['one_class'].severity == FIX and '255 marks a class' in findings['one_class'].remedy


def test_some_masks_with_255_for_the_class(folder):
    expect(found(LabelMaps(folder, {'2': label(0, 255)})), 'background_and_ignored', WARN, ['2'])


def test_a_label_map_of_another_size(folder):
    findings = found(LabelMaps(folder, {'2': np.eye(SIDE // 2)}))
    assert '(40, 40)' in expect(findings, 'size_mismatch', FIX, ['2']).lines[0]


def test_a_label_map_without_a_label(folder):
    expect(found(LabelMaps(folder, {'2': label(255)})), 'unlabelled', WARN, ['2'])


def test_a_class_that_does_not_occur(folder):
    finding = expect(found(LabelMaps(folder, class_names=[*CLASSES, 'ghost'])), 'absent_class', WARN, [])
    assert '2 (ghost)' in finding.text


def test_mostly_ignored(folder):
    findings = found(LabelMaps(folder, {str(i): label(0, 1, 255, 255, 255) for i in range(4)}))
    assert '60 %' in expect(findings, 'mostly_ignored', WARN, []).text


def test_a_rare_class(folder):
    values = np.zeros((SIDE, SIDE), int)
    values[0, 0] = 1
    assert found(LabelMaps(folder, {str(i): values for i in range(4)}))['rare_class'].severity == NOTE


# ---- Instances -------------------------------------------------------------------------------------------------------

SOUND = (0, 2, 2, 12, 12, 0)


def test_a_class_out_of_range(folder):
    finding = expect(found(Instances(folder, {'1': [SOUND, (2, 1, 1, 9, 9, 0)]})), 'class_out_of_range', FIX, ['1'])
    assert '1 of 2' in finding.lines[0]


def test_a_box_out_of_the_image(folder):
    expect(found(Instances(folder, {'1': [SOUND, (1, 1, 1, 9, 90, 0)]})), 'box_outside', FIX, ['1'])


def test_a_degenerate_instance(folder):
    expect(found(Instances(folder, {'1': [SOUND, (1, 1, 1, 9, 1.2, 0)]})), 'degenerate', WARN, ['1'])


def test_an_instance_that_is_there_twice(folder):
    expect(found(Instances(folder, {'1': [SOUND, (1, 5, 5, 9, 9, 0), SOUND]})), 'duplicate', WARN, ['1'])


def test_crowds(folder):
    findings = found(Instances(folder, {'1': [SOUND, (1, 5, 5, 9, 9, 1)]}))
    assert findings['crowds'].severity == NOTE and findings['crowds'].count == 1


def test_a_class_of_crowds_only(folder):
    rows = {str(i): [SOUND, (1, 5, 5, 9, 9, 1)] for i in range(4)}
    assert "'thing'" in expect(found(Instances(folder, rows)), 'crowds_of_class', WARN, []).text


def test_crowds_only(folder):
    findings = found(Instances(folder, {str(i): [(1, 5, 5, 9, 9, 1)] for i in range(4)}))
    assert 'iscrowd' in expect(findings, 'all_crowds', FIX, []).remedy


def test_no_instance_at_all(folder):
    expect(found(Instances(folder, {str(i): [] for i in range(4)})), 'no_instance', FIX, [])


def test_an_image_without_instances(folder):
    expect(found(Instances(folder, {'1': []})), 'without_instances', NOTE, ['1'])


def test_a_class_without_instances(folder):
    assert "'ghost'" in expect(found(Instances(folder, class_names=[*CLASSES, 'ghost'])), 'absent_class', WARN, []).text


def test_more_instances_than_there_is_room(folder):
    rows = {'1': [(i % 2, i, i, i + 9, i + 9, 0) for i in range(5)]}
    findings = found(Instances(folder, rows), DataLimits({'tasks.instance.max_objects': 4}, stride=8))
    assert 'tasks.instance.max_objects = 4' in expect(findings, 'too_many_instances', WARN, ['1']).text
    findings = found(Instances(folder, rows), DataLimits({}, {'metrics.coco_ap.max_detections': 2}, stride=8))
    assert '3 instances' in expect(findings, 'too_many_instances', WARN, ['1']).lines[0]


def test_instances_beyond_the_anchors(folder):
    findings = found(Instances(folder), DataLimits(anchor_sizes=(32.0, 64.0), stride=8))
    finding = expect(findings, 'smaller_than_anchors', WARN, ['0', '1', '2', '3'])
    assert '50.0 %' in finding.text and 'heads.rpn.anchor_scale' in finding.remedy
    scaled = DataLimits(anchor_sizes=(32.0, 64.0), eval_size=(4 * SIDE, 4 * SIDE), stride=8)
    assert found(Instances(folder), scaled) == {}
    expect(
        found(Instances(folder), DataLimits(anchor_sizes=(6.0,), stride=8)), 'larger_than_anchors', WARN, list('0123')
    )


# ---- Two splits ------------------------------------------------------------------------------------------------------


def of_both(train, evaluation):
    """Findings about both splits by kind."""
    target = 'instances' if isinstance(train, Instances) else 'label_map'
    data = {'experiment.train_data': train, 'experiment.eval_data': evaluation}
    checked = check.check(data, target, DataLimits(stride=8))
    return {finding.kind: finding for split, finding in checked.found if finding.kind != 'absent_class'}


@pytest.fixture
def other(tmp_path):
    return save(tmp_path / 'others', first=50)


def test_two_sound_splits(folder, other):
    assert of_both(LabelMaps(folder), LabelMaps(other, split='val')) == {}


def test_a_finding_of_both_splits_is_told_once(folder, other):
    names, of_one = [*CLASSES, 'ghost'], {'1': [(0, 2, 2, 12, 12, 0), (1, 15, 15, 39, 39, 1)]}
    datasets = Instances(folder, of_one, class_names=names), Instances(other, split='val', class_names=names)
    data = dict(zip(('experiment.train_data', 'experiment.eval_data'), datasets, strict=True))
    checked = check.check(data, 'instances', DataLimits(stride=8))
    kinds = [finding.kind for _, finding in checked.found]
    assert sorted(kinds) == ['absent_class', 'crowds']
    split, finding = next(item for item in checked.found if item[1].kind == 'absent_class')
    assert split is None and finding.text == "mine/train and mine/val: 1 of 3 classes have no instance: 'ghost'."


def test_classes_that_differ(folder, other):
    findings = of_both(LabelMaps(folder), LabelMaps(other, split='val', class_names=CLASSES[::-1]))
    assert "'thing', 'ground'" in findings['class_names'].text and findings['class_names'].severity == FIX


def test_a_class_of_one_split(folder, other):
    names = [*CLASSES, 'third']
    rows = {'1': [SOUND, (2, 5, 5, 19, 19, 0)]}
    findings = of_both(Instances(folder, class_names=names), Instances(other, rows, split='val', class_names=names))
    finding = expect(findings, 'class_of_one_split', WARN, [])
    assert "'third'" in finding.text and 'can never be found' in finding.remedy


def test_an_image_in_both_splits(folder, other):
    Image.fromarray(random_image(1)).save(f'{other}/9.png')
    finding = expect(of_both(LabelMaps(folder), LabelMaps(other, split='val')), 'shared_image', WARN, ['9'])
    assert 'mine/train' in finding.text


def test_a_smaller_copy_in_the_other_split(folder, other):
    Image.fromarray(random_image(1, 64)).save(f'{other}/9.jpg', quality=80, subsampling=0)
    findings = of_both(LabelMaps(folder), LabelMaps(other, split='val'))
    assert "as '1'" in expect(findings, 'near_duplicates_of_training', WARN, ['9']).lines[0]


# ---- What a run would refuse -----------------------------------------------------------------------------------------


def test_data_that_cannot_be_read(folder):
    checked = check.check({'experiment.train_data': UserError('mine: no such folder.')}, 'label_map')
    ((_, finding),) = checked.found
    assert (finding.kind, finding.severity) == ('refused', FIX) and 'experiment.train_data: mine' in finding.text
    assert checked.record()['fix'] == 1 and checked.splits == []


def test_a_failed_self_test(folder):
    def fail(dataset):
        raise UserError('mine: the AP of the ground truth is 0.')

    checked = check.check({'experiment.train_data': Instances(folder)}, 'instances', DataLimits(stride=8), fail)
    assert [finding.kind for _, finding in checked.found] == ['self_test']


def test_the_contract_of_data_sets(folder):
    dataset = LabelMaps(folder)
    object.__setattr__(dataset.info, 'max_size', (8, 8))
    assert 'max_size' in found(dataset)['contract'].text


# ---- Thumbnails ------------------------------------------------------------------------------------------------------


def test_thumbnails_are_means_of_blocks():
    image = np.random.default_rng(0).integers(0, 256, [32, 64, 3], np.uint8)
    blocks = image[..., 1].reshape(16, 2, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(thumbnails.of(image), blocks, atol=1)
    assert thumbnails.of(image[:5, :3]).shape == (16, 16)


def test_pairs_are_copies_and_no_others():
    small = [thumbnails.of(random_image(seed)) for seed in range(60)]
    assert thumbnails.pairs(small) == [] == thumbnails.pairs(small[:1])
    copy = np.clip(small[7].astype(int) + 2, 0, 255).astype(np.uint8)
    assert thumbnails.pairs([*small, copy]) == [(7, 60)]
    assert thumbnails.pairs([np.full((16, 16), 9, np.uint8)] * 2) == []
