"""What tasks and metrics compute on the device is the same on TensorFlow, and on JAX without TensorFlow."""

import os
import subprocess
import sys

import keras
import numpy as np

from tests.tasks import device_halves


def test_device_halves_equal_jax(tmp_path):
    weights, ours = {}, {}
    for kind, (_, small, _) in device_halves.KINDS.items():
        task = device_halves.make(kind)
        small.randomize(task.model)
        weights |= {f'{kind}:{variable.path}': variable.numpy() for variable in task.model.variables}
        batch = {key: keras.ops.convert_to_tensor(value) for key, value in device_halves.batch(kind).items()}
        with keras.StatelessScope(state_mapping=[]):
            found = device_halves.halves(task, batch)
        ours |= {f'{kind}:{name}': np.asarray(value) for name, value in found.items()}
    np.savez(tmp_path / 'in.npz', **weights)
    command = [sys.executable, '-m', 'tests.tasks.device_halves', tmp_path / 'in.npz', tmp_path / 'out.npz']
    jax = {'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu'}
    subprocess.run(command, check=True, env={**os.environ, **jax})
    theirs = np.load(tmp_path / 'out.npz')
    losses = theirs['step:losses']
    assert len(losses) == 4 and np.all(np.isfinite(losses)) and theirs['step:norm'] > 0
    assert set(theirs.files) == set(ours) | {'step:losses', 'step:norm'} and len(ours) > 30
    for name, value in ours.items():
        other = theirs[name]
        assert other.dtype == value.dtype and other.shape == value.shape, name
        if name.startswith('semantic:metric') or name == 'semantic:predict:classes':
            # Pixels between two classes of nearly one probability may fall on either side.
            assert np.abs(other.astype(int) - value).sum() <= 0.005 * value.size + 8, name
        elif 'metric:masks' in name:
            assert np.abs(other.astype(int) - value).max() <= 0.002 * 65535, name
        elif 'training' in name:  # Normalised by the batch, tiny differences grow with the depth.
            np.testing.assert_allclose(other, value, rtol=2e-3, atol=1e-3, err_msg=name)
        else:
            np.testing.assert_allclose(other, value, rtol=1e-3, atol=2e-3, err_msg=name)
