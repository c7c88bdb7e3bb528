"""Weight files in the layout of Keras 2."""

import os
import time

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from seg.errors import UserError
from seg.weights import keras_file
from seg.weights.tensor_file import DamagedFileError


def model():
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name='bn')(keras.layers.Conv2D(4, 3, name='conv')(image))
    model = keras.Model(image, keras.layers.ReLU(name='relu')(x))
    random = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape))
    return model


def expected(model):
    return {variable.path: variable.numpy() for variable in model.variables}


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / 'model_notop.h5')
    with h5py.File(path, 'w') as file:
        save_weights_to_hdf5_group(file, model())
    return path


def check(path):
    tensors = keras_file.read(path)
    assert tensors.keys() == {'conv/kernel', 'conv/bias', 'bn/gamma', 'bn/beta', 'bn/moving_mean', 'bn/moving_variance'}
    for name, value in expected(model()).items():
        np.testing.assert_array_equal(tensors[name], value, name)


def test_file_of_keras(path):
    check(path)


def test_file_of_a_whole_model(tmp_path):
    model().save(tmp_path / 'model.h5')
    check(str(tmp_path / 'model.h5'))


@pytest.mark.parametrize('inner', ['{layer}', '{layer}_1', 'resnet50/{layer}'])
def test_names_of_keras_2(tmp_path, inner):
    """TensorFlow's names: with an output number, and below the layer perhaps as it was called elsewhere."""
    path = str(tmp_path / 'model.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'input_1', b'conv', b'bn', b'relu']
        file.create_group('relu')
        for name, value in expected(model()).items():
            layer, weight = name.split('/')
            file[f'{layer}/{inner.format(layer=layer)}/{weight}:0'] = value
    check(path)


@pytest.mark.parametrize('share', [0.0, 0.05, 0.5, 0.99])
def test_truncated_file(path, share):
    with open(path, 'rb+') as file:
        file.truncate(int(os.path.getsize(path) * share))
    with pytest.raises(DamagedFileError, match=f'^{path}: not a readable HDF5 file'):
        keras_file.read(path)


def test_damaged_file(path):
    content = open(path, 'rb').read()
    for position in range(0, len(content), 97):
        with open(path, 'wb') as file:
            file.write(content[:position] + b'\xa5' * 8 + content[position + 8 :])
        try:
            tensors = keras_file.read(path)
        except UserError as error:
            assert path in str(error)
        else:
            assert sum(value.nbytes for value in tensors.values()) <= len(content)


def test_other_files(path, tmp_path):
    with pytest.raises(DamagedFileError, match='none.h5: not a readable HDF5 file'):
        keras_file.read(str(tmp_path / 'none.h5'))
    with h5py.File(path, 'w') as file:
        file['layers/conv/vars/0'] = np.zeros(3)  # The layout of Keras 3.
    with pytest.raises(UserError, match='expected weights in the layout of Keras 2'):
        keras_file.read(path)


def external(file, tmp_path):
    (tmp_path / 'secret').write_bytes(bytes(64))
    file.create_dataset('conv/conv/kernel:0', (8,), 'f8', external=[(str(tmp_path / 'secret'), 0, 64)])


def elsewhere(file, tmp_path):
    layout = h5py.VirtualLayout((8,), 'f8')
    layout[:] = h5py.VirtualSource(str(tmp_path / 'other.h5'), 'x', (8,))
    file.create_virtual_dataset('conv/conv/kernel:0', layout)


def linked(file, tmp_path):
    with h5py.File(tmp_path / 'other.h5', 'w') as other:
        other['x'] = np.ones(3)
    file['conv/conv/kernel:0'] = h5py.ExternalLink(str(tmp_path / 'other.h5'), 'x')


MAKERS = {
    'external storage': external,
    'virtual': elsewhere,
    'never written, of any size': lambda file, _: file.create_dataset('conv/conv/kernel:0', (1 << 40,), 'f8'),
    'compressed': lambda file, _: file.create_dataset(
        'conv/conv/kernel:0', data=np.zeros(1 << 20), compression='gzip', chunks=True
    ),
    'text': lambda file, _: file.create_dataset('conv/conv/kernel:0', data=['a', 'b']),
}


@pytest.mark.parametrize('name', MAKERS)
def test_no_plain_arrays(tmp_path, name):
    path = str(tmp_path / 'crafted.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'conv']
        MAKERS[name](file, tmp_path)
    with pytest.raises(DamagedFileError, match="'conv/conv/kernel:0' is not a plain array of numbers"):
        keras_file.read(path)


def test_links_to_other_files_are_not_followed(tmp_path):
    path = str(tmp_path / 'crafted.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'conv']
        linked(file, tmp_path)
    assert keras_file.read(path) == {}


def test_sum_of_the_arrays_is_bounded(tmp_path):
    """Each is smaller than the file, and all of them together are a hundred times larger."""
    path = str(tmp_path / 'crafted.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'conv']
        for i in range(100):
            file.create_dataset(f'conv/conv{i}/kernel:0', (1 << 16,), 'f4', chunks=(1 << 16,))
        file['filler/filler/kernel:0'] = np.zeros(1 << 17, 'f4')
    assert os.path.getsize(path) > 1 << 18
    with pytest.raises(DamagedFileError, match=f'^{path}: .* larger than the file'):
        keras_file.read(path)


def test_chunk_larger_than_its_array(tmp_path):
    path = str(tmp_path / 'crafted.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'conv']
        item = file.create_dataset('conv/conv/kernel:0', (4,), 'f4', maxshape=(None,), chunks=(1 << 22,), compression=9)
        item[:] = 1
    with pytest.raises(DamagedFileError, match='larger than the file'):
        keras_file.read(path)


def test_deeply_nested_groups_cost_no_time(tmp_path):
    """Below it, HDF5 would go through all of the tower for every group."""
    path = str(tmp_path / 'crafted.h5')
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [b'conv']
        group = file
        for _ in range(3000):
            group = group.create_group('g')
    begin = time.process_time()
    with pytest.raises(DamagedFileError, match='more than 32 deep'):
        keras_file.read(path)
    assert time.process_time() - begin < 2


def test_a_model_in_another_file_is_not_followed(path, tmp_path):
    other = str(tmp_path / 'crafted.h5')
    with h5py.File(other, 'w') as file:
        file['model_weights'] = h5py.ExternalLink(path, '/')
    with pytest.raises(UserError, match='names no layers'):
        keras_file.read(other)


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'fifo.h5')
    for path, kind in ((tmp_path / 'fifo.h5', 'a FIFO'), (tmp_path, 'a folder'), ('/dev/zero', 'a device')):
        with pytest.raises(UserError, match=f'{str(path)!r} is {kind}'):
            keras_file.read(str(path))
