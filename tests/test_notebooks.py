"""The notebooks run from top to bottom on small settings, and hold no outputs. Running needs the extra `notebooks`."""

import json
import pathlib
import re
import sys

import pytest

from tests.executor import runs

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / 'notebooks').glob('*.ipynb'))}
EXTRA = "needs the extra notebooks: pip install -e '.[notebooks]'"
_FEW = ('TRAIN_STEPS=2', 'BATCH_SIZE=2', 'CROP=(64, 64)', 'RunConfig.num_pictures=2', 'RunConfig.eval_batch_size=4')
_FEW += ('RunConfig.iterations_per_loop=1', 'RunConfig.save_checkpoints_steps=2', 'RunConfig.eval_every=2')
_SCENES, _RESNET = 'eval/datasets.shapes.num_examples=8', 'backbones.resnet18.width=0.25'
_DEEPLAB, _RCNN = runs.SMALL_PARTS[runs.SHAPES], runs.SMALL_PARTS[runs.INSTANCES]
# Settings that are added to those of each notebook.
SMALL = {
    'deeplab': (*_FEW, *_DEEPLAB, _SCENES, _RESNET),
    'mask_rcnn': (*_FEW, *_RCNN, _SCENES, _RESNET, 'heads.box.score_threshold=0.0'),
    'plugins': (*_FEW, *_DEEPLAB, _SCENES),
    'your_pictures': (*_FEW, *_DEEPLAB, 'BACKBONE=@backbones.resnet18', _RESNET, 'init.weights=None'),
}
# What each notebook leaves in its working directory.
FILES = {
    'deeplab': ('runs/deeplab_shapes/report.html', 'runs/deeplab_shapes/export/saved_model'),
    'mask_rcnn': ('runs/maskrcnn_shapes/results.json', 'found/detections.json'),
    'plugins': ('runs/my_net/results.json', 'lab/nets.py'),
    'your_pictures': ('runs/coins/check_data.html', 'runs/coins/results.json'),
}


def cells(name):
    return json.loads(NOTEBOOKS[name].read_text(encoding='utf-8'))['cells']


def source(cell):
    return ''.join(cell['source'])


def test_each_notebook_is_known_here():
    assert set(NOTEBOOKS) == set(SMALL) == set(FILES)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_no_output_is_stored(name):
    for cell in cells(name):
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == [] and cell['execution_count'] is None, source(cell)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_links_lead_somewhere(name):
    text = '\n'.join(source(cell) for cell in cells(name) if cell['cell_type'] == 'markdown')
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        assert (NOTEBOOKS[name].parent / target).exists(), target


def test_the_first_cell_installs_on_colab_and_kaggle_only(monkeypatch):
    manager = pytest.importorskip('IPython.core.inputtransformer2', reason=EXTRA).TransformerManager()
    firsts = {next(source(cell) for cell in cells(name) if cell['cell_type'] == 'code') for name in NOTEBOOKS}
    (first,) = firsts
    installed = []

    class Shell:
        def run_line_magic(self, name, line):
            installed.append((name, line))

    def run():
        exec(manager.transform_cell(first), {'get_ipython': Shell})
        return [installed.pop() for _ in installed[:]]

    monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')
    monkeypatch.delenv('KAGGLE_KERNEL_RUN_TYPE', raising=False)
    assert run() == []
    (setting,) = re.findall(r'^name = (.*)$', (ROOT / 'setup.cfg').read_text(encoding='utf-8'), re.MULTILINE)
    expected = [('pip', f'install -q "{setting}[pretrained] @ {{SOURCE}}"')]
    monkeypatch.setenv('KAGGLE_KERNEL_RUN_TYPE', 'Interactive')
    assert run() == expected
    monkeypatch.delenv('KAGGLE_KERNEL_RUN_TYPE')
    monkeypatch.setitem(sys.modules, 'google.colab', object())
    assert run() == expected


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_runs_from_top_to_bottom(name, tmp_path):
    """In a kernel of its own; a cell that raises fails the test, unless it is tagged `raises-exception`."""
    nbformat = pytest.importorskip('nbformat', reason=EXTRA)
    nbclient = pytest.importorskip('nbclient', reason=EXTRA)
    pytest.importorskip('ipykernel', reason=EXTRA)
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    (place,) = [i for i, cell in enumerate(notebook.cells) if 'parameters' in cell.metadata.get('tags', ())]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(f'SETTINGS += {SMALL[name]!r}'))
    client = nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}
    )
    client.execute()
    assert all((tmp_path / file).exists() for file in FILES[name])
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    assert any('image/png' in output.get('data', ()) for output in outputs)
    failed = [output['evalue'] for output in outputs if output['output_type'] == 'error']
    assert all('plain.chanels' in message for message in failed) and bool(failed) == (name == 'plugins')
