"""Two folders of any names: the same examples from every kind of label file, and every mistake in one message."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets.folders import folders
from seg.errors import UserError

SIZE = (12, 18)
COLORS = {'sky': (70, 130, 180), 'road': (128, 64, 128), 'car': (0, 0, 142)}


def label(n):
    """Values 0 to 2, and 255."""
    stored = np.zeros(SIZE, np.uint8)
    stored[4:, :], stored[6:9, n : n + 4], stored[0] = 1, 2, 255
    return stored


def photo(n, size=SIZE):
    return Image.fromarray(np.random.default_rng(n).integers(0, 256, [*size, 3], dtype=np.uint8))


def write(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def data(tmp_path):
    """Ten photos, and label maps of the same names."""
    for n in range(10):
        write(tmp_path / f'my photos/img_{n}.JPG', photo(n), quality=95)
        write(tmp_path / f'drawn/img_{n}.png', Image.fromarray(label(n)))
    return tmp_path


def made(root, **settings):
    return folders(**{'data_dir': str(root), 'images': 'my photos', 'labels': 'drawn'} | settings)


def refused(root, **settings):
    with pytest.raises(UserError) as caught:
        made(root, **settings).verify()
    return str(caught.value)


def labels_of(dataset):
    examples = tf.data.Dataset.range(dataset.info.num_examples).map(dataset.load).as_numpy_iterator()
    return {dataset.image_name(n): example['label'] for n, example in enumerate(examples)}


def names_of(dataset):
    return [dataset.image_name(n) for n in range(dataset.info.num_examples)]


# ---- Places and names ----


def test_two_folders_are_enough(data, caplog):
    train, val = made(data), made(data, split='val')
    with caplog.at_level('WARNING'):
        train.verify()
    assert 'no class is named' in caplog.text and "0 'class 0', 1 'class 1', 2 'class 2'" in caplog.text
    assert train.info.name == 'folders/train' and train.info.class_names == ('class 0', 'class 1', 'class 2')
    assert (train.info.num_examples, val.info.num_examples) == (8, 2)
    assert sorted(names_of(train) + names_of(val)) == [f'img_{n}' for n in range(10)]
    for name, found in (labels_of(train) | labels_of(val)).items():
        np.testing.assert_array_equal(found, label(int(name[-1])))
    spec = tf.data.Dataset.range(1).map(train.load).element_spec
    assert spec['image'].shape.as_list() == [None, None, 3] and spec['label'].dtype == tf.int32
    stored = np.array(Image.open(train.image_path(0)))
    assert np.abs(train.load(tf.constant(0, tf.int64))['image'].numpy().astype(int) - stored).max() <= 1
    counts = sum(np.bincount(found[found != 255], minlength=3) for found in labels_of(train).values())
    assert train.class_histogram().pixels.tolist() == counts.tolist()


@pytest.mark.parametrize(
    'image, mask, settings',
    [
        ('p/{}.jpg', 'm/{}_mask.png', {'images': 'p', 'labels': 'm'}),
        ('p/img{}.jpg', 'm/mask{}.PNG', {'images': 'p', 'labels': 'm'}),
        ('p/city/a{}_photo.jpg', 'm/city/a{}_labels.png', {'images': 'p', 'labels': 'm'}),
        ('all/{}.jpg', 'all/{}_L.png', {'images': 'all/*.jpg', 'labels': 'all/*_L.png'}),
        ('all/{}.JPEG', 'all/{}.png', {'images': 'all/*.jpeg', 'labels': 'all/*.png'}),
        ('c1/rgb/{}.jpg', 'c1/gt/{}.png', {'images': '*/rgb/*.jpg', 'labels': '*/gt/*.png'}),
        ('x/y/{}.jpg', 'z/x/y/{}.png', {'images': '**/*.jpg', 'labels': 'z/**/*.png'}),
        ('p/{}.jpg', 'p/{}_mask.png', {'images': 'p/*.jpg', 'labels': 'p'}),
    ],
)
def test_names_as_in_practice(tmp_path, image, mask, settings):
    for n in range(10):
        write(tmp_path / image.format(n), photo(n), format='JPEG')
        write(tmp_path / mask.format(n), Image.fromarray(label(n)), format='PNG')
    (tmp_path / image.format('.x')).with_name('.DS_Store').touch()
    dataset = folders(data_dir=str(tmp_path), fractions={'all': 1.0}, split='all', **settings)
    dataset.verify()
    assert dataset.info.num_examples == 10
    for n, found in enumerate(labels_of(dataset).values()):
        np.testing.assert_array_equal(found, label(n))


def test_splits(data, tmp_path_factory):
    (data / 'lists').mkdir()
    (data / 'lists/val.txt').write_text('img_3.JPG\nmy photos/img_1.JPG drawn/img_1.png\n')
    assert names_of(made(data, lists='lists/{split}.txt', split='val')) == ['img_3', 'img_1']
    assert 'lists/test.txt' in refused(data, lists='lists/{split}.txt', split='test')
    assert 'datasets.folders.lists' in refused(data, lists='lists/val.txt')
    assert "'test'" in refused(data, split='test') and "'train' or 'val'" in refused(data, split='test')
    half = {'train': 0.5, 'val': 0.5}
    assert len(names_of(made(data, fractions=half))) == 5 and len(names_of(made(data, split='train+val'))) == 10
    assert len(names_of(made(data, fractions=half, groups=r'^(img)', split='val'))) == 10  # One group.
    root = tmp_path_factory.mktemp('split')
    for n, part in enumerate(['train', 'train', 'val']):
        write(root / f'a/{part}/{n}.jpg', photo(n))
        write(root / f'b/{part}/{n}.png', Image.fromarray(label(n)))
        write(root / f'{part}/a/{n}.jpg', photo(n))
        write(root / f'{part}/b/{n}.png', Image.fromarray(label(n)))
    for settings in ({'images': 'a', 'labels': 'b'}, {'images': '{split}/a', 'labels': '{split}/b'}):
        found = [made(root, split=part, **settings) for part in ('train', 'val', 'train+val')]
        assert [dataset.info.num_examples for dataset in found] == [2, 1, 3]
        assert names_of(found[1]) == ['val/2']
    assert "'train', 'val'" in refused(root, images='a', labels='b', split='test')


def test_missing_places(data):
    assert 'datasets.folders.images' in refused(data, images=None) and "'drawn', 'my photos'" in refused(
        data, images=None
    )
    assert 'nowhere' in refused(data, labels='nowhere')
    assert 'no file that fits the glob' in refused(data, images='drawn/*.bmp')
    assert 'data_dir' in refused(data / 'gone')
    (data / 'drawn/img_4.png').unlink()
    assert "1 of 10 images have no file there, such as 'img_4'" in refused(data, split='train+val')
    write(data / 'drawn/spare_1.png', Image.fromarray(label(1)))
    (data / 'my photos/img_4.JPG').unlink()
    spare = [found for found in made(data).findings(False) if found.kind == 'labels_without_image']
    assert 'spare_1.png' in spare[0].text and '1 of 10' in spare[0].text
    write(data / 'my photos/img_5.png', photo(5))
    assert "same name 'img_5'" in refused(data)
    for name in ('JPEGImages/a.jpg', 'SegmentationClass/a.png', 'ImageSets/Segmentation/train.txt'):
        (data / name).parent.mkdir(parents=True)
        (data / name).touch()
    assert '@datasets.voc_layout' in refused(data, images='pictures')


# ---- Kinds of labels ----


def palette(stored):
    image = Image.frombytes('P', stored.shape[::-1], stored.tobytes())
    image.putpalette([part for color in COLORS.values() for part in color] + [9] * 759)
    return image


def colored(stored, mode='RGB'):
    table = np.zeros([256, 3], np.uint8)
    table[:3] = list(COLORS.values())
    image = Image.fromarray(table[stored])
    return image.quantize(8) if mode == 'P' else image.convert(mode)


def of_16_bits(stored):
    """PNG of three channels of 16 bits, which Pillow does not write."""
    return tf.io.encode_png(np.repeat(stored.astype(np.uint16)[..., None], 3, axis=2)).numpy()


KINDS = {
    'grey': (Image.fromarray, 'png'),
    'palette': (palette, 'png'),
    'of three channels': (lambda stored: Image.fromarray(stored).convert('RGB'), 'png'),
    'with alpha': (lambda stored: Image.fromarray(stored).convert('RGBA'), 'png'),
    'grey with alpha': (lambda stored: Image.fromarray(stored).convert('LA'), 'png'),
    '16 bits': (lambda stored: Image.fromarray(stored.astype(np.uint16)), 'png'),
    'tiff': (Image.fromarray, 'tif'),
    'tiff of 16 bits': (lambda stored: Image.fromarray(stored.astype(np.uint16)), 'tiff'),
    'tiff of 32 bits': (lambda stored: Image.fromarray(stored.astype(np.float32)), 'tiff'),
    'bmp': (Image.fromarray, 'bmp'),
    'npy': (lambda stored: stored.astype(np.int64), 'npy'),
    'npy of numbers': (lambda stored: stored.astype(np.float64)[..., None], 'npy'),
}


def write_labels(data, make, ending):
    for n in range(10):
        (data / f'drawn/img_{n}.png').unlink()
        stored = make(label(n))
        if ending == 'npy':
            np.save(data / f'drawn/img_{n}.npy', stored)
        else:
            stored.save(data / f'drawn/img_{n}.{ending}')


@pytest.mark.parametrize('kind', ['palette', 'npy', 'npy of numbers'])
def test_every_kind_gives_the_same_ids(data, kind):
    write_labels(data, *KINDS[kind])
    dataset = made(data, class_names=list(COLORS), split='val')
    dataset.verify()
    for name, found in labels_of(dataset).items():
        np.testing.assert_array_equal(found, label(int(name[-1])))
    if kind == 'palette':
        assert dataset.info.colors == tuple(COLORS.values())


def test_kinds_may_be_mixed(data):
    for n, (make, ending) in enumerate(list(KINDS.values())[:10]):
        (data / f'drawn/img_{n}.png').unlink()
        make(label(n)).save(data / f'drawn/img_{n}.{ending}')
    dataset = made(data, split='train+val')
    dataset.verify()
    for name, found in labels_of(dataset).items():
        np.testing.assert_array_equal(found, label(int(name[-1])))


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P'])
def test_colors(data, mode):
    (data / 'colors.txt').write_text('# of the city\nsky = #4682B4\nroad: #804080\n\ncar #00008e\nvoid=#000000\n')
    write_labels(data, lambda stored: colored(stored, mode), 'png')
    dataset = made(data, colors='colors.txt', void=['void'], split='val')
    dataset.verify()
    assert dataset.info.class_names == tuple(COLORS) and dataset.info.colors == tuple(COLORS.values())
    for name, found in labels_of(dataset).items():
        np.testing.assert_array_equal(found, label(int(name[-1])))
    pixels = made(data, colors='colors.txt', void=['void'], split='val').class_histogram().pixels
    assert pixels.sum() == 2 * (SIZE[0] - 1) * SIZE[1]
    dataset = made(data, colors={'sky': '#4682b4', 'rest': '#000000'}, split='val')
    message = refused(data, colors={'sky': '#4682b4', 'rest': '#000000'}, split='val')
    assert '#804080' in message and dataset.info.num_classes == 2
    assert (
        message.count('img_') == 2 and message.count('datasets.folders.colors') == 2
    )  # Classes and remedy, once each.


def test_colors_without_a_table(data):
    write_labels(data, colored, 'png')
    message = refused(data)
    assert '#4682b4' in message and 'datasets.folders.colors' in message
    (data / 'colors.txt').write_text('sky = #4682B4\nroad = #804080\ncar = #00008e\nvoid = #000000\n')
    assert made(data, void=['void']).info.class_names == tuple(COLORS)


def test_names_of_classes_beside_a_table_of_colours(data):
    """Ids follow the names; the table is for labels that hold colours only."""
    (data / 'colors.txt').write_text(
        ''.join(f'{name} = #{r:02x}{g:02x}{b:02x}\n' for name, (r, g, b) in COLORS.items())
    )
    assert made(data, class_names=('a', 'b', 'c'), split='val').info.original_ids is None
    write_labels(data, lambda stored: colored(np.minimum(stored, 2)), 'png')
    order = [2, 0, 1]
    dataset = made(data, class_names=[list(COLORS)[n] for n in order], split='val')
    dataset.verify()
    assert dataset.info.class_names == ('car', 'sky', 'road')
    assert dataset.info.colors == tuple(list(COLORS.values())[n] for n in order)
    for name, found in labels_of(dataset).items():
        np.testing.assert_array_equal(np.array(order)[found], np.minimum(label(int(name[-1])), 2))
    message = refused(data, class_names=('sky', 'road', 'truck'))
    assert "'car', 'truck'" in message and 'datasets.folders.class_names' in message and 'colors.txt' in message
    (data / 'class_names.txt').write_text('road\nsky\ncar\n')
    assert made(data, split='val').info.class_names == ('road', 'sky', 'car')


def test_three_channels_of_16_bits(data):
    stored = label(3).astype(int)
    numbers = np.where(stored == 255, 255, stored * 300)
    expected = np.where(np.isin(label(3), (1, 2)), label(3) + 2, label(3))
    (data / 'drawn/img_3.png').write_bytes(of_16_bits(numbers))
    dataset = made(data, split='train+val', values=(0, 1, 2, 300, 600), class_names=list('abcde'))
    dataset.verify()
    np.testing.assert_array_equal(labels_of(dataset)['img_3'], expected)
    assert '#010101' in refused(data, split='train+val', colors={'a': '#000000', 'b': '#020202'})


def test_a_folder_beside_those_of_the_splits(data, caplog):
    for n in range(10):
        part = 'train' if n < 6 else 'val' if n < 8 else 'extra'
        for folder, ending in (('my photos', 'JPG'), ('drawn', 'png')):
            if (old := data / folder / f'img_{n}.{ending}').exists():
                (data / folder / part).mkdir(exist_ok=True)
                old.rename(data / folder / part / old.name)
    dataset = made(data)
    (found,) = [each for each in dataset.findings(full=False) if each.kind == 'images_of_no_split']
    assert found.count == 2 and "'extra/img_8'" in found.text and dataset.info.num_examples == 6


def test_masks_of_0_and_255_and_of_1_bit(data):
    for n in range(10):
        Image.fromarray(np.where(label(n) == 1, 255, 0).astype(np.uint8)).save(data / f'drawn/img_{n}.png')
    for names in (None, ('ground', 'thing')):
        dataset = made(data, class_names=names, split='val')
        dataset.verify()
        assert dataset.info.class_names == names or ('background', 'foreground')
        assert dataset.info.original_ids == (0, 255)
        for name, found in labels_of(dataset).items():
            np.testing.assert_array_equal(found, label(int(name[-1])) == 1)
    for n in range(10):
        Image.fromarray(label(n) == 1).save(data / f'drawn/img_{n}.png')
    dataset = made(data, split='val')
    dataset.verify()
    assert dataset.info.num_classes == 2 and dataset.info.original_ids is None


def test_values_of_classes(data):
    for n in range(10):
        Image.fromarray(np.where(label(n) == 255, 0, label(n) + 1).astype(np.uint8)).save(data / f'drawn/img_{n}.png')
    dataset = made(data, values=(1, 2, 3), ignore_values=(0,), split='val')
    dataset.verify()
    assert dataset.info.class_names == ('class 1', 'class 2', 'class 3') and dataset.info.original_ids == (1, 2, 3)
    for name, found in labels_of(dataset).items():
        np.testing.assert_array_equal(found, label(int(name[-1])))
    message = refused(data, values=(1, 2), ignore_values=(0,))
    assert '3 (' in message and 'datasets.folders.values' in message
    assert 'datasets.folders.values' in refused(data, values=(1, 1)) and '3 values for 2' in refused(
        data, values=(1, 2, 3), class_names=('a', 'b')
    )


def test_a_value_beyond_a_gap_is_wrong(data):
    stored = label(3)
    stored[5, 5:8] = 9
    Image.fromarray(stored).save(data / 'drawn/img_3.png')
    message = refused(data, split='train+val')
    assert 'img_3.png' in message and '9 (3 pixels)' in message and '0..2' in message and '1 of 10' in message
    assert made(data, split='train+val', ignore_values=(9, 255)).info.num_classes == 3


def test_labels_from_1(data):
    for n in range(10):
        Image.fromarray(label(n) % 255 + 1).save(data / f'drawn/img_{n}.png')
    message = refused(data)
    assert '1, 2, 3' in message and 'datasets.folders.values' in message


def test_refused_labels(data):
    stream = io.BytesIO()
    Image.fromarray(label(0)).save(stream, 'JPEG')
    (data / 'drawn/img_0.png').write_bytes(stream.getvalue())
    assert 'blurs' in refused(data, split='train+val')
    for n in range(10):
        (data / f'jpeg/img_{n}.jpg').parent.mkdir(exist_ok=True)
        (data / f'jpeg/img_{n}.jpg').write_bytes(stream.getvalue())
    message = refused(data, labels='jpeg')  # Without names and without a value.
    assert (
        'datasets.folders.labels' in message and '10 of 10' in message and 'img_4.jpg: the label is a JPEG' in message
    )
    np.save(data / 'drawn/img_0.npy', np.zeros([3, *SIZE]))
    (data / 'drawn/img_0.png').unlink()
    assert 'img_0.npy' in refused(data, split='train+val') and '(3, 12, 18)' in refused(data, split='train+val')
    np.save(data / 'drawn/img_0.npy', np.full(SIZE, 0.5))
    assert 'whole numbers' in refused(data, split='train+val')
    np.save(data / 'drawn/img_0.npy', np.full(SIZE, None), allow_pickle=True)
    assert 'img_0.npy' in refused(data, split='train+val')
    np.save(data / 'drawn/img_0.npy', np.zeros([3, 4], int))
    assert '4x3 pixels' in refused(data, split='train+val')


# ---- Images ----


@pytest.mark.parametrize('ending', ['webp', 'tif', 'bmp', 'gif', 'png'])
def test_other_formats_of_images(data, ending):
    """One among JPEG files: the others do not pass through Python."""
    (data / 'my photos/img_2.JPG').unlink()
    options = {'lossless': True} if ending == 'webp' else {}
    photo(2).save(data / f'my photos/img_2.{ending}', **options)
    dataset = made(data, fractions={'all': 1.0}, split='all')
    dataset.verify()
    found = [example['image'] for example in tf.data.Dataset.range(10).map(dataset.load).as_numpy_iterator()]
    expected = np.array(Image.open(data / f'my photos/img_2.{ending}').convert('RGB'))
    np.testing.assert_array_equal(found[2], expected)


def test_images_of_cmyk_and_of_16_bits(data):
    photo(0).convert('CMYK').save(data / 'my photos/img_0.JPG')
    for n, ending in ((1, 'tif'), (2, 'png')):
        (data / f'my photos/img_{n}.JPG').unlink()
        grey = np.array(photo(n))[..., 0].astype(np.uint16) * 257
        Image.fromarray(grey).save(data / f'my photos/img_{n}.{ending}')
    dataset = made(data, fractions={'all': 1.0}, split='all')
    dataset.verify()
    found = [example['image'] for example in tf.data.Dataset.range(3).map(dataset.load).as_numpy_iterator()]
    for n in (1, 2):
        np.testing.assert_array_equal(found[n][..., 1], np.array(photo(n))[..., 0])
    assert found[0].shape == (*SIZE, 3)


def test_orientation_and_damage(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    for n, ending in ((0, 'JPG'), (1, 'webp')):
        (data / f'my photos/img_{n}.JPG').unlink()
        photo(n, SIZE[::-1]).save(data / f'my photos/img_{n}.{ending}', exif=exif)
    assert "datasets.folders.orientation = 'apply'" in refused(data, split='train+val')
    dataset = made(data, orientation='apply', split='train+val')
    dataset.verify()
    assert all(
        example['image'].shape[:2] == SIZE
        for example in tf.data.Dataset.range(10).map(dataset.load).as_numpy_iterator()
    )
    path = data / 'my photos/img_1.webp'
    path.write_bytes(path.read_bytes()[:-40])
    assert 'img_1.webp' in refused(data, split='train+val', orientation='apply')


# ---- Instances ----


def test_instances_of_one_class(data):
    for n in range(10):
        numbers = np.zeros(SIZE, np.uint16 if n % 2 else np.uint8)
        numbers[2:4, 3:6], numbers[6:8, n : n + 2] = 1, 255 if n % 2 == 0 else 3000
        write(data / f'cells/img_{n}.png', Image.fromarray(numbers))
    settings = {'labels': None, 'instances': 'cells', 'target': 'instances', 'split': 'train+val'}
    dataset = made(data, class_names=('cell',), **settings)
    dataset.verify()
    assert dataset.info.class_names == ('cell',) and made(data, **settings).info.class_names == ('object',)
    truth = dataset.annotations(4)
    assert truth.area.tolist() == [6, 4] and truth.classes.tolist() == [0, 0] and not truth.is_crowd.any()
    example = dataset.load(tf.constant(4, tf.int64))
    np.testing.assert_array_equal(example['boxes'], [[2, 3, 4, 6], [6, 4, 8, 6]])
    assert dataset.class_histogram().pixels.tolist() == [100]
    ignored = made(data, ignore_values=(255, 3000), **settings)
    assert ignored.annotations(4).area.tolist() == [6]
    assert 'datasets.folders.class_names' in refused(data, class_names=('a', 'b'), **settings)
    assert 'datasets.folders.instances' in refused(data, **settings | {'instances': None})


def test_instances_with_label_maps(data):
    for n in range(10):
        numbers = np.zeros(SIZE, np.uint8)
        numbers[6:9, n : n + 4], numbers[0] = 7, 255
        write(data / f'numbers/{n}_id.png', Image.fromarray(numbers))
        (data / f'drawn/img_{n}.png').rename(data / f'drawn/{n}_class.png')
        (data / f'my photos/img_{n}.JPG').rename(data / f'my photos/{n}.jpg')
    dataset = made(data, instances='numbers', target='instances', class_names=list(COLORS), split='val')
    dataset.verify()
    assert dataset.info.class_names == ('road', 'car') and dataset.info.original_ids == (1, 2)
    truth = dataset.annotations(0)
    assert truth.area.tolist() == [12] and truth.classes.tolist() == [1]
    assert made(data, instances='numbers', class_names=list(COLORS)).info.num_classes == 3
