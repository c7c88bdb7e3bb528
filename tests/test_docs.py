"""The documentation: its Python runs, its commands are valid, its links have targets."""

import gc
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from seg import config, gin_files, modes, plugins, registry, seg_main
from seg.augments import base as augments_base
from seg.datasets import contract, layouts
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.weights.warm_start import Init
from tests.datasets.instances import exported
from tests.executor import runs
from tests.weights.torch_files import write_zip

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
    for pattern in ('*.md', 'docs/*.md', 'experiments/**/*.md', 'benchmarks/**/*.md')
    for path in sorted(ROOT.glob(pattern))
}
# Names that stand for something of the reader's.
OF_THE_READER = ('my_', 'lab/', 'lab.', 'scratch/', '/data/', 'venv/', 'runs/')
# The pages about parts, whose examples form one package `lab`.
PLUGIN_PAGES = ('docs/plugins.md', 'docs/plugins_networks.md', 'docs/plugins_training.md', 'docs/plugins_data.md')


def blocks(page, language):
    """(line, text) of each fenced block of a language."""
    found = re.finditer(rf'^```{language}\n(.*?)^```$', PAGES[page], re.MULTILINE | re.DOTALL)
    return [(PAGES[page].count('\n', 0, match.start()) + 2, match[1]) for match in found]


def commands():
    """Every single command of the shell blocks, as `page:line: command`."""
    for page in PAGES:
        for first, text in blocks(page, 'sh'):
            joined = text.replace('\\\n', ' ')
            for i, line in enumerate(joined.splitlines()):
                for command in re.split(r'&&|\|', line.partition(' # ')[0]):
                    if command.strip():
                        yield f'{page}:{first + i}: {command.strip()}'


def test_there_is_something_to_check():
    assert {*PLUGIN_PAGES, 'docs/python.md', 'experiments/tiny_backbone/README.md'} <= set(PAGES)
    assert sum('seg_main ' in command for command in commands()) > 5


@pytest.mark.parametrize('command', list(commands()))
def test_command(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command.split(': ', 1)[1])
    for word in words:
        name = word.rpartition('=')[2]
        if re.search(r'\.(py|gin|lock|md|json)$', name) and not name.startswith(OF_THE_READER):
            assert (ROOT / name).exists(), f'{command}\nThere is no {name}.'
    if words[0] == 'seg_main':
        check_seg_main(words)


def check_seg_main(words):
    """Flags, names and bindings: all but building and running."""
    values = seg_main.parser()
    assert len(values(seg_main._with_bare_list(words))) == 1, 'a word that is not a flag'
    modes.check_flags(modes.find(values.mode), values.flag_values_dict())
    modes.load_parts(spec for spec in values.plugins if not spec.startswith(OF_THE_READER))
    if values.list is not None:
        assert plugins.list_text(values.list)
    elif values.describe is not None:
        assert plugins.describe_text(values.describe)
    elif not values.version and not values.help:
        if not values.gin_file:
            assert not modes.find(values.mode).trains and (values.model_dir or values.input or values.model)
        own = [name for name in values.gin_file if name.startswith(OF_THE_READER)]
        for name in values.gin_file:
            assert name in own or gin_files.find_file(name, 'docs')
        if not own:
            config.parse(values.gin_file, values.gin_param, {'DATA_DIR': None} if values.topology else {})


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r'^```.*?^```$', '', PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r'\]\(([^)\s]+)', text):
        if '://' not in target:
            file, _, heading = target.partition('#')
            there = (ROOT / page).parent.joinpath(file) if file else ROOT / page
            assert there.exists(), f'{page}: {target}'
            if heading:
                assert heading in anchors(there.read_text(encoding='utf-8')), f'{page}: {target}'


def anchors(text):
    """The names under which a page's headings can be linked."""
    headings = re.findall(r'^#+ (.*)', re.sub(r'^```.*?^```$', '', text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_the_start_page_lists_every_page():
    """In a line each, and README leads to it."""
    listed = re.findall(r'^- \[[^\]]+\]\((\w+\.md)\)', PAGES['docs/README.md'], re.MULTILINE)
    there = {pathlib.Path(page).name for page in PAGES if page.startswith('docs/')} - {'README.md'}
    assert sorted(listed) == sorted(there)
    assert '](docs/README.md)' in PAGES['README.md']


def test_the_picture_is_small():
    path = ROOT / 'docs' / 'example.jpg'
    assert path.stat().st_size < 250_000 and Image.open(path).width < 1100


@pytest.mark.parametrize('page', PAGES)
def test_named_flags_exist(page):
    """Flags in running text: `--fresh`."""
    named = re.findall(r'`[^`\n]*?--(\w+)', re.sub(r'^```.*?^```$', '', PAGES[page], flags=re.M | re.S))
    foreign = {'logdir', 'accelerator', 'spot'}  # Of TensorBoard and of gcloud.
    unknown = sorted(set(named) - foreign - set(seg_main.parser()))
    assert not unknown, f'{page} names --{", --".join(unknown)}'


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory; parts and modules of the pages are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modes.load_parts()  # Outside: the built-in ones stay.
    with registry.temporary():
        yield tmp_path
    gc.collect()  # Models of several pages would take gigabytes.
    for name in [name for name in sys.modules if name.split('.')[0] == 'lab']:
        del sys.modules[name]


def test_python_page(workplace):
    """Its blocks are the cells of one notebook; its small training has an even smaller model here."""
    width = "'backbones.resnet18.width=0.25'"
    parts = ', '.join(map(repr, (runs.BACKBONE, *runs.SMALL_PARTS[runs.SHAPES])))
    cells = [(line, text, text.replace(width, parts)) for line, text in blocks('docs/python.md', 'python')]
    assert sum(text != changed for _, text, changed in cells) == 1
    config.parse(['gin/deeplab_shapes.gin'], [width.strip("'")])
    (workplace / 'photos').mkdir()
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(workplace / 'photos' / 'a.jpg')
    (workplace / 'photos' / 'b.jpg').touch()
    names = {'__name__': 'notebook'}
    for line, _, text in cells:
        exec(compile('\n' * (line - 1) + text, str(ROOT / 'docs' / 'python.md'), 'exec'), names)
    assert names['results']['step'] == 20 and names['scores']['step'] == names['results']['best']['step']
    assert sum(name.endswith('.png') for name in os.listdir('runs/notebook/predictions/val')) == 8
    assert [step for step, _ in names['curve']] == [20]
    report = pathlib.Path('runs/notebook/report.html').read_text()
    assert f'value="{names["results"]["metrics"]["miou"]}"' in report and 'Complete: 20 steps.' in report
    assert all(part in report for part in ('Worst images', 'Confusion matrix', 'Precision', 'Processor'))
    assert names['found']['segmented'] == 1 and names['found']['failed'] == {'photos/b.jpg': 'the file is empty'}
    assert names['predictions'].get('classes', 3).shape == (64, 64)
    assert names['row']['image'].shape == (128, 128, 3) and all(os.path.exists(f'augmented-{i}.png') for i in range(4))


def write_plugins(workplace):
    """Writes the plugin files of the pages, and their gin files: two runs on label maps and one on instances."""
    (workplace / 'lab').mkdir()
    gin = []
    for page in PLUGIN_PAGES:
        for _, text in blocks(page, 'python'):
            (workplace / re.match(r'"""(lab/\w+\.py)"""', text)[1]).write_text(text)
            assert len(text.splitlines()) < 55
        gin += [text for _, text in blocks(page, 'gin')]
    for name, text in zip(('run.gin', 'fcn.gin', 'cells.gin'), gin, strict=True):
        (workplace / name).write_text(text)


def test_plugins_pages(workplace, capsys):
    """Each block is a plugin file, and the first gin block trains with them on a folder of images and label maps."""
    write_plugins(workplace)
    random = np.random.default_rng(0)
    for folder in ('images', 'masks'):
        (workplace / 'my_data' / folder).mkdir(parents=True)
    for i in range(12):
        mask = np.zeros((70 + i, 90), np.uint8)
        mask[20:40, 30:60], mask[0] = 1, 255
        image = random.integers(0, 99, (*mask.shape, 3), np.uint8) + 100 * (mask == 1)[..., None].astype(np.uint8)
        Image.fromarray(image).save(workplace / 'my_data' / 'images' / f'{i:02}.png')
        stored = Image.frombytes('P', mask.shape[::-1], mask.tobytes())
        stored.putpalette([0, 90, 40, 250, 7, 128])  # Colours whose luminance is not a class.
        stored.save(workplace / 'my_data' / 'masks' / f'{i:02}.png')
    small = ['TRAIN_STEPS=2', 'BATCH_SIZE=2', 'backbones.plain.channels=8']
    small += ['losses.dice.weight=0.5', 'tasks.semantic.augments=[@augments.any_way_up, @augments.scale_crop_flip]']
    params = ['--plugins=lab.augments', *(f'--gin_param={param}' for param in small)]
    assert seg_main.main(['seg_main', '--gin_file=run.gin', '--model_dir=runs/lab', *params]) == 0
    shown = capsys.readouterr()
    assert '"loss/poly1"' in shown.out and '"iou/nucleus"' in shown.out and '"false_alarm"' in shown.out
    snapshot = (workplace / 'runs' / 'lab' / 'config.gin').read_text()
    names = ('nets', 'losses', 'data', 'scores', 'optimizers', 'schedules', 'decoders')
    assert all(f'import lab.{name}' in snapshot for name in names)
    rates = [json.loads(line)['learning_rate'] for line in open('runs/lab/metrics.jsonl') if 'learning_rate' in line]
    np.testing.assert_allclose(rates, [5e-4], rtol=1e-6)
    assert 'lateral_c5' in (workplace / 'runs' / 'lab' / 'model_info.txt').read_text()
    rate = registry.schedules.get('cooldown').builder(total_steps=10, batch_size=2, base_lr=1.0)
    np.testing.assert_allclose([rate(step) for step in (0, 8, 9, 10)], [1, 1, 1 - 0.5**0.5, 0], atol=1e-6)
    # The second gin block: another model, whose logits do not depend on the canvas.
    model = modes.build(['fcn.gin'], model_dir='runs/fcn', plugin_specs=['lab.augments'], gin_params=small).task.model
    assert set(model.parts) == {'backbone', 'head_c5', 'head_c4', 'head_c3'} and model.output_stride == 32
    assert len(model.parts['head_c5'].hidden.trainable_variables) == 3  # Kernel, gamma, beta.
    image, canvas = random.uniform(0, 255, (1, 40, 56, 3)), np.full((1, 64, 96, 3), 99.0)
    canvas[:, :40, :56] = image
    small_one, large_one = (
        np.asarray(model({'image': tf.constant(x, tf.float32), 'size': tf.constant([[40, 56]])})['logits'])
        for x in (image, canvas)
    )
    assert small_one.shape == (1, 40, 56, 2) and np.abs(small_one).max() > 1e-3
    np.testing.assert_allclose(large_one[:, :40, :56], small_one, atol=1e-4 * np.abs(small_one).max())
    # The same data set with masks read as luminance: refused before anything is built.
    path = workplace / 'lab' / 'data.py'
    label = 'tf.cast(tf.io.decode_png(tf.io.read_file(path), channels=1)[..., 0], tf.int32)'
    assert 'decode_label(tf.io.read_file(path))' in path.read_text()
    path.write_text(path.read_text().replace('decode_label(tf.io.read_file(path))', label))
    del sys.modules['lab.data']
    assert seg_main.main(['seg_main', '--gin_file=run.gin', '--validate', *params]) == 2
    assert re.search(r"two_folders/train, image '01': label holds \d+ \(\d+ pixels\).* 0..1 ", capsys.readouterr().err)


def test_instances_of_the_plugins_pages(workplace, capsys):
    """The third gin block: its data set and its augment train and evaluate, and find a wrong class."""
    write_plugins(workplace)
    random = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for folder in ('images', 'cells'):
            (workplace / 'my_cells' / split / folder).mkdir(parents=True)
        for i in range(count):
            cells = np.zeros((70 + i, 90), np.uint16)
            cells[10:30, 20:50], cells[40:65, 5:25], cells[45:60, 60:85] = 7, 1000, 1 + 1000 * (i % 2)
            image = random.integers(0, 99, (*cells.shape, 3), np.uint8) + 100 * (cells > 0)[..., None].astype(np.uint8)
            Image.fromarray(image).save(workplace / 'my_cells' / split / 'images' / f'{i}.png')
            Image.fromarray(cells).save(workplace / 'my_cells' / split / 'cells' / f'{i}.png')
    small = [runs.BACKBONE, *runs.SMALL_PARTS[runs.INSTANCES], 'TRAIN_STEPS=2', 'BATCH_SIZE=2', 'CROP=(64, 64)']
    small += ['RunConfig.eval_batch_size=2']
    params = ['--gin_file=cells.gin', *(f'--gin_param={param}' for param in small)]
    assert seg_main.main(['seg_main', *params, '--model_dir=runs/cells']) == 0
    shown = capsys.readouterr()
    assert '"mask_ap"' in shown.out and '"counts/objects"' in (workplace / 'runs/cells/metrics.jsonl').read_text()
    path = workplace / 'lab' / 'cells.py'
    path.write_text(path.read_text().replace('< 1000, 0, 1)', '< 1000, 1, 2)'))
    del sys.modules['lab.cells']
    assert seg_main.main(['seg_main', *params, '--validate']) == 2
    assert re.search(r"cells/train, image '0': classes\[\d\] is 2.* 0..1 ", capsys.readouterr().err)


def test_arrays_of_the_plugins_pages(workplace):
    """The data set that reads with numpy keeps the contract, and its tensors have a known number of axes in a graph."""
    write_plugins(workplace)
    modes.load_parts(['lab.arrays'])
    (workplace / 'my_data' / 'val').mkdir(parents=True)
    label = np.array([[0, 1, -1], [1, 1, 0]], np.int64)
    np.savez(workplace / 'my_data' / 'val' / 'a.npz', image=np.full((2, 3, 3), 7, np.uint8), label=label)
    np.savez(workplace / 'my_data' / 'val' / 'b.npz', image=np.full((2, 3), 7, np.uint8), label=label)
    settings = {'data_dir': 'my_data', 'split': 'val', 'class_names': ('ground', 'cell'), 'max_size': (2, 3)}
    dataset = registry.datasets.get('arrays').builder(**settings)
    contract.verify(dataset, 'label_map', 'experiment.eval_data')
    examples = tf.data.Dataset.range(2).map(dataset.load)
    assert examples.element_spec['image'].shape.as_list() == [None, None, 3]
    assert examples.element_spec['label'].shape.as_list() == [None, None]
    (first,) = examples.take(1)
    np.testing.assert_array_equal(first['label'], label)
    with pytest.raises(tf.errors.InvalidArgumentError):  # Grey: the other example.
        list(examples.skip(1))
    with pytest.raises(UserError, match=r'my_data/train'):
        registry.datasets.get('arrays').builder(**settings | {'split': 'train'})


def test_tables_of_data_sets_and_augments():
    """They have the keys, dtypes and shapes of the code, in its order."""
    found, target = {}, ''
    for line in PAGES['docs/plugins_data.md'].splitlines():
        if match := re.match(r"\| (?:(any|`'\w+'`) )?\| `(\w+)` \| (\w+) (\[.*\]) \|", line):
            target = match[1] or target
            found.setdefault(target.strip("`'"), {})[match[2]] = f'{match[3]} {match[4]}'
    expected = {'any': augments_base.COMMON} | augments_base.FIELDS
    for target, fields in found.items():
        assert fields == {key: str(expected[target][key]) for key in fields}, target
    assert set(found['any']) == set(augments_base.COMMON)
    for target, fields in augments_base.FIELDS.items():
        assert set(found[target]) == set(fields) - set(augments_base.COMMON)


def test_pages_about_a_run(workplace):
    """Every seg_main command of these pages, one after the other, on a small folder and a small model."""
    random = np.random.default_rng(0)
    for folder in ('my_data/pictures', 'my_data/drawn', 'photos'):
        (workplace / folder).mkdir(parents=True)
    for i in range(10):
        label = np.zeros((64 + 2 * i, 90), np.uint8)
        label[20:40, 30:60], label[:3] = 1, 255
        image = random.integers(0, 99, (*label.shape, 3), np.uint8) + 100 * (label == 1)[..., None].astype(np.uint8)
        Image.fromarray(image).save(workplace / 'my_data' / 'pictures' / f'street_{i}.JPG')
        Image.fromarray(label).save(workplace / 'my_data' / 'drawn' / f'street_{i}_mask.png')
        if i < 8:
            Image.fromarray(image).resize((100 + 50 * i, 70)).save(workplace / 'photos' / f'{i}.png')
    (settings,) = [text for _, text in blocks('docs/own_folder.md', 'gin')]
    (workplace / 'my_run.gin').write_text(settings)
    (tuned,) = [text for _, text in blocks('docs/fine_tuning.md', 'gin')]
    (workplace / 'my_tuned.gin').write_text(tuned)
    random_weights = ['init.weights=None']  # But for fine-tuning, which starts from a run of before.
    small = ['TRAIN_STEPS=2', 'BATCH_SIZE=2', 'CROP=(64, 64)', 'overfit.train_steps=2']
    small += [
        runs.BACKBONE,
        'overfit.num_images=4',
        'overfit.target=0.0',
        *runs.SMALL_PARTS[runs.SHAPES],
    ]
    done = []
    about_a_run = ('docs/check_data.md', 'docs/own_folder.md', 'docs/read_a_run.md')
    for page in (*about_a_run, 'docs/fine_tuning.md', 'docs/class_imbalance.md', 'docs/small_memory.md'):
        for _, text in blocks(page, 'sh'):
            for command in text.splitlines():
                words = shlex.split(command)
                if words[0] == 'seg_main':
                    builds = any(word.startswith(('--gin_file', '--input=my_data')) for word in words)
                    changed = small + (random_weights if '--gin_file=my_tuned.gin' not in words else [])
                    words += [f'--gin_param={param}' for param in changed] if builds else []
                    assert seg_main.main(words) == 0, command
                    done.append(command)
    assert len(done) == 19
    run = workplace / 'runs' / 'mine'
    assert (workplace / 'runs' / 'my_data' / 'check_data.html').exists()
    assert {'check_data.json', 'show_data.html'} <= {path.name for path in run.iterdir()}
    assert (run / 'overfit' / 'results.json').exists() and (run / 'results.json').exists()
    assert 'backbone/stage[12]_*' in (run.parent / 'tuned' / 'run.json').read_text()
    assert 'stage2_conv/kernel (3, 3, 8, 16) (not trained)' in (run.parent / 'tuned' / 'model_info.txt').read_text()
    assert '<html' in (run / 'report.html').read_text()
    assert len((workplace / 'segmented' / 'predictions.jsonl').read_text().splitlines()) == 8
    (loads,), (trains,) = blocks('README.md', 'python'), blocks('docs/python.md', 'python norun')
    names = {}
    exec(loads[1], names)
    assert names['overlay'].shape == (*names['found'].classes.shape, 3)
    assert len(trains[1].splitlines()) < 10 and 'gin_params=[' in trains[1]
    code = trains[1].replace('gin_params=[', f'gin_params=[*{small + random_weights}, ')
    exec(code.replace('runs/mine', 'runs/again'), names)


def test_page_about_instances(workplace):
    """Its commands, one after the other, on a few small images and with a small model."""
    random = np.random.default_rng(0)
    for folder in ('photos', 'my_instances'):
        (workplace / folder).mkdir()
    for i in range(10):
        image = random.integers(0, 99, (64, 80 + i, 3), np.uint8)
        image[10:40, 20:60] += 100
        Image.fromarray(image).save(workplace / 'my_instances' / f'{i}.jpg')
        shapes = [exported.shape('pane', [20, 10, 60, 10, 60, 40, 20, 40])]
        exported.labelme_file(workplace / 'my_instances' / f'{i}.json', shapes, f'{i}.jpg', 64, 80 + i)
        if i < 8:
            Image.fromarray(image).resize((50 + 60 * i, 70)).save(workplace / 'photos' / f'{i}.png')
    (settings,) = [text for _, text in blocks('docs/own_instances.md', 'gin')]
    guessed = layouts.guess('my_instances')[0].text('my_instances')
    assert [line for line in settings.splitlines() if line] == guessed.splitlines()[:-1]  # The last one is a comment.
    (workplace / 'my_run.gin').write_text(settings)
    small = [runs.BACKBONE, *runs.SMALL_PARTS[runs.INSTANCES], 'init.weights=None', 'TRAIN_STEPS=2', 'BATCH_SIZE=2']
    small += ['CROP=(64, 64)', 'overfit.train_steps=2', 'overfit.num_images=4', 'overfit.target=0.0']
    small += ['heads.box.sampled=16', 'heads.box.score_threshold=0.0']
    done = []
    for _, text in blocks('docs/own_instances.md', 'sh'):
        for command in text.splitlines():
            words = shlex.split(command)
            trains = any(word.startswith('--gin_file') for word in words)
            words += [f'--gin_param={param}' for param in small] if trains else []
            assert seg_main.main(words) == 0, command
            done.append(command)
    assert len(done) == 6
    run = workplace / 'runs' / 'instances'
    assert 'box_ap' in json.loads((run / 'overfit' / 'results.json').read_text())['metrics']
    assert 'mask_ap50' in (run / 'report.html').read_text()
    assert len((workplace / 'found' / 'predictions.jsonl').read_text().splitlines()) == 8
    found = json.loads((workplace / 'found' / 'detections.json').read_text())
    assert found and {entry['category_id'] for entry in found} <= {0, 1}


ON_SCENES = '--gin_file=gin/deeplab_shapes.gin'
# Several commands in one process, which imports once.
PROGRAM = """
import json, sys
from seg import seg_main
for words in json.loads(sys.argv[1]):
    assert seg_main.main(words) == 0, words
"""


def small_commands(page):
    """The seg_main commands of a page that read no data, those that train with a small network."""
    small = [*runs.SMALL, *runs.SMALL_PARTS[runs.SHAPES], runs.BACKBONE]
    for _, text in blocks(page, 'sh'):
        for command in text.splitlines():
            words = shlex.split(command)
            if ON_SCENES in words:
                yield [*words, f'--plugins={runs.BACKBONE_PLUGIN}', *(f'--gin_param={param}' for param in small)]
            elif words[0] == 'seg_main' and words[-1] in ('--version', '--mode=report'):
                yield words


def run_apart(commands, **environment):
    """Runs commands in a process of their own, whose engine and devices are not those of the tests."""
    apart = {name: value for name, value in os.environ.items() if name != 'KERAS_BACKEND'}
    apart |= {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', **environment}
    subprocess.run([sys.executable, '-c', PROGRAM, json.dumps(commands)], env=apart, check=True)


def test_gpus_page(workplace):
    """Its trainings on scenes, on one and on two logical devices of the CPU."""
    done = list(small_commands('docs/gpus.md'))
    assert len(done) == 4
    done.sort(key=lambda words: '--strategy=mirrored:2' not in words)  # It makes the logical devices.
    run_apart(done)
    for name, replicas in (('one', 1), ('two', 2)):
        assert json.loads((workplace / 'runs' / name / 'run.json').read_text())['replicas'] == replicas
        assert (workplace / 'runs' / name / 'results.json').exists()


def test_cloud_tpu_page(workplace):
    """Its training on scenes with JAX on four devices of the CPU, and the report."""
    (devices,) = re.findall(r'^export XLA_FLAGS=(.*)$', PAGES['docs/cloud_tpu.md'], re.MULTILINE)
    done = list(small_commands('docs/cloud_tpu.md'))
    assert len(done) == 2
    run_apart(done, XLA_FLAGS=f'{os.environ["XLA_FLAGS"]} {devices}')
    about = json.loads((workplace / 'runs' / 'trial' / 'run.json').read_text())
    assert (about['engine'], about['replicas']) == ('jax', 4)
    assert (workplace / 'runs' / 'trial' / 'report.html').exists()


JOBS = (('docs/cloud_tpu.md', 'google.com/tpu'), ('docs/gpus.md', 'nvidia.com/gpu'))


@pytest.mark.parametrize(('page', 'chips'), JOBS)
def test_kubernetes_jobs(page, chips):
    """A headless service that selects the job's pods, as many processes as pods, and a valid command."""
    ((_, text),) = blocks(page, 'yaml')
    service, job = yaml.safe_load_all(text)
    name, spec = job['metadata']['name'], job['spec']
    assert service['spec'] == {'clusterIP': 'None', 'selector': {'job-name': name}}
    assert spec['completionMode'] == 'Indexed' and spec['completions'] == spec['parallelism']
    pod = spec['template']['spec']
    assert pod['subdomain'] == service['metadata']['name']
    (container,) = pod['containers']
    (command,) = container['args']
    first, *words = shlex.split(command)
    assert first == 'exec'
    check_seg_main([word.replace('$JOB_COMPLETION_INDEX', '1') for word in words])
    devices = spec['completions'] * container['resources']['limits'][chips]
    assert f'--gin_param=RunConfig.eval_batch_size={devices}' in words
    given = [word for word in words if word.startswith(('--coordinator', '--num_processes'))]
    assert given in ([], [f'--coordinator={name}-0.{name}:8476', f'--num_processes={spec["completions"]}'])


def test_published_weights_of_the_plugins_pages(workplace):
    """The example converts a state dict as torch would write it, and all variables are set."""
    write_plugins(workplace)
    modes.load_parts(['lab.pretrained'])
    net = registry.backbones.build(
        registry.backbones.get('plain_pretrained').builder, 'BACKBONE', output_stride=16, norm=NormFactory()
    )
    state = {'fc.weight': np.zeros((10, 256), np.float32)}
    for i in range(5):
        channels = 16 * 2**i
        state[f'stages.{i}.conv.weight'] = np.full((channels, channels // 2 if i else 3, 3, 3), i, np.float32)
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            state[f'stages.{i}.norm.{name}'] = np.full(channels, i, np.float32)
        state[f'stages.{i}.norm.num_batches_tracked'] = np.array(7)
    write_zip('my_weights.pth', state)
    report = Init(weights='my_weights.pth').apply({'backbone': net})
    assert report == 'my_weights.pth (31 tensors): loaded 25 of 25 variables'
    assert all(np.all(variable == int(variable.path[5]) - 1) for variable in net.variables)


def test_contracts_are_those_of_the_registries():
    """The table of kinds: every kind, its essential argument in bold, all others beside it."""
    rows = {}
    for line in PAGES['docs/plugins.md'].splitlines():
        if match := re.match(r'\| `(\w+)` \| (.*?) \| ', line):
            rows[match[1]] = re.sub(r'\([^)]*\)', '', match[2])
    assert list(rows) == list(dict.fromkeys(rows)) and set(rows) == set(registry.KINDS)
    for kind, cell in rows.items():
        assert set(re.findall(r'\*\*`(\w+)`\*\*', cell)) == set(registry.KINDS[kind].essential), kind
        assert set(re.findall(r'`(\w+)`', cell)) == set(registry.KINDS[kind].supplied), kind
