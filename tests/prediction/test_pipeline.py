"""The way from sources to files, with a model that looks at single pixels: order, batches, memory, failures."""

import json
import os
import re
import threading
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from seg.errors import UserError
from seg.prediction import index, pipeline, reading, sources
from seg.prediction.class_maps import ClassMaps
from seg.prediction.settings import PredictSettings
from tests.prediction import fakes

CANVAS = (32, 48)


@pytest.fixture
def predict(tmp_path):
    """Runs the pipeline with a time limit, so a deadlock is a failure. Leaves no thread behind."""

    def predict(images, predictor=None, batch_size=4, probabilities=False, outputs=None, **settings):
        before = set(threading.enumerate())
        chosen = PredictSettings(**settings)
        made = outputs or ClassMaps(str(tmp_path / 'out'), fakes.INFO, fakes.COLORS, chosen, probabilities)
        found = []

        def work():
            try:
                found.append(
                    pipeline.predict(
                        images,
                        predictor or fakes.Predictor(),
                        made,
                        size=CANVAS,
                        batch_size=batch_size,
                        settings=chosen,
                    )
                )
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=work, name='within', daemon=True)
        thread.start()
        thread.join(60)
        assert found, 'it waits for ever'
        assert set(threading.enumerate()) - {thread} <= before
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return predict


@pytest.fixture
def lines(tmp_path):
    def read():
        text = (tmp_path / 'out' / 'predictions.jsonl').read_text(encoding='utf-8')
        return [json.loads(line) for line in text.splitlines()]

    return read


def class_map(tmp_path, name):
    return np.asarray(Image.open(tmp_path / 'out' / f'{name}.png'))


def mixed(count=23):
    """Images that fit and images that do not."""
    random = np.random.default_rng(0)
    return {f'{i:02}': fakes.noise(*random.integers(1, 90, 2), seed=i) for i in range(count)}


def as_sources(images):
    return [fakes.source(name, image) for name, image in images.items()]


@pytest.mark.parametrize('large', ['shrink', 'tile'])
@pytest.mark.parametrize('probabilities', [False, True])
def test_every_image_at_its_own_size(predict, lines, tmp_path, large, probabilities):
    images = mixed()
    predictor = fakes.Predictor()
    results = predict(as_sources(images), predictor, large_pictures=large, probabilities=probabilities)
    assert (results['pictures'], results['segmented'], results['failed']) == (23, 23, {})
    assert results['output'] == str(tmp_path / 'out') and results['checkpoint'] == 'fake'
    assert [line['file'] for line in lines()] == [f'{name}.jpg' for name in images]
    for line, (name, image) in zip(lines(), images.items(), strict=True):
        fits = image.shape[0] <= 32 and image.shape[1] <= 48
        classes = class_map(tmp_path, name)
        assert classes.shape == image.shape[:2] == (line['height'], line['width'])
        assert (line['scale'] == 1) == (fits or large == 'tile') and (line['windows'] > 1) == (
            not fits and large == 'tile'
        )
        if line['scale'] == 1:
            clear = np.diff(np.sort(fakes.colours(image), -1)[..., -2:])[..., 0] > 1e-5
            np.testing.assert_array_equal(classes[clear], fakes.colours(image).argmax(-1)[clear])
        counted = {entry['id']: entry['pixels'] for entry in line['classes']}
        assert counted == {i: n for i, n in enumerate(np.bincount(classes.ravel(), minlength=3).tolist()) if n}
        assert sum(entry['share'] for entry in line['classes']) == pytest.approx(1, abs=1e-5)
        assert all(entry['name'] == fakes.INFO.class_names[entry['id']] for entry in line['classes'])
        weighted = sum(entry['share'] * entry['mean_confidence'] for entry in line['classes'])
        assert line['mean_confidence'] == pytest.approx(weighted, abs=1e-5) and 1 / 3 < line['mean_confidence'] <= 1
        if probabilities:
            found = np.load(tmp_path / 'out' / f'{name}.npz')['probabilities']
            np.testing.assert_array_equal(found.argmax(-1), classes)
        else:
            assert not (tmp_path / 'out' / f'{name}.npz').exists()


def test_batches_are_static_and_full(predict):
    predictor = fakes.Predictor()
    predict([fakes.source(f'{i:02}', fakes.noise(10 + i, 20, i)) for i in range(10)], predictor)
    shapes = {(batch['image'].shape, batch['size'].shape) for batch in predictor.batches}
    assert shapes == {((4, 32, 48, 3), (4, 2))} and len(predictor.batches) == 3
    assert all(batch['image'].dtype == np.float32 and batch['size'].dtype == np.int32 for batch in predictor.batches)
    first = predictor.batches[0]
    assert first['size'].tolist() == [[10, 20], [11, 20], [12, 20], [13, 20]]
    np.testing.assert_array_equal(first['image'][1, :11, :20], fakes.noise(11, 20, 1))
    np.testing.assert_allclose(
        first['image'][1, 11:], np.broadcast_to([123.675, 116.28, 103.53], (21, 48, 3)), rtol=1e-6
    )


@pytest.mark.parametrize(('count', 'replicas', 'expected'), [(1, 1, 1), (3, 1, 3), (3, 2, 4), (40, 2, 16)])
def test_few_images_make_a_small_batch(predict, count, replicas, expected):
    """Of a size that divides among the replicas."""
    predictor = fakes.Predictor()
    predictor.replicas = replicas
    predict(as_sources(mixed(count)), predictor, batch_size=16)
    assert {len(batch['image']) for batch in predictor.batches} == {expected}


def test_lines_do_not_wait_for_an_image_of_many_windows(predict, lines):
    """Those of the images before it are there while it is in work."""
    seen = []

    class Watching(fakes.Predictor):
        def __call__(self, batch):
            time.sleep(0.02)
            seen.append(len(lines()))
            return super().__call__(batch)

    images = [fakes.source(f'{i}', fakes.noise(20, 20, i)) for i in range(6)]
    predict([*images, fakes.source('long', fakes.noise(3000, 40))], Watching(), large_pictures='tile')
    assert seen[-1] == 6 and len(lines()) == 7


def test_order_does_not_depend_on_speed(predict, lines):
    """Slow ones first."""

    def slow(i):
        time.sleep(0.1 if i % 5 == 0 else 0)
        return fakes.noise(8, 8, i)

    predict([fakes.source(f'{i:02}', lambda i=i: slow(i)) for i in range(20)], batch_size=2)
    assert [line['output'] for line in lines()] == [f'{i:02}' for i in range(20)]


def test_broken_images_are_named_and_skipped(predict, lines, tmp_path):
    images = mixed(12)
    for name in ('00', '05', '11'):
        images[name] = f'{name} is broken'
    results = predict(
        [fakes.source(name, p if not isinstance(p, str) else lambda p=p: p) for name, p in images.items()]
    )
    assert results['segmented'] == 9
    assert results['failed'] == {f'{name}.jpg': f'{name} is broken' for name in ('00', '05', '11')}
    assert [line.get('error') for line in lines()] == [p if isinstance(p, str) else None for p in images.values()]
    assert {'file': '05.jpg', 'error': '05 is broken'} in lines()
    assert len(list((tmp_path / 'out').glob('*.png'))) == 9
    text = pipeline.summary(results)
    assert text == (
        '9 of 12 images segmented; 3 failed: 00.jpg: 00 is broken; 05.jpg: 05 is broken; 11.jpg: 11 is broken'
    )


def test_summary_of_many_failures():
    failed = {f'{i}.jpg': 'broken' for i in range(100)}
    text = pipeline.summary({'pictures': 100, 'segmented': 0, 'failed': failed})
    assert text.startswith('0 of 100 images segmented; 100 failed: 0.jpg: broken; ') and text.endswith('; … (92 more)')
    assert pipeline.summary({'pictures': 3, 'segmented': 3, 'failed': {}}) == '3 of 3 images segmented'


def test_many_broken_ones_after_a_good_one(predict):
    """The good one's batch never fills."""
    images = [fakes.source('good', fakes.noise(8, 8)), *(fakes.source(f'{i}', lambda: 'broken') for i in range(200))]
    assert len(predict(images, batch_size=16)['failed']) == 200


def test_headers_that_cannot_be_read(predict):
    def unreadable():
        raise reading.ImageError('no header')

    images = [sources.Source(f'{i}.jpg', f'{i}', unreadable, unreadable) for i in range(30)]
    assert set(predict([*images, fakes.source('good', fakes.noise(8, 8))])['failed'].values()) == {'no header'}


@pytest.mark.parametrize('large', ['shrink', 'tile'])
@pytest.mark.parametrize('batch_size', [1, 16])
def test_images_larger_than_the_memory(predict, large, batch_size):
    """One at a time then, though the batch does not fill."""
    images = as_sources({f'{i}': fakes.noise(90, 70, i) for i in range(6)})
    assert predict(images, batch_size=batch_size, large_pictures=large, memory_mb=0.001)['segmented'] == 6


def test_as_many_images_as_the_memory_holds(predict, tmp_path):
    """About 100 kB each, by the pipeline's count: no more than four of them between reading and writing."""
    inside, most, lock = [0], [0], threading.Lock()

    def enter():
        with lock:
            inside[0] += 1
            most.append(inside[0])
        return fakes.noise(100, 100)

    class Slow(ClassMaps):
        def write(self, source, pixels, bands):
            found = super().write(source, pixels, bands)
            time.sleep(0.01)
            with lock:
                inside[0] -= 1
            return found

    def run(memory):
        inside[0], most[:] = 0, [0]
        made = Slow(str(tmp_path), fakes.INFO, fakes.COLORS, PredictSettings(), False)
        images = [sources.Source(f'{i}', f'{i}', lambda: (100, 100), enter) for i in range(30)]
        predict(images, outputs=made, memory_mb=memory)
        return max(most)

    assert run(0.4) <= 4 < run(100)


def test_memory_stays_flat(predict, monkeypatch):
    """Four times the images take no more of it, but for those that the page shows."""
    monkeypatch.setattr(index, 'MOST', 100)
    predict([fakes.source('warm', fakes.noise(8, 8))])

    def peak(count):
        tracemalloc.start()
        images = [fakes.source(f'{i}', lambda i=i: fakes.noise(60 + i % 7, 90, i)) for i in range(count)]

        class Forgetful(fakes.Predictor):
            def __call__(self, batch):
                predictions = super().__call__(batch)
                self.batches.clear()
                return predictions

        assert predict(images, Forgetful())['segmented'] == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # How many are in work at a time is the threads' luck, so that it is never quite the same.
    small, large = peak(120), peak(480)
    assert large < 1.5 * small, (small, large)


@pytest.mark.parametrize('large', ['shrink', 'tile'])
def test_an_image_that_fails_while_it_is_written(predict, tmp_path, large):
    """In the middle of its windows: the others go on."""

    class Picky(ClassMaps):
        def write(self, source, pixels, bands):
            if source.name == '1':
                next(iter(bands))
                raise reading.ImageError('its name is not liked')
            return super().write(source, pixels, bands)

    images = as_sources({f'{i}': fakes.noise(300, 70, i) for i in range(4)})
    made = Picky(str(tmp_path), fakes.INFO, fakes.COLORS, PredictSettings(large_pictures=large), False)
    assert predict(images, outputs=made, large_pictures=large)['failed'] == {'1.jpg': 'its name is not liked'}


@pytest.mark.parametrize('large', ['shrink', 'tile'])
def test_an_output_that_cannot_be_written_ends_it(predict, lines, tmp_path, large):
    """With one message, and how far it came."""

    class Full(ClassMaps):
        def write(self, source, pixels, bands):
            if source.name == '07':
                raise UserError('The disk is full.')
            return super().write(source, pixels, bands)

    made = Full(str(tmp_path / 'out'), fakes.INFO, fakes.COLORS, PredictSettings(large_pictures=large), False)
    with pytest.raises(UserError, match='^The disk is full. 7 of 23 images are done.$'):
        predict(as_sources(mixed()), outputs=made, large_pictures=large)
    assert len(lines()) == 7 and not list((tmp_path / 'out').glob('.partial*'))


@pytest.mark.parametrize('where', ['model', 'size', 'load', 'write'])
def test_a_bug_ends_it(predict, tmp_path, where):
    def bug(*_):
        raise ZeroDivisionError(where)

    class Buggy(ClassMaps):
        def write(self, source, pixels, bands):
            return bug() if where == 'write' else super().write(source, pixels, bands)

    images = as_sources(mixed())
    if where in ('size', 'load'):
        images[9] = images[9]._replace(**{where: bug})
    with pytest.raises(ZeroDivisionError, match=where):
        predict(
            images,
            fakes.Predictor(bug) if where == 'model' else None,
            outputs=Buggy(str(tmp_path / 'out'), fakes.INFO, fakes.COLORS, PredictSettings(), False),
        )


def test_an_interrupt_ends_it(predict, tmp_path):
    def interrupted(image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(as_sources(mixed()), fakes.Predictor(interrupted))
    assert sorted(os.listdir(tmp_path / 'out')) == ['legend.jpg', 'predictions.jsonl']


def test_no_images_at_all(predict, lines):
    assert predict([])['pictures'] == 0 and lines() == []


@pytest.mark.parametrize(
    ('setting', 'value'),
    [
        ('large_pictures', 'crop'),
        ('tile_overlap', 0.95),
        ('tile_overlap', -0.1),
        ('opacity', 1.5),
        ('min_score', 50),
        ('max_megapixels', 0),
        ('memory_mb', -1),
        ('memory_mb', '1 GB'),
    ],
)
def test_bad_settings(setting, value):
    with pytest.raises(UserError, match=re.escape(f'predict.{setting} = {value!r}: expected')):
        PredictSettings(**{setting: value})
