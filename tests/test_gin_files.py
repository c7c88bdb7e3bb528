"""Every shipped gin file builds, has no unused binding, and can be read back from its snapshot."""

import gc
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from seg import config, modes, registry
from seg.engine import set_up
from tests.datasets.records import pets
from tools import golden

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob('gin/*.gin'), *ROOT.glob('experiments/*/run.gin'), *ROOT.glob('benchmarks/**/*.gin')]
)
FRAGMENTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('gin/*/**/*.gin'))
# Bindings that a shipped file leaves without effect, and why.
IDLE = {
    # The three-line experiment swaps the demo's backbone away, whose binding stays in the demo's file.
    'experiments/tiny_backbone/run.gin': ['backbones.resnet18.width'],
}


def whole(name):
    """A file with those that it includes."""
    text = (ROOT / name).read_text(encoding='utf-8')
    return text + ''.join(whole(other) for other in re.findall(r"^include '(.+)'", text, re.MULTILINE))


DEPTH = 'experiments/depth_regression/run.gin'  # Its data have no classes.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    """Two images in the layouts that the shipped files read, for the splits of each."""
    root = tmp_path_factory.mktemp('data')
    voc = root / 'VOC2012'
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (voc / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for stem, size in (('one', (60, 80)), ('two', (72, 50))):
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(voc / 'JPEGImages' / f'{stem}.jpg')
        label = Image.fromarray(random.choice(np.uint8([0, 1, 20, 255]), size))
        label.save(voc / 'SegmentationClass' / f'{stem}.png')
        for split in ('train', 'val'):
            for folder, image in (('images', label.convert('RGB')), ('labels', label.point(lambda value: value % 18))):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
                image.save(root / folder / split / f'{stem}.png')
    for split in ('train', 'val', 'train_aug'):
        (voc / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('one\ntwo\n')
    (root / 'annotations').mkdir()
    for split in ('train', 'val', 'train2017', 'val2017'):
        shutil.copytree(voc / 'JPEGImages', root / split)
        images = [
            {'id': i, 'file_name': path.name, 'height': Image.open(path).height, 'width': Image.open(path).width}
            for i, path in enumerate(sorted((root / split).iterdir()))
        ]
        triangle = {'id': 0, 'image_id': 0, 'category_id': 7, 'segmentation': [[5, 5, 30, 5, 5, 40]], 'iscrowd': 0}
        names = [{'id': 3, 'name': 'cell'}, {'id': 7, 'name': 'wedge'}]
        text = json.dumps({'images': images, 'annotations': [triangle], 'categories': names})
        (root / 'annotations' / f'instances_{split}.json').write_text(text)
    pets.write_as_oxford(root)
    return root


@pytest.fixture
def settings(data_dir):
    """What a user has to add to a file: DATA_DIR, where it reads files."""

    def add(name):
        return [f"DATA_DIR='{data_dir}'"] if 'data_dir = %DATA_DIR' in whole(name) else []

    return add


@pytest.fixture(scope='module')
def engine():
    return set_up('one', 'float32', 'off')


def test_there_are_files():
    assert {'gin/deeplab_shapes.gin', 'gin/maskrcnn_coco.gin', 'experiments/tiny_backbone/run.gin'} <= set(FILES)


@pytest.mark.parametrize('name', FILES)
def test_file_builds(name, settings, engine, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    model_dir = str(tmp_path / 'run')
    with golden.zero_weights():
        built = modes.build([name], gin_params=settings(name), model_dir=model_dir, engine=engine)
    assert (built.info.num_classes > 1) == (name != DEPTH) and built.run_config.train_steps > 0
    idle = [item.key for item in config.unused() if not item.key.startswith(('overfit.', 'overfit/'))]
    assert idle == IDLE.get(name, [])
    values, snapshot = config.operative_values(), config.snapshot()
    assert not (tmp_path / 'run').exists()

    # The snapshot alone builds the same.
    path = tmp_path / 'config.gin'
    path.write_text(snapshot, encoding='utf-8')
    del built
    gc.collect()  # Some models are large.
    with golden.zero_weights():
        modes.build([str(path)], model_dir=model_dir, engine=engine)
    assert config.snapshot() == snapshot
    assert config.operative_values() == values


def test_cascade_on_coco_is_the_published_recipe(settings, engine, tmp_path, monkeypatch):
    """Cai and Vasconcelos, 2018, as the authors' code and mmdetection have it."""
    monkeypatch.chdir(ROOT)
    name = 'gin/cascade_coco.gin'
    small = ('BACKBONE=@backbones.resnet18', 'backbones.resnet18.width=0.125', 'decoders.fpn.channels=8')
    params = (*settings(name), *small)
    built = modes.build([name], gin_params=params, model_dir=str(tmp_path / 'run'), mode='train', engine=engine)
    model = built.task.model
    assert model.stage_weights == (1.0, 0.5, 0.25)
    assert [head.sampler.positive_iou for head in model.box_heads] == [0.5, 0.6, 0.7]
    assert [head.code_weights[0] for head in model.box_heads] == [10.0, 20.0, 30.0]
    assert config.operative_values()['losses.box_regression.beta'] == '1.0'


@pytest.mark.parametrize('name', FILES)
def test_file_has_a_header_with_its_command(name):
    """An experiment's README takes that part."""
    folder = (ROOT / name).parent
    text = '\n'.join(path.read_text(encoding='utf-8') for path in [ROOT / name, *folder.glob('README.md')])
    assert f'--gin_file={name}' in text


@pytest.mark.parametrize('name', FILES)
def test_the_usual_macros_take_effect(name, settings, monkeypatch):
    """Names that flags and notes rely on: a binding of each is read by something."""
    monkeypatch.chdir(ROOT)
    modes.load_parts()
    config.parse([name], [*settings(name), 'TRAIN_STEPS=7', 'BATCH_SIZE=3', 'CROP=(96, 64)'])
    text = config.snapshot()
    assert 'RunConfig.train_steps = %TRAIN_STEPS' in text and 'RunConfig.batch_size = %BATCH_SIZE' in text
    assert text.count('%CROP') >= 1 and text.count('%BACKBONE') == 1


# Those of gin/hardware and gin/schedules are given after a recipe: tests/modes/test_plan.py builds them.
@pytest.mark.parametrize('name', [name for name in FRAGMENTS if name.startswith('gin/common/')])
def test_fragment_is_included_somewhere(name):
    users = [other for other in FILES + FRAGMENTS if f"include '{name}'" in (ROOT / other).read_text(encoding='utf-8')]
    assert users, f'{name} belongs to no gin file that is run'


@pytest.mark.parametrize('name', FILES + FRAGMENTS)
def test_style(name):
    """Components are references, and lines fit."""
    modes.load_parts()
    keys = {entry.key for kind in registry.KINDS.values() for entry in kind.entries()}
    for i, line in enumerate((ROOT / name).read_text(encoding='utf-8').splitlines(), start=1):
        assert len(line) <= 120 and line == line.rstrip(), f'{name}:{i}'
        for quoted in re.findall(r"'([^']*)'", line.partition('#')[0]):
            assert quoted not in keys, f'{name}:{i}: {quoted!r} in quotes'
