"""A run's folder: no other module knows the names in it; what --fresh removes; its checkpoints."""

import ast
import pathlib
import re

import pytest

from seg.run.folder import RunFolder

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = 'config.gin|operative_config.gin|run.json|dataset_info.json|model_info.txt|metrics.jsonl|results.json'
FILES += '|train.log|error.log|report.html|.lock|metrics.json'
FOLDERS = 'train|eval|best|predictions'


OF_TFDS = ROOT / 'seg/datasets/records/tfds_folder.py'  # TensorFlow Datasets has a dataset_info.json of its own.


def joined_names(source):
    """(line, text) of each string that is, or ends a path with, the name of a run's file; docstrings are no paths."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joins = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == 'os.path.join']
    in_joins = {id(argument) for call in joins for argument in call.args}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in prose:
            continue
        text = node.value
        if re.fullmatch(f'(.*/)?({FILES.replace(".", "[.]")})', text) or re.match(r'ckpt-.?[^ ]*$', text):
            yield node.lineno, text
        elif re.fullmatch(f'/({FOLDERS})/?', text) or (id(node) in in_joins and text in FOLDERS.split('|')):
            yield node.lineno, text


def test_no_other_module_joins_the_name_of_a_file():
    found = [
        f'{path.relative_to(ROOT)}:{line}: {text!r}'
        for path in (ROOT / 'seg').rglob('*.py')
        if path not in (ROOT / 'seg/run/folder.py', OF_TFDS)
        for line, text in joined_names(path.read_text(encoding='utf-8'))
    ]
    assert not found, 'seg/run/folder.py alone knows the names of the files of a run'


@pytest.mark.parametrize(
    'source',
    [
        "os.path.join(model_dir, 'results.json')",
        "f'{model_dir}/metrics.jsonl'",
        "os.path.join(model_dir, 'eval', name)",
        "f'ckpt-{step}.safetensors'",
        "glob.glob('ckpt-*.safetensors')",
        "f'{model_dir}/eval/{name}'",
    ],
)
def test_a_joined_name_is_found(source):
    assert list(joined_names(source))


def test_names_in_prose_are_left_alone():
    assert not list(joined_names("'Writes results.json.'\nprint('no ckpt-*.safetensors there'); split = 'train'"))


def test_clear_removes_what_a_run_writes_and_nothing_else(tmp_path):
    folder = RunFolder(str(tmp_path))
    paths = [path for name, path in vars(folder).items() if name not in ('path', 'lock', 'best_metrics')]
    for path in (*paths, folder.checkpoint(4), folder.damaged(folder.checkpoint(2)), folder.lock):
        pathlib.Path(path).touch()
    (tmp_path / 'notes.txt').touch()
    folder.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.lock', 'export', 'notes.txt']


def test_clear_removes_temporary_files_and_follows_no_link(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'photo.jpg').touch()
    run = tmp_path / 'run'
    run.mkdir()
    for name in ('run.json.tmp-1', 'results.json', 'notes.tmp-1'):
        (run / name).touch()
    (run / 'predictions').symlink_to(tmp_path / 'mine')
    RunFolder(str(run)).clear()
    assert [path.name for path in run.iterdir()] == ['notes.tmp-1'] and (tmp_path / 'mine' / 'photo.jpg').exists()


@pytest.mark.parametrize('name', ['ckpt-00000002.safetensors', 'ckpt-00000002.safetensors.damaged'])
def test_a_damaged_checkpoint_is_a_run(tmp_path, name):
    assert not RunFolder(str(tmp_path)).has_checkpoint()
    (tmp_path / name).touch()
    assert RunFolder(str(tmp_path)).has_checkpoint()


def test_checkpoints_are_sorted_by_their_steps(tmp_path):
    folder = RunFolder(str(tmp_path))
    for step in (10**9, 9, 100):
        pathlib.Path(folder.checkpoint(step)).touch()
    (tmp_path / 'ckpt-notes.safetensors').touch()
    assert folder.checkpoint_steps() == [9, 100, 10**9] and folder.best_steps() == []


def test_names_of_evaluations():
    folder = RunFolder('run')
    assert folder.eval_file('voc/val', 200) == 'run/eval/val-200.json'
    assert folder.eval_file('voc/val', '200-abc123', 'confusion') == 'run/eval/confusion-val-200-abc123.json'
    assert folder.relative(folder.eval_file('val', 3)) == 'eval/val-3.json'
