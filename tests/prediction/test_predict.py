"""`seg_main --mode=predict --input=…` with a trained model whose training data is gone."""

import json
import os
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from seg import modes, seg_main
from seg.engine import set_up
from seg.errors import UserError
from seg.executor.checkpoints import Checkpoints
from seg.run.folder import RunFolder
from seg.structures import PAD_PIXEL
from tests.executor import runs
from tests.prediction import fakes

PAGE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'predict.md'
CANVAS = (80, 96)  # What 72 x 90 pixels need at output stride 16.
PARAMS = (
    *(param for param in runs.SMALL if 'shapes' not in param and not param.startswith('TRAIN_STEPS')),
    'TRAIN_STEPS=2',
    *runs.SMALL_PARTS[runs.SHAPES],
    'BACKBONE=@backbones.tiny',
    'backbones.tiny.channels=8',
    'models.deeplab_v3plus.output_stride=16',
    'RunConfig.eval_batch_size=3',
)


@pytest.fixture(scope='module')
def model_dir(tmp_path_factory):
    """A run on a folder of images, and that folder removed."""
    folder = tmp_path_factory.mktemp('trained')
    data = folder / 'data'
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (data / name).mkdir(parents=True)
    for i in range(4):
        pixels = fakes.noise(72, 90 - i, i)
        Image.fromarray(pixels).save(data / 'JPEGImages' / f'{i}.jpg')
        Image.fromarray(pixels.argmax(-1).astype(np.uint8)).save(data / 'SegmentationClass' / f'{i}.png')
    (data / 'class_names.txt').write_text('red\ngreen\nblue\n')
    for split in ('train', 'val'):
        (data / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('0\n1\n2\n3\n')
    modes.run(
        ['gin/deeplab_voc.gin'],
        model_dir=str(folder / 'run'),
        mode='train',
        gin_params=[*PARAMS, f"DATA_DIR='{data}'"],
        plugin_specs=['experiments.tiny_backbone.plugin'],
        engine=set_up('one', 'float32', 'off'),
    )
    shutil.rmtree(data)
    Checkpoints(RunFolder(str(folder / 'run')), 1).keep_best(2)
    return folder / 'run'


@pytest.fixture
def call(capsys, monkeypatch, tmp_path, model_dir):
    """Runs the command line in an empty directory: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*args, mode='predict'):
        command = ['seg_main', '--precision=float32', f'--mode={mode}', f'--model_dir={model_dir}', *args]
        return seg_main.main(command), *capsys.readouterr()

    return run


def read_lines(folder):
    return [json.loads(line) for line in (folder / 'predictions.jsonl').read_text(encoding='utf-8').splitlines()]


def read_map(path):
    return np.asarray(Image.open(path))


def test_images_of_every_kind(call, tmp_path, caplog):
    """With broken ones among them: the others are done, each at its own size, and the exit status is 1."""
    folder = tmp_path / 'in'
    (folder / 'deep').mkdir(parents=True)
    image = Image.fromarray(fakes.noise(40, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / 'rgb, größe 1.jpg')
    image.save(folder / 'turned.jpg', exif=exif)
    image.convert('L').save(folder / 'grey.jpg')
    image.convert('CMYK').save(folder / 'cmyk.jpg')
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)).save(folder / 'deep' / '16.png')
    image.save(folder / 'same.png')
    image.quantize(9).save(folder / 'same.bmp')
    Image.fromarray(fakes.noise(300, 200)).save(folder / 'large.tif')
    (folder / 'empty.jpg').touch()
    (folder / 'text.jpg').write_text('text')
    (folder / 'cut.jpg').write_bytes((folder / 'grey.jpg').read_bytes()[:500])

    status, out, err = call('--input=in', '--output=out', '--probabilities')
    results = json.loads(out)
    assert status == 1 and (results['pictures'], results['segmented']) == (11, 8)
    assert set(results['failed']) == {'in/empty.jpg', 'in/text.jpg', 'in/cut.jpg'}
    assert err.startswith('seg_main: 8 of 11 images segmented; 3 failed: in/cut.jpg: the file is truncated; in/empty')
    assert err.count('\n') == 1 and 'in/text.jpg: ' in caplog.text

    sizes = {
        '16': (60, 40), 'rgb, größe 1': (60, 40), 'turned': (40, 60), 'grey': (60, 40), 'cmyk': (60, 40),
        'same.png': (60, 40), 'same.bmp': (60, 40), 'large': (200, 300),
    }  # fmt: skip
    lines = {line['file']: line for line in read_lines(tmp_path / 'out')}
    assert list(lines) == sorted(lines) and len(lines) == 11
    for line in lines.values():
        if 'error' in line:
            continue
        path = tmp_path / 'out' / line['output']
        size = sizes.pop(path.name)
        assert (line['width'], line['height']) == size
        assert read_map(f'{path}.png').shape == size[::-1] and Image.open(f'{path}.overlay.jpg').size == size
        with np.load(f'{path}.npz') as found:
            assert found['class_names'].tolist() == ['red', 'green', 'blue']
            values = found['probabilities'].astype(np.float32)
        np.testing.assert_allclose(values.sum(-1), 1, atol=2e-3)
        np.testing.assert_array_equal(values.argmax(-1), read_map(f'{path}.png'))
    assert not sizes and lines['in/large.tif']['scale'] == pytest.approx(CANVAS[0] / 300, abs=1e-6)
    assert lines['in/deep/16.png']['output'] == 'deep/16'


def test_what_the_model_says(call, tmp_path, model_dir):
    """The class map is that of the model on the padded image; eval_flip counts here as in an evaluation."""
    pixels = fakes.noise(*CANVAS)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    Image.fromarray(pixels[:50, :70]).save(tmp_path / 'b.png')
    assert call('--input=a.png,b.png', '--output=plain', '--probabilities')[0] == 0
    flip = '--gin_param=tasks.semantic.eval_flip=True'
    assert call('--input=a.png', '--output=flipped', '--probabilities', flip)[0] == 0

    engine = set_up('one', 'float32', 'off')
    built = modes.build(model_dir=str(model_dir), mode='predict', input=str(tmp_path / 'a.png'), engine=engine)
    built.executor.predictor()
    padded = np.broadcast_to(np.float32(PAD_PIXEL), (*CANVAS, 3)).copy()
    padded[:50, :70] = pixels[:50, :70]
    images = np.stack([pixels, pixels[:, ::-1], padded]).astype(np.float32)
    found = built.task.predict({'image': images, 'size': np.int32([CANVAS, CANVAS, (50, 70)])})
    straight, mirrored, small = found['probabilities'].numpy()
    expected = {'plain/a': straight, 'flipped/a': (straight + mirrored[:, ::-1]) / 2, 'plain/b': small[:50, :70]}
    for name, values in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f'{name}.npz')['probabilities'], values, atol=2e-3)
        clear = np.diff(np.sort(values, -1)[..., -2:])[..., 0] > 1e-4
        np.testing.assert_array_equal(read_map(tmp_path / f'{name}.png')[clear], values.argmax(-1)[clear])
        assert clear.mean() > 0.5
    assert np.abs(expected['plain/a'] - expected['flipped/a']).max() > 1e-4


def test_tiles(call, tmp_path):
    """The same as shrinking where the image fits; at its own scale where it does not."""
    Image.fromarray(fakes.noise(*CANVAS)).save(tmp_path / 'fits.png')
    Image.fromarray(fakes.noise(200, 150)).save(tmp_path / 'large.png')
    assert call('--input=*.png', '--output=shrunk')[0] == 0
    assert call('--input=*.png', '--output=tiled', "--gin_param=predict.large_pictures='tile'")[0] == 0
    assert (tmp_path / 'shrunk' / 'fits.png').read_bytes() == (tmp_path / 'tiled' / 'fits.png').read_bytes()
    shrunk, tiled = ({line['output']: line for line in read_lines(tmp_path / name)} for name in ('shrunk', 'tiled'))
    assert shrunk['fits'] == tiled['fits']
    assert (shrunk['large']['scale'], shrunk['large']['windows']) == (0.4, 1)
    assert (tiled['large']['scale'], tiled['large']['windows']) == (1, 6)
    assert read_map(tmp_path / 'tiled' / 'large.png').shape == (200, 150)


def test_where_things_go_by_default(call, tmp_path, model_dir):
    Image.fromarray(fakes.noise(9, 9)).save(tmp_path / 'a.png')
    checkpoint = model_dir / 'ckpt-00000002.safetensors'
    status, out, _ = call('--input=a.png', f'--checkpoint={checkpoint}')
    folder = model_dir / 'predictions' / 'input'
    assert status == 0 and json.loads(out) == {
        'pictures': 1, 'segmented': 1, 'failed': {}, 'seconds': json.loads(out)['seconds'], 'output': str(folder),
        'checkpoint': str(checkpoint),
    }  # fmt: skip
    assert sorted(os.listdir(folder)) == ['a.overlay.jpg', 'a.png', 'index.html', 'legend.jpg', 'predictions.jsonl']
    status, out, _ = call('--input=a.png', '--checkpoint=best')
    assert status == 0 and json.loads(out)['checkpoint'] == str(model_dir / 'best' / checkpoint.name)


def test_settings_of_predict(call, tmp_path, caplog):
    """They can be described, and other modes let them be; those of the data have no say where there is no data."""
    Image.fromarray(fakes.noise(9, 9)).save(tmp_path / 'a.png')
    status, out, _ = call('--describe=predict')
    assert status == 0 and "predict.large_pictures = 'shrink'" in out and 'tile_overlap' in out
    args = ('--input=a.png', '--output=out')
    assert call(*args, "--gin_param=EVAL_SPLIT='test'")[0] == 0
    assert 'without effect' in caplog.text and 'EVAL_SPLIT' in caplog.text
    status, _, err = call(*args, '--gin_param=predict.opacty=1')
    assert status == 2 and 'Did you mean opacity?' in err
    status, _, err = call(*args, "--gin_param=predict.large_pictures='crop'")
    assert status == 2 and "predict.large_pictures = 'crop': expected 'shrink' or 'tile'" in err
    small = [*(f'--gin_param={param}' for param in runs.SMALL), '--gin_param=predict.opacity=0.3']
    assert call('--gin_file=gin/deeplab_shapes.gin', '--validate', '--fresh', *small, mode='train')[0] == 0
    assert 'predict.opacity' in caplog.text


@pytest.mark.parametrize(
    ('args', 'mode', 'expected'),
    [
        (['--input=nowhere'], 'predict', ['--input=nowhere', 'no such file or folder']),
        (['--input=.'], 'predict', ['--input=.', 'no image found']),
        (['--input=nowhere', '--validate'], 'predict', ['--input=nowhere', 'no such file or folder']),
        (['--input=a.jpg'], 'eval', ['--input=a.jpg', '--mode=check_data or predict', '--mode=eval']),
        (['--output=out'], 'train', ['--output=out', 'predict, report or show_data', '--mode=train']),
        (['--probabilities'], 'eval', ['--probabilities', '--mode=export or predict', '--mode=eval']),
        (['--input=a.jpg', 'b.jpg'], 'predict', ["'b.jpg'", '--input in quotes']),
        ([], 'predict', ['voc', 'There is no such folder']),  # The evaluation data.
    ],
)
def test_mistakes(call, args, mode, expected):
    status, out, err = call(*args, *(['--gin_file=gin/deeplab_shapes.gin'] if mode == 'train' else []), mode=mode)
    assert status == 2 and out == '' and 'Traceback' not in err
    assert all(part in err for part in expected), err


def test_validate(call, tmp_path):
    Image.fromarray(fakes.noise(9, 9)).save(tmp_path / 'a.png')
    status, out, _ = call('--input=a.png', '--validate')
    assert status == 0 and 'Valid' in out and os.listdir(tmp_path) == ['a.png']


def test_an_output_that_cannot_be_written(call, tmp_path):
    Image.fromarray(fakes.noise(9, 9)).save(tmp_path / 'a.png')
    status, _, err = call('--input=a.png', '--output=a.png/out')
    assert status == 2 and '--output=a.png/out: cannot write' in err and 'Traceback' not in err


def test_from_python(tmp_path, model_dir):
    """Several inputs; broken ones are in the results."""
    for name in ('a', 'b'):
        Image.fromarray(fakes.noise(9, 9)).save(tmp_path / f'{name}.png')
    (tmp_path / 'c.png').touch()
    results = modes.run(
        model_dir=str(model_dir),
        mode='predict',
        input=[str(tmp_path / 'a.png'), str(tmp_path / '[bc].png')],
        output=str(tmp_path / 'out'),
        engine=set_up('one', 'float32', 'off'),
    )
    assert results['segmented'] == 2 and results['failed'] == {str(tmp_path / 'c.png'): 'the file is empty'}
    with pytest.raises(UserError, match='--input=a.png is for --mode=check_data or predict'):
        modes.run(model_dir=str(model_dir), mode='eval', input='a.png')


def test_the_page_about_it(tmp_path, monkeypatch, model_dir, capsys):
    """Its commands, one after the other, and its Python."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos' / 'deep').mkdir(parents=True)
    (tmp_path / 'scans').mkdir()
    (tmp_path / 'runs').mkdir()
    os.symlink(model_dir, tmp_path / 'runs' / 'mine')
    for name in ('photos/a.jpg', 'photos/deep/b.jpg', 'scans/c.tif', 'one.png'):
        Image.fromarray(fakes.noise(90, 120)).save(tmp_path / name)
    text = PAGE.read_text(encoding='utf-8')
    commands = ''.join(re.findall(r'^```sh\n(.*?)^```', text, re.MULTILINE | re.DOTALL)).splitlines()
    counts = []
    for command in commands:
        assert seg_main.main([*shlex.split(command), '--precision=float32']) == 0
        counts.append(json.loads(capsys.readouterr().out)['segmented'])
    assert counts == [2, 4, 2]
    names = {}
    exec(re.search(r'^```python\n(.*?)^```', text, re.MULTILINE | re.DOTALL)[1], names)  # The next is for instances.
    assert len(names['lines']) == len(names['unsure']) == 4 and names['failed'] == []
    assert {path.name for path in (tmp_path / 'tiled').iterdir()} == {
        'a.npz', 'a.overlay.jpg', 'a.png', 'deep', 'index.html', 'legend.jpg', 'predictions.jsonl'
    }  # fmt: skip
    keys = re.findall(r'"(\w+)":', re.search(r'^```json\n(.*?)^```', text, re.MULTILINE | re.DOTALL)[1])
    assert set(keys) - {'error'} == {*names['lines'][0], *names['lines'][0]['classes'][0]}
