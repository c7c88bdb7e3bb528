"""MATLAB's files, as scipy writes them."""

import io

import numpy as np
import pytest

from seg.datasets.builders.mat_files import read_field

scipy_io = pytest.importorskip('scipy.io')
MAP = np.arange(35, dtype=np.uint8).reshape(5, 7)


def mat(fields, name='GTcls', **settings):
    file = io.BytesIO()
    scipy_io.savemat(file, {'other': np.eye(2), name: fields}, **settings)
    return file.getvalue()


def of_sbd(label=MAP, **settings):
    """A file with the fields of SBD's, of which one is a cell array of sparse matrices."""
    borders = np.empty(2, object)
    borders[:] = [np.eye(3), np.zeros([0, 2])]
    return mat({'Boundaries': borders, 'Segmentation': label, 'CategoriesPresent': np.array([[15.0]])}, **settings)


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.float64])
def test_field(compressed, dtype):
    found = read_field(of_sbd(MAP.astype(dtype), do_compression=compressed), 'GTcls', 'Segmentation')
    assert np.array_equal(found, MAP) and found.shape == (5, 7)


def test_other_content():
    with pytest.raises(ValueError, match=r'no GTcls.Segmentation'):
        read_field(mat({'Boundaries': MAP}), 'GTcls', 'Segmentation')
    with pytest.raises(ValueError, match=r'no GTinst.Segmentation'):
        read_field(of_sbd(), 'GTinst', 'Segmentation')
    with pytest.raises(ValueError, match='not a MATLAB file'):
        read_field(b'\x89PNG' * 50, 'GTcls', 'Segmentation')
    with pytest.raises(ValueError, match='expected numbers'):
        read_field(mat({'Segmentation': 'text'}), 'GTcls', 'Segmentation')


@pytest.mark.parametrize('compressed', [True, False])
def test_damaged(compressed):
    content, rng = of_sbd(do_compression=compressed), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content[: rng.integers(len(content))] if rng.random() < 0.3 else content)
        for place in rng.integers(len(changed), size=rng.integers(3)) if changed else ():
            changed[place] = rng.integers(256)
        try:
            read_field(bytes(changed), 'GTcls', 'Segmentation')
        except ValueError as error:
            assert str(error)


def test_an_element_that_decompresses_without_end():
    content = of_sbd(np.zeros([2**14, 2**13], np.uint8), do_compression=True)
    with pytest.raises(ValueError, match='more than'):
        read_field(content, 'GTcls', 'Segmentation')
