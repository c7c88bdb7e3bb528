"""Objects: from images of any size to overlays, lines and a list that pycocotools reads."""

import builtins
import dataclasses
import errno
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import types

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from seg.datasets.base import Dataset
from seg.errors import UserError
from seg.prediction import data_set, pipeline
from seg.prediction.class_maps import ClassMaps
from seg.prediction.instances import Fitted, InstanceOutputs
from seg.prediction.settings import PredictSettings
from seg.tasks.instance import Instance
from seg.tasks.semantic import Semantic
from tests.prediction import fakes
from tests.report.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[2]
CANVAS = (64, 96)
INFO = dataclasses.replace(fakes.INFO, original_ids=(7, 11, 26))


def found(image, size):
    """In the middle half of each image a disc of the colour that it has most of, once for sure and once in doubt."""
    boxes = np.float32([0.25, 0.25, 0.75, 0.75]) * np.float32(np.tile(size, 2))
    classes = np.stack([pixels[:h, :w].mean((0, 1)).argmax() for pixels, (h, w) in zip(image, size, strict=True)])
    rows, columns = np.ogrid[:28, :28]
    disc = ((rows - 13.5) ** 2 + (columns - 13.5) ** 2 < 14**2) * np.float32(0.9)
    places = len(image), 4
    results = {
        'boxes': np.zeros((*places, 4), np.float32),
        'scores': np.zeros(places, np.float32),
        'classes': np.full(places, -1, np.int32),
        'masks': np.zeros((*places, 28, 28), np.float32),
    }
    results['boxes'][:, :2] = boxes[:, None]
    results['boxes'][:, 1, 0] = 0
    results['scores'][:, :2] = 0.9, 0.3
    results['classes'][:, :2] = np.stack([classes, (classes + 1) % 3], 1)
    results['masks'][:, :2] = disc
    return results


class Predictor:
    checkpoint, replicas = 'fake', 1

    def __init__(self):
        self.sizes = []

    def __call__(self, batch):
        assert batch['image'].shape[1:] == (*CANVAS, 3)
        self.sizes += batch['size'].tolist()
        return fakes.Predictions(found(batch['image'], batch['size']))


def colored(height, width, channel):
    image = np.full((height, width, 3), 40, np.uint8)
    image[..., channel] = 200
    return image


def outputs(folder, fits=False, info=INFO, **settings):
    return InstanceOutputs(str(folder), info, fakes.COLORS, PredictSettings(**settings), fits)


def run(images, made, predictor=None, **settings):
    sources = [fakes.source(name, image)._replace(id=i) for i, (name, image) in enumerate(images.items(), 1)]
    return pipeline.predict(
        sources, predictor or Predictor(), made, size=CANVAS, batch_size=4, settings=PredictSettings(**settings)
    )


@pytest.fixture(autouse=True)
def threads():
    """The pipeline leaves none behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def lines(folder):
    return [json.loads(line) for line in (folder / 'predictions.jsonl').read_text(encoding='utf-8').splitlines()]


def listed(folder):
    return json.loads((folder / 'detections.json').read_text())


IMAGES = {'small': (20, 30, 0), 'exact': (64, 96, 1), 'large': (200, 150, 2), 'wide': (10, 300, 0), 'dot': (1, 1, 1)}


@pytest.mark.parametrize('fits', [False, True])
def test_every_image_at_its_own_size(tmp_path, fits):
    predictor = Predictor()
    results = run({name: colored(*spec) for name, spec in IMAGES.items()}, outputs(tmp_path, fits), predictor)
    assert (results['pictures'], results['segmented'], results['failed']) == (5, 5, {})
    by_image = {}
    for entry in listed(tmp_path):
        by_image.setdefault(entry['image_id'], []).append(entry)
    for i, (name, (height, width, channel)) in enumerate(IMAGES.items(), 1):
        scale = min(64 / height, 96 / width)
        scale = scale if fits else min(scale, 1)
        line = lines(tmp_path)[i - 1]
        assert (line['output'], line['image_id'], line['width'], line['height']) == (name, i, width, height)
        assert line['scale'] == pytest.approx(scale, abs=1e-6) and line['count'] == 2
        sure, doubtful = by_image[i]
        assert (sure['score'], doubtful['score']) == (0.9, 0.3)
        assert sure['category_id'] == INFO.original_ids[channel]
        assert sure['bbox'] == pytest.approx([width / 4, height / 4, width / 2, height / 2], abs=2e-3)
        assert doubtful['bbox'][1] == 0 and doubtful['category_id'] == INFO.original_ids[(channel + 1) % 3]
        assert sure['segmentation']['size'] == [height, width]
        disc = coco_mask.decode(sure['segmentation'])
        if min(height, width) >= 20:
            assert disc.sum() == pytest.approx(np.pi / 16 * height * width, rel=0.1)
            ys, xs = np.nonzero(disc)
            assert (ys.mean() + 0.5, xs.mean() + 0.5) == pytest.approx((height / 2, width / 2), abs=0.6)
        factor = {'small': 4, 'exact': 4, 'large': 3, 'wide': 2, 'dot': 4}[name]
        assert Image.open(tmp_path / f'{name}.overlay.jpg').size == (factor * width, factor * height)
        assert predictor.sizes[i - 1] == [max(round(height * scale), 1), max(round(width * scale), 1)]
    assert {path.name for path in tmp_path.iterdir()} == {
        'index.html', 'legend.jpg', 'predictions.jsonl', 'detections.json', *(f'{name}.overlay.jpg' for name in IMAGES)
    }  # fmt: skip


def test_pycocotools_reads_the_list(tmp_path):
    """pycocotools also scores the list: the truth is made of the confident detections."""
    run({name: colored(*IMAGES[name]) for name in ('small', 'exact', 'large')}, outputs(tmp_path))
    entries = [entry for entry in listed(tmp_path) if entry['score'] > 0.5]
    truth = COCO()
    truth.dataset = {
        'images': [
            {'id': line['image_id'], 'width': line['width'], 'height': line['height']} for line in lines(tmp_path)
        ],
        'categories': [{'id': i, 'name': str(i)} for i in INFO.original_ids],
        'annotations': [
            {**entry, 'id': i, 'iscrowd': 0, 'area': float(coco_mask.area(entry['segmentation']))}
            for i, entry in enumerate(entries, 1)
        ],
    }
    truth.createIndex()
    results = truth.loadRes(str(tmp_path / 'detections.json'))
    assert len(results.anns) == 6 and set(results.imgs) == {1, 2, 3}

    from pycocotools.cocoeval import COCOeval

    for kind in ('bbox', 'segm'):
        scored = COCOeval(truth, results, kind)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
        assert scored.stats[0] == pytest.approx(1)


def test_numbers_of_a_line(tmp_path):
    run({'a': colored(20, 30, 0), 'b': colored(20, 30, 1)}, outputs(tmp_path))
    assert lines(tmp_path)[1] == {
        'file': 'b.jpg', 'output': 'b', 'width': 30, 'height': 20, 'scale': 1.0, 'windows': 1, 'image_id': 2,
        'count': 2, 'classes': [
            {'id': 1, 'name': 'green', 'original_id': 11, 'count': 1, 'mean_score': 0.9},
            {'id': 2, 'name': 'blue', 'original_id': 26, 'count': 1, 'mean_score': 0.3},
        ],
    }  # fmt: skip


def test_the_page_counts_what_is_drawn(tmp_path):
    run({'a': colored(20, 30, 1)}, outputs(tmp_path))
    card = Page((tmp_path / 'index.html').read_text(encoding='utf-8')).shown
    assert '1 instance, 1 more with a low score' in card and 'green 1' in card and 'blue 1' not in card


def test_class_ids_where_the_data_have_no_others(tmp_path):
    run({'a': colored(20, 30, 2)}, outputs(tmp_path, info=fakes.INFO))
    assert [entry['category_id'] for entry in listed(tmp_path)] == [2, 0]


def test_min_score_is_for_overlays_only(tmp_path):
    overlays, lists = [], []
    for score in (0.2, 0.5, 1.0):
        run({'a': colored(64, 96, 0)}, outputs(tmp_path, min_score=score))
        overlays.append(np.asarray(Image.open(tmp_path / 'a.overlay.jpg'), int)[1::4, 1::4])
        lists.append(listed(tmp_path))
    assert lists[0] == lists[1] == lists[2] and len(lists[0]) == 2
    changed = [np.abs(overlay - colored(64, 96, 0)).max(-1) > 15 for overlay in overlays]
    assert changed[0].sum() > changed[1].sum() > 800 and not changed[2].any()
    assert changed[0][:14].any() and not changed[1][:2].any(), 'the doubtful one reaches to the top'


def test_order_is_that_of_the_images(tmp_path):
    """Slow ones first, broken ones among them."""

    def image(i):
        time.sleep(0.05 if i % 5 == 0 else 0)
        return 'broken' if i % 7 == 3 else colored(20, 30, i % 3)

    results = run({f'{i:02}': lambda i=i: image(i) for i in range(20)}, outputs(tmp_path))
    good = [i for i in range(20) if i % 7 != 3]
    assert set(results['failed']) == {f'{i:02}.jpg' for i in range(20) if i % 7 == 3}
    assert [entry['image_id'] for entry in listed(tmp_path)] == [i + 1 for i in good for _ in range(2)]
    assert {line['image_id']: line['output'] for line in lines(tmp_path) if 'error' not in line} == {
        i + 1: f'{i:02}' for i in good
    }


def test_nothing_found(tmp_path):
    assert run({}, outputs(tmp_path))['pictures'] == 0 and listed(tmp_path) == []

    class Blind(Predictor):
        def __call__(self, batch):
            results = found(batch['image'], batch['size'])
            results['classes'][:] = -1
            return fakes.Predictions(results)

    run({'a': colored(20, 30, 0)}, outputs(tmp_path), Blind())
    assert listed(tmp_path) == [] and lines(tmp_path)[0]['count'] == 0 and lines(tmp_path)[0]['classes'] == []
    assert (tmp_path / 'a.overlay.jpg').exists()


def test_memory_stays_flat(tmp_path):
    """Four times the images, and a list four times as long, take no more of it."""

    def peak(count):
        tracemalloc.start()
        run({f'{i}': lambda i=i: colored(60 + i % 7, 90, i % 3) for i in range(count)}, outputs(tmp_path))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(listed(tmp_path)) == 2 * count
        return most

    peak(4)
    small, large = peak(40), peak(160)
    assert large < small + 2**20, (small, large)  # The images alone would be 2 MB more.


def test_the_list_appears_at_the_end(tmp_path):
    """An older one would not belong to the lines beside it."""
    run({'a': colored(20, 30, 0)}, outputs(tmp_path))
    assert len(listed(tmp_path)) == 2

    class Watching(Predictor):
        def __call__(self, batch):
            assert not (tmp_path / 'detections.json').exists()
            return super().__call__(batch)

    run({f'{i}': colored(20, 30, 0) for i in range(6)}, outputs(tmp_path), Watching())
    assert len(listed(tmp_path)) == 12

    class Broken(Predictor):
        def __call__(self, batch):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run({'a': colored(20, 30, 0)}, outputs(tmp_path), Broken())
    assert not (tmp_path / 'detections.json').exists() and not list(tmp_path.glob('.partial-*'))


def test_a_full_disk(tmp_path, monkeypatch):
    """One message, and no list."""
    real = builtins.open

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(path, mode='r', **settings):
        return Full(path, 'w') if str(path).endswith('detections.json') else real(path, mode, **settings)

    monkeypatch.setattr(builtins, 'open', full)
    with pytest.raises(UserError, match='cannot write .*detections.json: No space left') as caught:
        run({'a': colored(20, 30, 0)}, outputs(tmp_path))
    monkeypatch.undo()
    assert str(caught.value).count('cannot write') == 1 and not (tmp_path / 'detections.json').exists()


KILLED = """
import sys
import numpy as np
from pycocotools import mask
from seg.prediction.instances import InstanceOutputs
from seg.prediction.settings import PredictSettings
from seg.structures import Detections
from tests.prediction import fakes
masks = [mask.encode(np.ones((60, 90), np.uint8, order='F'))]
found = Detections(np.float32([[0, 0, 60, 90]]), np.float32([0.9]), np.int32([0]), masks)
with InstanceOutputs(sys.argv[1], fakes.INFO, fakes.COLORS, PredictSettings(), False) as made:
    print('writing', flush=True)
    for i in range(10000):
        made.line(made.write(fakes.source(f'{i % 7}', None), fakes.noise(60, 90), found))
"""


def test_a_kill_leaves_no_half_list(tmp_path):
    command = [sys.executable, '-c', KILLED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'writing\n'
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(tmp_path.glob('.partial-*')) and not (tmp_path / 'detections.json').exists()
    run({'a': colored(20, 30, 0)}, outputs(tmp_path))
    assert len(listed(tmp_path)) == 2 and not list(tmp_path.glob('.partial-*'))


# ---- What belongs to which task --------------------------------------------------------------------------------------


def writer(task, folder, settings, probabilities=False, **more):
    """What a task with these colours writes with."""
    made = types.SimpleNamespace(_colors=fakes.COLORS, **more)
    return task.writer(made, str(folder), INFO, settings, probabilities)


def test_outputs_of_a_task(tmp_path):
    made = writer(Instance, tmp_path, PredictSettings(), _eval_size=CANVAS)
    assert isinstance(made, InstanceOutputs) and made.plan(colored(10, 10, 0), CANVAS).scale == 6.4
    assert isinstance(writer(Semantic, tmp_path, PredictSettings(), True), ClassMaps)


@pytest.mark.parametrize(
    ('settings', 'probabilities', 'named'),
    [({}, True, '--probabilities'), ({'large_pictures': 'tile'}, False, "predict.large_pictures = 'tile'")],
)
def test_what_is_for_class_maps_only(tmp_path, settings, probabilities, named):
    with pytest.raises(UserError) as caught:
        writer(Instance, tmp_path, PredictSettings(**settings), probabilities)
    assert str(caught.value).startswith(named) and 'detections.json' in str(caught.value)
    writer(Semantic, tmp_path, PredictSettings(**settings), probabilities)


def test_ids_of_the_images_of_a_data_set():
    """Those of its files, where it has some."""
    plain = Dataset()
    plain.info, plain.image_name, plain.load = INFO, str, lambda i: {'image': np.zeros((2, 2, 3), np.uint8)}
    assert [source.id for source in data_set.images(plain)] == [1, 2, 3, 4]
    plain.image_id = lambda index: 139 + index
    assert [source.id for source in data_set.images(plain)] == [139, 140, 141, 142]


def test_boxes_beyond_the_image_are_cut_off():
    plan = Fitted(colored(128, 192, 0), CANVAS, False)
    prediction = {
        'boxes': np.float32([[-3, 10, 20, 99], [1, 1, 2, 2]]),
        'scores': np.float32([0.4, 0.8]),
        'classes': np.int32([1, 2]),
        'masks': np.ones((2, 4, 4), np.float32),
    }
    detections = plan.prediction(iter([prediction]))
    assert plan.scale == 0.5 and detections.classes.tolist() == [2, 1]
    assert detections.boxes.tolist() == [[2, 2, 4, 4], [0, 20, 40, 192]]
    assert int(coco_mask.area(detections.masks[1])) == 40 * 172


def test_the_page_about_it(tmp_path, monkeypatch):
    """Its Python runs, and the keys that it names are those that are written."""
    page = (ROOT / 'docs' / 'predict.md').read_text(encoding='utf-8')
    text = page.partition('\n## Output of instance segmentation\n')[2]
    monkeypatch.chdir(tmp_path)
    run({'a': colored(20, 30, 0), 'b': lambda: 'broken'}, outputs(tmp_path / 'found'))
    names = {}
    exec(re.search(r'^```python\n(.*?)^```', text, re.MULTILINE | re.DOTALL)[1], names)
    assert names['areas'] == [('a.jpg', pytest.approx(np.pi / 16 * 600, rel=0.1))]
    blocks = re.findall(r'^```json\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
    entry, line = (set(re.findall(r'"(\w+)":', block)) for block in blocks)
    first = listed(tmp_path / 'found')[0]
    assert entry == {*first, *first['segmentation']}
    line_of_a = lines(tmp_path / 'found')[0]
    assert line == {*line_of_a, *line_of_a['classes'][0]}
