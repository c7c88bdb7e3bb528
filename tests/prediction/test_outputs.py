"""The files of an image: their content, atomic writing, and failures to write."""

import builtins
import dataclasses
import errno
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from seg.errors import UserError
from seg.prediction import reading
from seg.prediction.canvas import decided
from seg.prediction.class_maps import ClassMaps
from seg.prediction.settings import PredictSettings
from tests.prediction import fakes

ROOT = pathlib.Path(__file__).resolve().parents[2]


def outputs(folder, info=fakes.INFO, probabilities=False, opacity=0.5):
    return ClassMaps(str(folder), info, fakes.COLORS, PredictSettings(opacity=opacity), probabilities)


def bands(image, rows=5):
    """The prediction of the colour model, in bands."""
    for top in range(0, len(image), rows):
        yield decided(top, fakes.colours(image[top : top + rows]))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob('*') if path.is_file())


def test_files_of_an_image(tmp_path):
    image = fakes.noise(40, 30)
    with outputs(tmp_path) as made:
        found = made.write(fakes.source('deep/a b', None), image.copy(), bands(image))
    assert files(tmp_path) == ['deep/a b.overlay.jpg', 'deep/a b.png', 'legend.jpg', 'predictions.jsonl']
    classes = fakes.colours(image).argmax(-1)
    with Image.open(tmp_path / 'deep' / 'a b.png') as stored:
        assert stored.mode == 'P' and stored.getpalette()[:9] == [v for color in fakes.COLORS for v in color]
        np.testing.assert_array_equal(np.asarray(stored), classes)
    painted = np.asarray(Image.open(tmp_path / 'deep' / 'a b.overlay.jpg'), float)
    np.testing.assert_allclose(
        painted.mean((0, 1)), (image / 2 + np.take(fakes.COLORS, classes, 0) / 2).mean((0, 1)), atol=2
    )
    assert [entry['name'] for entry in found['classes']] != [] and sum(e['pixels'] for e in found['classes']) == 1200


def test_figures():
    """By hand: 3 pixels green, 1 red."""
    probabilities = np.float32([[[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], [[0.1, 0.9, 0.0], [0.3, 0.5, 0.2]]])
    made = outputs('nowhere', dataclasses.replace(fakes.INFO, original_ids=(7, 11, 26)))
    count = np.int64([1, 3, 0])
    found = made._found(count, np.float64([0.6, 2.1, 0]))
    assert found == {
        'mean_confidence': pytest.approx(0.675),
        'classes': [
            {'id': 1, 'name': 'green', 'original_id': 11, 'pixels': 3, 'share': 0.75, 'mean_confidence': 0.7},
            {'id': 0, 'name': 'red', 'original_id': 7, 'pixels': 1, 'share': 0.25, 'mean_confidence': 0.6},
        ],
    }
    json.dumps(found)
    assert decided(0, probabilities).classes.tolist() == [[1, 0], [1, 1]]


def test_a_class_map_of_256_classes(tmp_path):
    names = tuple(map(str, range(256)))
    info = dataclasses.replace(fakes.INFO, class_names=names)
    colors = [(i, i, i) for i in range(256)]
    probabilities = np.eye(256, dtype=np.float32)[None]
    with ClassMaps(str(tmp_path), info, colors, PredictSettings(), False) as made:
        made.write(fakes.source('a', None), fakes.noise(1, 256), [decided(0, probabilities)])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), [np.arange(256)])
    with pytest.raises(UserError, match='257 classes'):
        outputs(tmp_path, dataclasses.replace(info, class_names=(*names, 'one more')))


# ---- Probabilities ---------------------------------------------------------------------------------------------------


def test_probabilities(tmp_path):
    image = fakes.noise(33, 21)
    with outputs(tmp_path, probabilities=True) as made:
        made.write(fakes.source('a', None), image.copy(), bands(image))
    with np.load(tmp_path / 'a.npz') as found:  # Without pickles.
        assert found['probabilities'].shape == (33, 21, 3) and found['probabilities'].dtype == np.float16
        assert found['class_names'].tolist() == ['red', 'green', 'blue']
        values = found['probabilities'].astype(np.float32)
    np.testing.assert_allclose(values.sum(-1), 1, atol=2e-3)
    np.testing.assert_allclose(values, fakes.colours(image), atol=1e-3)
    np.testing.assert_array_equal(values.argmax(-1), np.asarray(Image.open(tmp_path / 'a.png')))


def test_rounding_names_no_other_class(tmp_path):
    """float16 cannot tell these apart: the file's largest values have to name the classes of the class map."""
    close = np.nextafter(np.float32(0.4), np.float32(1))
    probabilities = np.float32([[[0.4, close, 0.2], [close, 0.4, 0.2], [0.2, 0.4, close], [1e-9, 1, 1 - 1e-7]]])
    band = decided(0, probabilities)
    assert band.classes.tolist() == [[1, 0, 2, 1]]
    with outputs(tmp_path, probabilities=True) as made:
        made.write(fakes.source('a', None), fakes.noise(1, 4), [band])
    found = np.load(tmp_path / 'a.npz')['probabilities']
    assert found.argmax(-1).tolist() == [[1, 0, 2, 1]]
    np.testing.assert_allclose(found, probabilities, atol=1e-3)


# ---- Lines -----------------------------------------------------------------------------------------------------------


def test_lines_appear_at_once(tmp_path):
    with outputs(tmp_path) as made:
        for name in ('größe', 'a\nb', os.fsdecode(b'\xff')):
            made.line({'file': name})
            last = (tmp_path / 'predictions.jsonl').read_text(encoding='utf-8').splitlines()[-1]
            assert json.loads(last) == {'file': name}
    assert 'größe' in (tmp_path / 'predictions.jsonl').read_text(encoding='utf-8')


def test_a_second_run_overwrites_its_own_files_only(tmp_path):
    image = fakes.noise(4, 4)
    (tmp_path / 'notes.txt').write_text('mine')
    for names in (['a', 'b'], ['b', 'c']):
        with outputs(tmp_path) as made:
            for name in names:
                made.write(fakes.source(name, None), image.copy(), bands(image))
                made.line({'file': name})
    assert {name for name in files(tmp_path) if name.endswith('.png')} == {'a.png', 'b.png', 'c.png'}
    assert (tmp_path / 'notes.txt').read_text() == 'mine'
    assert [json.loads(line)['file'] for line in open(tmp_path / 'predictions.jsonl')] == ['b', 'c']


# ---- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['../victim', '/{outside}/victim', 'link/victim', 'deep/../../victim', 'a\0b'])
def test_nothing_is_written_outside_of_the_folder(tmp_path, name):
    """Whatever a data set calls its images, and through links as well."""
    outside, folder = tmp_path / 'outside', tmp_path / 'out'
    outside.mkdir()
    folder.mkdir()
    (outside / 'victim.png').write_text('precious')
    (tmp_path / 'victim.png').write_text('precious')
    (folder / 'link').symlink_to('../outside')
    name = name.replace('/{outside}', str(outside))
    image = fakes.noise(4, 4)
    with outputs(folder) as made:
        with pytest.raises(reading.ImageError, match='leads out of the output folder'):
            made.write(fakes.source(name, None), image.copy(), bands(image))
        made.write(fakes.source('..\\back', None), image.copy(), bands(image))  # A name like any other here.
    assert files(outside) == ['victim.png'] and (outside / 'victim.png').read_text() == 'precious'
    assert (tmp_path / 'victim.png').read_text() == 'precious' and sorted(os.listdir(tmp_path)) == [
        'out', 'outside', 'victim.png'
    ]  # fmt: skip
    assert '..\\back.png' in files(folder)


@pytest.mark.parametrize('name', ['predictions.jsonl', 'legend.jpg', 'a.png'])
def test_a_link_is_replaced_and_not_followed(tmp_path, name):
    folder, image = tmp_path / 'out', fakes.noise(4, 4)
    for _ in range(2):
        with outputs(folder) as made:
            made.write(fakes.source('a', None), image.copy(), bands(image))
            made.line({'file': 'a'})
        (tmp_path / 'precious').write_text('precious')
        (folder / name).unlink()
        (folder / name).symlink_to('../precious')
        (folder / 'predictions.jsonl').touch()
    with outputs(folder) as made:
        made.write(fakes.source('a', None), image.copy(), bands(image))
    assert (tmp_path / 'precious').read_text() == 'precious' and not (folder / name).is_symlink()


@pytest.mark.parametrize('name', ['a.png', 'legend.jpg'])
def test_what_no_prediction_wrote_is_not_overwritten(tmp_path, name):
    """Such as the labels of a data set, again and again."""
    (tmp_path / name).write_text('label')
    image = fakes.noise(4, 4)
    for _ in range(2):
        with pytest.raises(UserError) as info, outputs(tmp_path) as made:
            made.write(fakes.source('a', None), image.copy(), bands(image))
        assert f'--output={tmp_path}' in str(info.value) and 'no earlier prediction wrote it' in str(info.value)
        assert (tmp_path / name).read_text() == 'label'


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'deeper'):
        with pytest.raises(UserError, match='cannot write .*another --output'):
            with outputs(folder):
                pass


def test_a_full_disk(tmp_path, monkeypatch):
    """One message, no partial file, and the earlier files of the image stay."""
    image = fakes.noise(20, 20)
    with outputs(tmp_path, probabilities=True) as made:
        made.write(fakes.source('a', None), image.copy(), bands(image))
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    real = builtins.open

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(path, mode='r', **settings):
        return Full(path, 'w') if mode == 'wb' else real(path, mode, **settings)

    with pytest.raises(UserError) as caught:
        with outputs(tmp_path, probabilities=True) as made:
            monkeypatch.setattr(builtins, 'open', full)
            made.write(fakes.source('a', None), image.copy(), bands(image))
    monkeypatch.undo()
    text = str(caught.value)
    assert 'No space left on device' in text and str(tmp_path / 'a') in text and text.count('cannot write') == 1
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before | {'predictions.jsonl': b''}


def test_a_name_that_is_too_long(tmp_path):
    """Only this image fails: the image's name has room for .jpg, not for .overlay.jpg."""
    image = fakes.noise(4, 4)
    with outputs(tmp_path) as made:
        with pytest.raises(reading.ImageError, match='too long'):
            made.write(fakes.source('a' * 250, None), image.copy(), bands(image))
        made.write(fakes.source('a' * 240, None), image.copy(), bands(image))
    assert len(files(tmp_path)) >= 3


def test_a_failed_image_leaves_no_files(tmp_path):
    def broken():
        yield from bands(fakes.noise(4, 4))
        raise reading.ImageError('no more')

    with outputs(tmp_path, probabilities=True) as made:
        with pytest.raises(reading.ImageError, match='no more'):
            made.write(fakes.source('a', None), fakes.noise(8, 4), broken())
        assert files(tmp_path) == ['legend.jpg', 'predictions.jsonl']


KILLED = """
import sys
import numpy as np
from seg.prediction.canvas import decided
from seg.prediction.class_maps import ClassMaps
from seg.prediction.settings import PredictSettings
from tests.prediction import fakes
image = fakes.noise(400, 400)
with ClassMaps(sys.argv[1], fakes.INFO, fakes.COLORS, PredictSettings(), True) as made:
    print('writing', flush=True)
    for i in range(10000):
        made.write(fakes.source(f'{i % 7}', None), image.copy(), [decided(0, fakes.colours(image))])
"""


def test_a_kill_leaves_no_half_file(tmp_path):
    """What was being written lies in a hidden folder, which the next run removes."""
    for delay in (0.05, 0.4):
        process = subprocess.Popen(
            [sys.executable, '-c', KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == 'writing\n'
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in tmp_path.glob('*.*'):
            if path.suffix == '.npz':
                assert np.load(path)['probabilities'].shape == (400, 400, 3)
            elif path.suffix in ('.png', '.jpg'):
                with Image.open(path) as image:
                    image.load()
    assert len(list(tmp_path.glob('.partial-*'))) == 1  # The second process removed that of the first.
    with outputs(tmp_path):
        assert len(list(tmp_path.glob('.partial-*'))) == 1
    assert not list(tmp_path.glob('.partial-*'))
