"""The images that are found, and the names of their outputs."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets.base import Dataset
from seg.errors import UserError
from seg.prediction import data_set, reading, sources
from seg.structures import DatasetInfo


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Makes empty files in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def found(inputs, output='out'):
    """{file: name}, in order."""
    return {source.file: source.name for source in sources.from_files(inputs, output)}


def test_a_folder_is_searched_with_its_subfolders(files):
    files('in/b.jpg', 'in/a.PNG', 'in/deep/er/c d.webp', 'in/notes.txt', 'in/.hidden.jpg', 'in/.git/x.jpg', 'other.jpg')
    expected = {'in/a.PNG': 'a', 'in/b.jpg': 'b', 'in/deep/er/c d.webp': 'deep/er/c d'}
    assert found('in') == expected and list(found('in/')) == list(expected)


def test_every_extension(files):
    names = [f'in/{i}{extension}' for i, extension in enumerate(sources.EXTENSIONS)]
    files(*names)
    assert sorted(found('in')) == sorted(names)
    assert {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'} <= set(sources.EXTENSIONS)


def test_a_file(files):
    files('in/a.jpg', 'in/.hidden.jpg', 'in/scan.dat')
    assert found('in/a.jpg') == {'in/a.jpg': 'a'}
    assert found('in/.hidden.jpg') == {'in/.hidden.jpg': '.hidden'}
    assert found('in/scan.dat') == {'in/scan.dat': 'scan'}  # Named, so it is tried.


def test_globs(files):
    files('in/a.jpg', 'in/b.png', 'in/deep/c.jpg', 'in/deep/er/d.jpg', 'in/notes.txt', 'in/f.heic', 'in/.h.jpg')
    assert found('in/*.jpg') == {'in/a.jpg': 'a'}
    assert found('in/*') == {'in/a.jpg': 'a', 'in/b.png': 'b'}
    assert found('in/**/*.jpg') == {'in/a.jpg': 'a', 'in/deep/c.jpg': 'deep/c', 'in/deep/er/d.jpg': 'deep/er/d'}
    assert found('in/**') == found('in')
    assert found('in/d*/*.jpg') == {'in/deep/c.jpg': 'deep/c'}
    assert found('in/*.heic') == {'in/f.heic': 'f'}  # Asked for: the reason why not comes with the image.
    assert found(os.path.abspath('in/*.png')) == {os.path.abspath('in/b.png'): 'b'}
    os.chdir('in')
    assert found('*.jpg') == {'a.jpg': 'a'}


def test_a_name_that_looks_like_a_glob(files):
    files('in/a[1].jpg', 'in/a1.jpg')
    assert found('in/a[1].jpg') == {'in/a[1].jpg': 'a[1]'}


def test_home(files, monkeypatch, tmp_path):
    files('in/a.jpg')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert list(found('~/in')) == [str(tmp_path / 'in' / 'a.jpg')]


def test_several_inputs(files):
    files('in/a.jpg', 'in/b.jpg', 'in/c.jpg', 'in/deep/d.jpg')
    expected = {'in/a.jpg': 'a', 'in/c.jpg': 'c'}
    assert found('in/a.jpg,in/c.jpg') == found(['in/a.jpg', 'in/c.jpg']) == found('in/a.jpg,in/c.jpg,') == expected
    assert found(['in/[bc].jpg,in/a.jpg', 'in/deep']) == {
        'in/b.jpg': 'b', 'in/c.jpg': 'c', 'in/a.jpg': 'a', 'in/deep/d.jpg': 'deep/d'
    }  # fmt: skip
    assert len(found(['in', 'in/a.jpg', './in/../in/b.jpg', os.path.abspath('in')])) == 4  # Each once.


def test_commas_in_names(files):
    files('in/a,b.jpg', 'in/c.jpg', 'in/d, e/f,g.jpg', 'x')
    assert found('in/a,b.jpg') == {'in/a,b.jpg': 'a,b'}
    assert found('in/a,b.jpg,in/c.jpg') == found('in/c.jpg,in/a,b.jpg') == {'in/a,b.jpg': 'a,b', 'in/c.jpg': 'c'}
    assert found('in/d, e,in/c.jpg') == {'in/d, e/f,g.jpg': 'd, e/f,g', 'in/c.jpg': 'c'}
    assert len(found('in')) == 3


def test_one_base_name_out_of_two_folders(files):
    files('one/val/a.jpg', 'two/val/a.jpg')
    assert found(['one/val', 'two/val']) == {'one/val/a.jpg': 'one/val/a', 'two/val/a.jpg': 'two/val/a'}
    assert found('*/val/a.jpg') == {'one/val/a.jpg': 'one/val/a', 'two/val/a.jpg': 'two/val/a'}
    assert found('one/val/a.jpg,two/val/a.jpg') == {'one/val/a.jpg': 'one/val/a', 'two/val/a.jpg': 'two/val/a'}


def test_one_name_with_two_extensions(files):
    files('in/a.jpg', 'in/a.png', 'in/b.jpg', 'in/deep/a.jpg')
    assert found('in') == {
        'in/a.jpg': 'a.jpg', 'in/a.png': 'a.png', 'in/b.jpg': 'b', 'in/deep/a.jpg': 'deep/a'
    }  # fmt: skip


@pytest.mark.parametrize('seed', range(20))
def test_names_never_meet(files, seed):
    """Names that hold other names' extensions, such as a.jpg.png beside a.jpg and a.png."""
    random = np.random.default_rng(seed)
    parts = ['a', 'a.jpg', 'a.png', 'a.jpg.png', 'a.overlay', 'a.overlay.jpg']
    names = {f'in/{random.choice(parts)}{random.choice([".jpg", ".png", ".bmp"])}' for _ in range(8)}
    files(*names)
    outputs = [
        name + ending
        for name in found('in').values()
        for ending in (sources.CLASS_MAP, sources.OVERLAY, sources.PROBABILITIES)
    ]
    assert len(set(outputs)) == 3 * len(names)


def test_unusual_names(files):
    names = ['in/größe – 東京.jpg', "in/it's.jpg", 'in/a\nb.jpg', 'in/ c .jpg', 'in/a%b.jpg', 'in/-d.jpg', 'in/..e.jpg']
    files(*names)
    assert set(found('in')) == set(names) - {'in/..e.jpg'}  # Hidden.
    raw = os.fsencode('in/') + b'\xff.jpg'
    open(raw, 'w').close()
    assert os.fsdecode(raw) in found('in')


def test_links(files, tmp_path):
    """Links are followed; one that leads back up is no endless search."""
    files('in/a.jpg', 'elsewhere/b.jpg')
    os.symlink('../elsewhere', 'in/link')
    os.symlink('..', 'in/up')
    os.symlink('nowhere.jpg', 'in/broken.jpg')
    assert set(found('in')) == {'in/a.jpg', 'in/link/b.jpg'}  # Each folder once.
    assert found('in/broken.jpg') == {'in/broken.jpg': 'broken'}


def test_only_regular_files_are_images(files):
    files('in/a.jpg')
    os.mkdir('in/folder.jpg')
    os.mkfifo('in/pipe.jpg')
    assert set(found('in')) == set(found('in/*.jpg')) == {'in/a.jpg'}
    (source,) = sources.from_files('in/pipe.jpg', 'out')
    with pytest.raises(reading.ImageError, match='regular file'):
        source.load()


def test_the_output_folder_is_not_searched(files):
    files('in/a.jpg', 'in/out/a.overlay.jpg', 'in/out/a.png', 'in/out/deep/b.png')
    for inputs in ('in', 'in/**', 'in/**/*.jpg'):
        assert found(inputs, 'in/out') == {'in/a.jpg': 'a'}
    assert found('in/out', 'out')  # Unless it is another one.


@pytest.mark.parametrize(
    ('inputs', 'output', 'expected'),
    [
        ('nowhere', 'out', ['--input=nowhere', 'no such file or folder']),
        ('in/a.jpg,in/typo.jpg', 'out', ['--input=in/typo.jpg', 'no such file']),
        ('empty', 'out', ['--input=empty', 'no image found', '.jpg, .pbm']),
        ('in/*.tiff', 'out', ['--input=in/*.tiff', 'no image found']),
        (['in', 'nowhere/*'], 'out', ['--input=nowhere/*', 'no image found']),
        ('', 'out', ["--input=''", 'a folder or a glob']),
        ('in', 'in', ['--output=in', 'Choose another --output', 'in/predicted']),
        ('in/*.jpg', 'in', ['--output=in', '--input=in/*.jpg', 'in/predicted']),
        ('in/b.png', 'in', ['--output=in', 'in/b.png would be overwritten']),
        ('legend.jpg', '.', ['--output=.', 'legend.jpg would be overwritten']),
        (['other/b.jpg', 'out/other/b.png', 'in/a.jpg'], 'out', ['out/other/b.png would be overwritten']),
    ],
)
def test_mistakes(files, inputs, output, expected):
    files('in/a.jpg', 'in/b.png', 'empty/x.txt', 'other/b.jpg', 'out/other/b.png', 'legend.jpg')
    with pytest.raises(UserError) as caught:
        sources.from_files(inputs, output)
    assert all(part in str(caught.value) for part in expected), caught.value


def test_next_to_the_image(files):
    files('in/a.jpg')
    assert found('in/a.jpg', 'in') == {'in/a.jpg': 'a'}


def test_a_data_set():
    """Without its labels: that of image 1 cannot be read."""

    class Data(Dataset):
        info = dataclasses.replace(DatasetInfo('mine/val', ('a', 'b'), 3, (7, 9)))

        def load(self, index):
            with tf.control_dependencies([tf.debugging.Assert(index != 2, ['no such image'])]):
                image = tf.cast(tf.fill([4, 5, 3], index), tf.uint8)
            return {'image': image, 'label': tf.io.decode_png(tf.where(index == 1, b'nonsense', b''))}

        def image_name(self, index):
            return f'scenes/{index}'

    found = data_set.images(Data())
    assert [(source.file, source.name, source.size()) for source in found] == [
        (f'scenes/{i}', f'scenes/{i}', (7, 9)) for i in range(3)
    ]
    for i in range(2):
        image = found[i].load()
        assert image.shape == (4, 5, 3) and image.dtype == np.uint8 and np.all(image == i)
    with pytest.raises(reading.ImageError) as caught:
        found[2].load()
    assert '\n' not in str(caught.value) and 'no such image' in str(caught.value) and '{{' not in str(caught.value)


def opened(index):
    """What a plugin's code may do with one of its files."""
    if index == 0:
        raise OSError('one.png is cut off')
    return np.zeros([2, 3, 3], {1: np.uint8}[int(index)])  # There is no 2.


class FromPython(Dataset):
    """Loads by Python code: image 0 cannot be read, image 2 is a mistake."""

    info = DatasetInfo('mine/val', ('a', 'b'), 3, (2, 3))

    def load(self, index):
        return {'image': tf.ensure_shape(tf.numpy_function(opened, [index], tf.uint8), [2, 3, 3])}

    def image_name(self, index):
        return f'scene {index}'


def test_a_mistake_in_the_code_of_a_data_set():
    """As in a training: the run ends, and only a file that cannot be read is a failure of its image."""
    unreadable, readable, mistaken = data_set.images(FromPython())
    with pytest.raises(reading.ImageError) as caught:
        unreadable.load()
    assert str(caught.value) == 'OSError: one.png is cut off'
    assert readable.load().shape == (2, 3, 3)
    with pytest.raises(UserError) as caught:
        mistaken.load()
    line = opened.__code__.co_firstlineno + 4
    parts = ("mine/val, image 'scene 2'", f'tests/prediction/test_sources.py:{line}: KeyError: 2')
    assert all(part in str(caught.value) for part in parts)


def test_a_load_that_fits_no_graph():
    class Data(FromPython):
        def load(self, index):
            return {'image': np.zeros([2, 3, 3], np.uint8)[int(index)]}

    with pytest.raises(UserError) as caught:
        data_set.images(Data())
    line = Data.load.__code__.co_firstlineno + 1
    assert all(part in str(caught.value) for part in ('mine/val', f'tests/prediction/test_sources.py:{line}: '))


def test_images_of_one_name_in_a_data_set():
    names = ['a', 'b', 'a', 'x/y', 'x//y', 'a-2', 'a']
    assert data_set._distinct(names) == ['a', 'b', 'a-3', 'x/y', 'x//y-2', 'a-2', 'a-4']
    assert data_set._distinct(['2007_000001', '2007_000002']) == ['2007_000001', '2007_000002']


def test_no_image_is_overwritten_through_a_link(files):
    files('in/a.png')
    os.symlink('in', 'link')
    with pytest.raises(UserError) as info:
        sources.from_files('in/a.png', 'link')
    assert '--output=link' in str(info.value) and 'in/a.png' in str(info.value)
