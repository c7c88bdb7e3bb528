"""Starting parts of a model from a checkpoint of another run."""

import re

import keras
import numpy as np
import pytest
import safetensors.numpy

from seg.errors import UserError
from seg.structures import ClassRows
from seg.weights import tensor_file
from seg.weights.warm_start import Init


def model(classes: int = 3, hidden: int = 4) -> dict[str, keras.Layer]:
    """Two parts: a backbone of two layers and a head."""
    backbone = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(hidden, name='stem'), keras.layers.Dense(5, name='body')],
        name='backbone',
    )
    head = keras.Sequential([keras.Input((5,)), keras.layers.Dense(classes, name='classes')], name='head')
    return {'backbone': backbone, 'head': head}


def values(parts) -> dict[str, np.ndarray]:
    return {f'{part}/{v.path}': v.numpy() for part, layer in parts.items() for v in layer.variables}


def checkpoint(path, ema: bool = False) -> dict[str, np.ndarray]:
    """Writes a checkpoint of random weights; returns those that a warm start should take."""
    random = np.random.default_rng(0)
    tensors = {f'model/{name}': random.normal(size=v.shape).astype(v.dtype) for name, v in values(model()).items()}
    if ema:
        tensors |= {name.replace('model/', 'ema/', 1): value + 1 for name, value in tensors.items()}
    tensor_file.write(str(path), tensors | {'optimizer/0000': np.array(7)}, {'step': 7})
    kind = 'ema/' if ema else 'model/'
    return {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}


@pytest.mark.parametrize('ema', [False, True])
def test_takes_all_and_prefers_averages(tmp_path, ema):
    path = tmp_path / 'ckpt-00000007.safetensors'
    expected = checkpoint(path, ema)
    parts = model()
    report = Init(weights=str(path)).apply(parts)
    assert report == f'{path}: loaded 6 of 6 variables'
    for name, value in values(parts).items():
        np.testing.assert_array_equal(value, expected[name], name)


def test_random_weights_say_so():
    parts = model()
    before = values(parts)
    assert 'at random' in Init().apply(parts)
    for name, value in values(parts).items():
        np.testing.assert_array_equal(value, before[name])


def test_newest_of_a_folder(tmp_path):
    checkpoint(tmp_path / 'ckpt-00000007.safetensors')
    expected = checkpoint(tmp_path / 'ckpt-00000012.safetensors', ema=True)
    parts = model()
    assert 'ckpt-00000012' in Init(weights=str(tmp_path)).apply(parts)
    for name, value in values(parts).items():
        np.testing.assert_array_equal(value, expected[name], name)


def test_selected_parts_only(tmp_path):
    path = tmp_path / 'ckpt-00000007.safetensors'
    expected = checkpoint(path)
    parts = model(classes=9)
    before = values(parts)
    report = Init(weights=str(path), parts=('backbone',)).apply(parts)
    assert 'loaded 4 of 4' in report
    for name, value in values(parts).items():
        np.testing.assert_array_equal(value, (expected if name.startswith('backbone') else before)[name], name)


def test_too_little_fits(tmp_path):
    """Another number of classes: 4 of 6 variables fit, which is under 90 %."""
    path = tmp_path / 'ckpt-00000007.safetensors'
    expected = checkpoint(path)
    with pytest.raises(UserError) as info:
        Init(weights=str(path)).apply(model(classes=9))
    message = str(info.value)
    assert 'loaded 4 of 6' in message and '90%' in message and 'init.parts' in message and 'min_fraction' in message
    assert 'head/classes/kernel (5, 9), (5, 3) in the file' in message

    parts = model(classes=9)
    before = values(parts)
    report = Init(weights=str(path), min_fraction=0.5).apply(parts)
    assert 're-initialised 2' in report and 'head/classes/bias (9,), (3,) in the file' in report
    for name, value in values(parts).items():
        np.testing.assert_array_equal(value, (expected if name.startswith('backbone') else before)[name], name)


def test_names_that_the_file_lacks(tmp_path):
    path = tmp_path / 'ckpt-00000007.safetensors'
    checkpoint(path)
    parts = model() | {'extra': keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name='more')], name='extra')}
    report = Init(weights=str(path), min_fraction=0.7).apply(parts)
    assert 'loaded 6 of 8' in report and 'extra/more/kernel (2, 1), not in the file' in report


def test_unknown_part(tmp_path):
    path = tmp_path / 'ckpt-00000007.safetensors'
    checkpoint(path)
    with pytest.raises(UserError, match="no part 'neck'; it has backbone, head"):
        Init(weights=str(path), parts=('neck',)).apply(model())


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match='no such file or folder'):
        Init(weights=str(tmp_path / 'ckpt-00000001.safetensors')).apply(model())
    with pytest.raises(UserError, match=r'holds no ckpt-\*.safetensors'):
        Init(weights=str(tmp_path)).apply(model())


def test_path_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    checkpoint(tmp_path / 'ckpt-00000007.safetensors')
    assert 'loaded 6 of 6' in Init(weights='~/ckpt-00000007.safetensors').apply(model())


def test_folder_whose_name_is_a_pattern(tmp_path):
    (tmp_path / 'run[1]').mkdir()
    checkpoint(tmp_path / 'run[1]' / 'ckpt-00000007.safetensors')
    assert 'loaded 6 of 6' in Init(weights=str(tmp_path / 'run[1]')).apply(model())


def test_complex_numbers_are_no_weights(tmp_path):
    path = str(tmp_path / 'ckpt-00000007.safetensors')
    tensor_file.write(path, {f'model/{name}': value.astype('c8') for name, value in values(model()).items()}, {})
    with pytest.raises(UserError, match=r'\(2, 4\) of complex64 in the file'):
        Init(weights=path).apply(model())


def test_damaged_file(tmp_path):
    path = tmp_path / 'ckpt-00000001.safetensors'
    path.write_bytes(b'nothing of the kind')
    with pytest.raises(UserError, match='init.weights: .*ckpt-00000001.safetensors: not a readable'):
        Init(weights=str(path)).apply(model())


def test_file_of_another_library(tmp_path):
    path = str(tmp_path / 'model.safetensors')
    safetensors.numpy.save_file({'conv_stem.weight': np.zeros((2, 2), 'float32')}, path)
    with pytest.raises(UserError, match=f"init.weights = '{path}': this is no checkpoint"):
        Init(weights=path).apply(model())


@pytest.mark.parametrize('weights', [5, ('a.safetensors',), True])
def test_what_is_neither_a_name_nor_a_path(weights):
    with pytest.raises(UserError, match=re.escape(f'init.weights = {weights!r}: ')):
        Init(weights=weights).apply(model())


class Head(keras.layers.Layer):
    """Scores of a background and of classes, and four numbers for each class."""

    def __init__(self, classes: int):
        super().__init__(name='head')
        self.score, self.shift = (
            keras.layers.Dense(classes + 1, name='score'),
            keras.layers.Dense(4 * classes, name='box'),
        )
        self.mask = self.add_weight(shape=(classes, 5), initializer='normal', name='mask')
        for dense in (self.score, self.shift):
            dense.build((None, 5))

    def class_rows(self):
        rows = {variable.path: ClassRows(before=1) for variable in self.score.variables}
        rows |= {variable.path: ClassRows(each=4) for variable in self.shift.variables}
        return rows | {self.mask.path: ClassRows(axis=0)}


@pytest.mark.parametrize('ours', [['tree', 'car', 'road', 'dog'], ['car', 'road'], ['car', 'cat', 'tree']])
def test_rows_of_classes_of_the_same_names(tmp_path, ours):
    """With more classes, with fewer, and with as many in another order."""
    theirs = ['cat', 'car', 'tree']
    old, new = {'head': Head(3)}, {'head': Head(len(ours))}
    random = np.random.default_rng(0)
    kept = {name: random.normal(size=v.shape).astype(v.dtype) for name, v in values(old).items()}
    path = str(tmp_path / 'ckpt-00000007.safetensors')
    tensor_file.write(path, {f'model/{name}': value for name, value in kept.items()}, {'class_names': theirs})
    before = values(new)
    report = Init(weights=path).apply(new, ours)
    shared = [name for name in ours if name in theirs]
    assert 'loaded 5 of 5' in report and f'rows of {len(shared)} of {len(ours)} ({", ".join(shared)})' in report
    after = values(new)
    for name, part in (('score/kernel', 1), ('score/bias', 1), ('box/kernel', 4), ('box/bias', 4), ('mask', 1)):
        (key,) = [key for key in after if key.endswith(name)]
        axis = 0 if name == 'mask' else -1
        first = 1 if 'score' in name else 0
        rows = [np.moveaxis(each[key], axis, 0) for each in (kept, before, after)]
        np.testing.assert_array_equal(rows[2][:first], rows[0][:first])
        for k, own in enumerate(ours):
            place = slice(first + part * k, first + part * (k + 1))
            expected = rows[1][place]
            if own in theirs:
                j = theirs.index(own)
                expected = rows[0][first + part * j : first + part * (j + 1)]
            np.testing.assert_array_equal(rows[2][place], expected, f'{key}, {own}')


def test_same_classes_need_no_rows(tmp_path):
    """Nor do sources that do not tell their classes."""
    path = str(tmp_path / 'ckpt-00000007.safetensors')
    tensor_file.write(
        path, {f'model/{k}': v for k, v in values({'head': Head(2)}).items()}, {'class_names': ['a', 'b']}
    )
    assert Init(weights=path).apply({'head': Head(2)}, ['a', 'b']) == f'{path}: loaded 5 of 5 variables'
    checkpoint(path)
    assert Init(weights=path).apply(model(), ['a', 'b', 'c']) == f'{path}: loaded 6 of 6 variables'
