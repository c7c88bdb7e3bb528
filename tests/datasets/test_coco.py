"""COCO files: instances as pycocotools reads them, and every mistake found before the first step."""

import copy
import json
import logging
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from seg.datasets.coco import coco
from seg.drawing.palette import instance_palette
from seg.errors import UserError
from tests.datasets import coco_files
from tests.datasets.coco_files import SIZES, SQUARE, annotation, contents, refused, runs, verified, write

folder = coco_files.folder


def examples(dataset):
    return list(tf.data.Dataset.range(dataset.info.num_examples).map(dataset.load))


def dense(ends, height, width):
    passed = np.searchsorted(ends, np.arange(height * width), side='right')
    return (passed % 2 == 1).reshape(width, height).T


def test_instances_are_those_of_pycocotools(folder):
    dataset, reference = coco(data_dir=str(folder)), COCO(folder / 'annotations/instances_train.json')
    dataset.verify()
    for index, example in enumerate(examples(dataset)):
        height, width = SIZES[index]
        assert example['image'].shape == (height, width, 3)
        np.testing.assert_array_equal(example['image'], Image.open(folder / f'train/img{index}.png'))
        truth = dataset.annotations(index)
        assert (truth.height, truth.width) == (height, width)
        wanted = [entry for entry in reference.dataset['annotations'] if entry['image_id'] == 100 + index]
        assert len(wanted) == len(example['boxes']) == len(truth.masks)
        for n, entry in enumerate(wanted):
            # pycocotools draws a part of two points as well, which covers no pixel or a stray one.
            parts = entry['segmentation']
            entry = entry | {'segmentation': parts[:2]} if isinstance(parts, list) else entry
            mask = reference.annToMask(entry)
            np.testing.assert_array_equal(dense(example['masks'][n].numpy(), height, width), mask)
            np.testing.assert_array_equal(coco_mask.decode(truth.masks[n]), mask)
            x, y, w, h = entry['bbox']
            np.testing.assert_array_equal(example['boxes'][n], np.float32([y, x, y + h, x + w]))
            assert example['area'][n] == np.float32(entry['area'])
            assert example['is_crowd'][n] == bool(entry['iscrowd'])
            assert dataset.info.original_ids[example['classes'][n]] == entry['category_id']
        for key in ('boxes', 'classes', 'is_crowd', 'area'):
            np.testing.assert_array_equal(example[key], getattr(truth, key))
        eager = dataset.load(tf.constant(index, tf.int64))
        assert eager['masks'].to_list() == example['masks'].to_list()


def test_info_and_static_types(folder):
    dataset = coco(data_dir=str(folder))
    info = dataset.info
    assert (info.name, info.num_examples, info.max_size) == ('coco/train', 3, (34, 40))
    assert info.class_names == ('ant', 'bee', 'zebra') and info.original_ids == (7, 13, 90)
    assert info.colors == instance_palette(3)
    assert [dataset.image_name(n) for n in range(3)] == ['img0', 'img1', 'img2']
    assert tf.data.Dataset.range(3).map(dataset.load).element_spec == {
        'image': tf.TensorSpec([None, None, 3], tf.uint8),
        'boxes': tf.TensorSpec([None, 4], tf.float32),
        'classes': tf.TensorSpec([None], tf.int32),
        'is_crowd': tf.TensorSpec([None], tf.bool),
        'area': tf.TensorSpec([None], tf.float32),
        'masks': tf.RaggedTensorSpec([None, None], tf.int32, 1, tf.int64),
    }


def test_the_graph_captures_the_instances_once(folder):
    """As inputs of the map, not as constants: those would be copied with each function, and stop at 2 GB."""
    dataset = coco(data_dir=str(folder))
    traced = tf.function(dataset.load).get_concrete_function(tf.TensorSpec([], tf.int64))
    captured = {tensor.ref() for tensor, _ in traced.graph.captures}
    assert captured >= {part.ref() for part in dataset._instances}
    for arrays, part in zip(dataset._arrays, dataset._instances, strict=True):
        assert not arrays.flags.owndata and arrays.dtype == part.dtype.as_numpy_dtype


def test_class_histogram(folder):
    histogram = coco(data_dir=str(folder)).class_histogram()
    assert histogram.pixels.tolist() == [120, 120, 128] and histogram.pixels.dtype == np.int64
    assert histogram.present_pixels.tolist() == [240, 240, 128]


def test_other_places(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    (folder / 'train').rename(other / 'photos')
    (folder / 'annotations/instances_train.json').rename(folder / 'mine.json')
    found = coco(data_dir=str(folder), images=str(other / 'photos'), annotations='mine.json', split='x')
    found.verify()
    assert found.info.name == 'coco/x' and found.info.num_examples == 3
    refused(r"coco.annotations = 'no.json': there is no .*JSON files in .*mine\.json", folder, annotations='no.json')
    refused(r"coco.images = 'photos': looked .* at photos in ", folder, images='photos', annotations='mine.json')
    write(folder, contents(), 'other.json')
    message = refused(r"coco.split = 'train': there is no .*instances_train\.json", folder)
    assert 'coco.annotations' in message and 'mine.json' in message
    (folder / 'images').mkdir()
    (other / 'photos').rename(folder / 'images/train')
    assert coco(data_dir=str(folder), annotations='mine.json').info.num_examples == 3


def test_missing_folder_and_splits(folder):
    refused(r'coco.data_dir = .*nowhere.*no such folder.*DATA_DIR', folder / 'nowhere')
    refused(r"coco.split = 'val': .*Splits there: .train.\.", folder, split='val')
    with pytest.raises(UserError, match="coco.data_dir = ''"):
        coco(data_dir='')
    refused("target 'depth'", folder, target='depth')


def test_a_folder_of_label_maps(tmp_path):
    for name in ('pictures/a.jpg', 'drawn/a.png'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r'coco\.split = .*@datasets\.folders') as caught:
        coco(data_dir=str(tmp_path))
    assert 'one of them' not in str(caught.value)


def test_files_that_are_not_coco(folder):
    whole = json.dumps(contents())
    refused(r'instances_train\.json is not a complete JSON file: the file is truncated', folder, whole[:-20])
    refused(r'is not a complete JSON file: the file is truncated or empty', folder, '')
    refused(r'is not a complete JSON file: line 1, column 2', folder, '{images: 3}')
    refused('json is a list, .* images, annotations and categories', folder, [{'image_id': 1, 'bbox': [1, 2, 3, 4]}])
    message = refused(
        "There is no list annotations; it has 'categories', 'images'", folder, {'images': [], 'categories': []}
    )
    assert "COCO's instance annotations" in message
    refused('no list images and no list annotations', folder, {'shapes': []})
    refused(r'annotations\[0\] is 5', folder, {'images': [], 'annotations': [5]})
    refused('images is empty', folder, {'images': [], 'annotations': []})
    (folder / 'annotations/instances_train.json').write_bytes(b'{"images": "l\xe4ke"}')
    refused('not a complete JSON file: expected UTF-8; byte 13', folder)


def test_missing_images_are_named_and_counted(folder):
    data = contents()
    data['images'] += [{'id': n, 'file_name': f'gone{n}.jpg', 'height': 5, 'width': 5} for n in range(7)]
    message = refused(r'7 of 10 images are not in .*train: .gone0\.jpg', folder, data)
    assert "'gone4.jpg', …" in message and 'gone5' not in message and "It holds 'img0.png'" in message


def test_file_names_with_folders(folder):
    data = contents()
    (folder / 'train/sub').mkdir()
    (folder / 'train/img1.png').rename(folder / 'train/sub/img1.png')
    data['images'][1]['file_name'] = 'sub\\img1.png'
    write(folder, data)
    dataset = coco(data_dir=str(folder))
    dataset.verify()
    assert dataset.image_name(1) == 'sub/img1' and len(examples(dataset)) == 3
    data['images'][0]['file_name'] = 'train/img0.png'
    refused("1 of 3 images are not in .*write 'img0.png', without folders, as file_name", folder, data)


@pytest.mark.parametrize('verify', [True, False])
def test_sizes_that_differ_from_the_files(folder, verify):
    data = contents()
    data['images'][2] |= {'height': 30}
    refused(r'img2\.png is 25x25 pixels \(width x height\), but 25x30 in .*scaled after', folder, data, verify=verify)
    data = contents()
    data['images'][0] |= {'height': 40, 'width': 30}
    refused(r'1 of 3 images.*\n.*img0\.png.*swapped', folder, data, verify=verify)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(folder / 'train/img0.png').save(folder / 'train/img0.jpg', exif=turned)
    data['images'][0]['file_name'] = 'img0.jpg'
    refused(r'EXIF orientation 6.*auto-orient', folder, data, verify=verify)
    # In the graph such an example is an error, which the pipeline turns into one of weight 0.
    found = tf.data.Dataset.range(3).map(coco(data_dir=str(folder)).load).ignore_errors()
    assert [e['image'].shape[0] for e in found] == [34, 25]


def test_damaged_images_are_found(folder):
    path = folder / 'train/img1.png'
    path.write_bytes(path.read_bytes()[:-40])
    refused(r'1 of 3 images.*\n.*img1\.png: the file is truncated or damaged', folder)
    coco(data_dir=str(folder), verify=False).verify()
    path.write_bytes(b'GIF89a')
    refused(r'img1\.png: not a readable image: .* GIF', folder, verify=False)


def test_entries_of_images(folder):
    data = contents()
    data['images'][1]['id'] = 100
    refused(r"images\[1\], 'img1\.png': the id 100 also belongs to 'img0\.png'", folder, data)
    for change, message in (
        ({'file_name': None}, r'images\[1\], id 101: file_name is None'),
        ({'height': None}, r'images\[1\], .img1\.png.: height is None and width 28'),
        ({'width': -4}, r'width -4'),
        ({'height': 9000, 'width': 9000}, r'expected pixels, and at most 67108864 per image'),
        ({'id': None}, r'images\[1\]: id is None'),
    ):
        data = contents()
        data['images'][1] |= change
        refused(message, folder, data)


def test_unknown_images_and_classes(folder):
    data = contents()
    data['annotations'] += [annotation(50 + n, 9, [SQUARE]) for n in range(7)]
    message = refused(r'7 of 11 annotations cannot be used:\n  annotation 50: image_id is 109', folder, data)
    assert 'It lists 100, 101, 102.' in message and 'annotation 54' in message and '… and 2 more.' in message
    data = contents()
    data['annotations'][1]['category_id'] = 8
    refused(r'annotation 5: category_id is 8; categories lists 7, 13, 90.* remove', folder, data)
    del data['annotations'][1]['id'], data['annotations'][1]['image_id']
    refused(r'annotations\[1\]: image_id is None', folder, data)


def test_categories(folder):
    data = contents()
    data['categories'][1]['name'] = 'zebra'
    refused("the ids 90 and 7 both have the name 'zebra'", folder, data)
    data['categories'][1] = {'id': 90, 'name': 'ant'}
    refused(r"categories\[1\], 'ant': the id 90 also belongs to 'zebra'", folder, data)
    data['categories'][1] = {'name': 'ant'}
    refused(r"categories\[1\] is \{'name': 'ant'\}: expected", folder, data)
    del data['categories']
    refused(r'there are no categories, but the annotations have the category ids 13, 7, 90', folder, data)
    for entry in data['annotations']:
        del entry['category_id']
    write(folder, data)
    info = coco(data_dir=str(folder)).info
    assert info.class_names == ('object',) and info.original_ids == (1,)
    data['categories'] = [{'id': 0, 'name': 'cell'}]
    write(folder, data)
    info = coco(data_dir=str(folder)).info
    assert info.class_names == ('cell',) and info.original_ids == (0,)


NOT_COVERING = "run lengths whose sum is not the image's height times its width"


def unusable():
    """Segmentations that give no mask, and the reason reported for each."""
    compressed, counts = runs(0)
    empty = coco_mask.encode(np.zeros([30, 40], np.uint8, order='F'))
    return [
        ([], 'an empty segmentation'),
        (None, 'a box only, no segmentation'),
        ([[1, 2, 3, 4]], 'a polygon of four numbers, which is two points or a box'),
        ([[1, 2, 3, 4, 5, 6, 7]], 'a polygon with an odd number of values'),
        ([[]], 'an empty polygon'),
        ([[1, 2]], 'a polygon of a single point'),
        ('1 2 3 4 5 6', 'a segmentation that is neither polygons nor run lengths'),
        (5, 'a segmentation that is neither polygons nor run lengths'),
        ([['a', 2, 3, 4, 5, 6]], 'a polygon that is not a list of numbers'),
        ([[{'x': 1, 'y': 2}]], 'a polygon that is not a list of numbers'),
        ([[[[1, 2, 3, 4, 5, 6]]]], 'a polygon that is not a list of numbers'),
        ([[1, 2, 3, 4, 5, 10**400]], 'a polygon that is not a list of numbers'),
        ([[1, 2, 3, 4, 5, float('nan')]], 'a polygon that reaches far out of the image'),
        ([[1, 2, 3, 4, 5, 1e12]], 'a polygon that reaches far out of the image'),
        ([[1, 2, 3, 4, 5, 1e308]], 'a polygon that reaches far out of the image'),
        ([[0.1, 0.2, 0.7, 0.2, 0.7, 1]], 'coordinates from 0 to 1, but COCO has pixels'),
        ([[50, 50, 60, 50, 60, 60]], 'a mask without a pixel in the image'),
        ({'size': [30, 40], 'counts': empty['counts'].decode()}, 'a mask without a pixel in the image'),
        ({'size': [30, 40], 'counts': [1, 0, 1199]}, 'a mask without a pixel in the image'),
        ({'size': [40, 30], 'counts': counts}, 'a run-length encoding whose size is not the size of the image'),
        ({'size': 5, 'counts': counts}, 'a run-length encoding whose size is not the size of the image'),
        ({'size': [30, 40], 'counts': compressed['counts'].decode()[:-3]}, NOT_COVERING),
        ({'size': [30, 40], 'counts': 'läke'}, 'a damaged run-length encoding'),
        ({'size': [30, 40], 'counts': ''}, 'a damaged run-length encoding'),
        ({'size': [30, 40], 'counts': '0' * 10_000}, 'a damaged run-length encoding'),
        ({'size': [30, 40], 'counts': [3, -3, 1200]}, 'run lengths that are not whole numbers'),
        ({'size': [30, 40], 'counts': [0.5, 1199.5]}, 'run lengths that are not whole numbers'),
        ({'size': [30, 40], 'counts': [[600], [600]]}, 'run lengths that are not whole numbers'),
        ({'size': [30, 40], 'counts': [2**64, None]}, 'run lengths that are not whole numbers'),
        ({'size': [30, 40], 'counts': [3, 5]}, NOT_COVERING),
        ({'size': [30, 40], 'counts': [2**62] * 4 + [1200]}, NOT_COVERING),
        ({'size': [30, 40]}, 'a run-length encoding without counts'),
        ({}, 'a run-length encoding without counts'),
    ]


def test_instances_without_a_usable_mask_are_dropped_and_counted_in_one_line(folder, caplog):
    data = contents()
    data['annotations'][1:1] = [annotation(50 + n, 0, bad) for n, (bad, _) in enumerate(unusable())]
    write(folder, data)
    with caplog.at_level(logging.WARNING):
        dataset = verified(folder)
    line, noted, _ = [record.getMessage() for record in caplog.records]
    count = len(unusable())
    assert f'{count} of {count + 4} instances have no usable mask and are dropped: ' in line
    for _, reason in unusable():
        assert f'{sum(r == reason for _, r in unusable())} with {reason}' in line
    assert "the first: annotation 50 of 'img0.png' (an empty segmentation), annotation 51 of 'img0.png' (a box" in line
    assert 'annotation 54' in line and 'annotation 55' not in line
    assert (
        f'1 of {count + 4} instances are kept, but' in noted
        and '1 with a polygon of four' in noted
        and "annotation 3 of 'img0.png'" in noted
    )
    assert [len(example['boxes']) for example in examples(dataset)] == [2, 2, 0]
    whole = coco(data_dir=str(folder)).annotations(0)
    write(folder, contents())
    for part, kept in zip(whole, coco(data_dir=str(folder)).annotations(0), strict=True):
        assert np.array_equal(part, kept)


def test_boxes_and_areas_that_do_not_fit_their_masks_are_reported_and_used(folder):
    """Of runs and of polygons; small differences, such as those by rounding, are not reported."""
    square = [10, 10, 20, 10, 20, 20, 10, 20]  # Pixels 10 to 19.
    drawn = coco_mask.frPyObjects([square], *SIZES[0])[0] | {'size': list(SIZES[0])}
    drawn['counts'] = drawn['counts'].decode()
    cases = [
        {'bbox': [10, 10, 10, 10], 'area': 100},
        {'bbox': [9, 9, 12, 12], 'area': 160},
        {'bbox': [6, 6, 20, 20], 'area': 100},  # loose_box
        {'bbox': [10, 10, 10, 10], 'area': 250},  # strange_area
        {'bbox': [10, 10, 10, 10], 'area': 30},  # strange_area
        {'bbox': [10, 10, 10, 10], 'area': None},
    ]
    data = contents() | {'annotations': []}
    for number, more in enumerate(cases):
        data['annotations'] += [annotation(2 * number, 0, [square], **more)]
        data['annotations'] += [annotation(2 * number + 1, 0, drawn, **more)]
    write(folder, data)
    dataset = coco(data_dir=str(folder))
    found = {finding.kind: finding for finding in dataset.findings(False)}
    assert found.keys() == {'loose_box', 'strange_area'} and found['strange_area'].severity == 'note'
    assert '2 of 12 instances' in found['loose_box'].text and "annotation 4 of 'img0.png'" in found['loose_box'].text
    assert '2 with more than 2 times the area of the mask, 2 with less' in found['strange_area'].text
    truth = dataset.annotations(0)
    assert truth.boxes[4].tolist() == [6, 6, 26, 26] and truth.area[6:10].tolist() == [250, 250, 30, 30]
    assert truth.area[10:].tolist() == [100, 100]


def test_no_usable_instance(folder):
    data = contents()
    data['annotations'] = [annotation(n, 0, []) for n in range(3)]
    refused(
        r'none of its 3 instances has a usable mask: 3 with an empty segmentation; .*: annotation 0',
        folder,
        data,
    )
    data['annotations'] = []
    write(folder, data)
    dataset = coco(data_dir=str(folder))
    assert [len(example['boxes']) for example in examples(dataset)] == [0, 0, 0]
    assert dataset.annotations(1).masks == [] and dataset.class_histogram().pixels.tolist() == [0, 0, 0]


def test_boxes_and_areas_come_from_the_mask_where_the_file_has_none(folder, caplog):
    data = contents()
    strange = [
        {'bbox': None}, {'bbox': [4, 5, 0, 12]}, {'bbox': [4, 5, -3, 12]}, {'bbox': [float('nan'), 5, 10, 12]},
        {'bbox': [4, 5, 10]}, {'bbox': 'box'}, {'bbox': [30, 25, 9, 4]},
        {'bbox': [20, 15, 30, 25], 'segmentation': [[20, 15, 30, 15, 30, 25, 20, 25]]},
        {'area': None}, {'area': -1}, {'area': 0}, {'area': float('inf')},
    ]  # fmt: skip
    data['annotations'] = [
        annotation(n, 0, **{'segmentation': SQUARE if n % 2 else [SQUARE]} | odd) for n, odd in enumerate(strange)
    ]
    del data['annotations'][0]['bbox'], data['annotations'][8]['area']
    write(folder, data)
    with caplog.at_level(logging.WARNING):
        truth = verified(folder).annotations(0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert '8 of 12 instances have no valid box; ' in line and ': 6 with no box, or an empty one, ' in line
    assert '1 with a box that does not overlap its mask' in line
    assert '1 with a box of two corners, but COCO has x, y, width, height' in line
    boxes = np.tile(np.float32([5, 4, 17, 14]), [12, 1])
    boxes[7] = [15, 20, 25, 30]
    np.testing.assert_array_equal(truth.boxes, boxes)
    np.testing.assert_array_equal(truth.area, np.full(12, 120))


def test_boxes_are_limited_to_the_image(folder):
    data = contents()
    data['annotations'][0] |= {'bbox': [-3, 5, 60, 99], 'segmentation': [[-3, 5, 60, 5, 60, 99, -3, 99]]}
    write(folder, data)
    np.testing.assert_array_equal(coco(data_dir=str(folder)).annotations(0).boxes[0], [5, 0, 30, 40])


def test_two_annotations_of_one_id_give_a_warning(folder, caplog):
    data = contents()
    data['annotations'].append(copy.deepcopy(data['annotations'][0]))
    write(folder, data)
    with caplog.at_level(logging.WARNING):
        dataset = verified(folder)
    assert re.search(r'1 annotations have the id of an earlier one, such as 0\.', caplog.text)
    assert len(dataset.annotations(0).classes) == 3
