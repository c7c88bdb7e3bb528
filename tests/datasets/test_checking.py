"""Helpers of the checks of files: listings, and messages with the reason and with bounded, quoted values."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets import checking, image_files


def test_names_that_are_not_utf8_are_omitted(tmp_path):
    for name in (b'b.png', b'a.png', b'gr\xfc\xdfe.png'):
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / 'sub').mkdir()
    assert checking.listed(str(tmp_path)) == ['a.png', 'b.png', 'sub']
    assert checking.listed(str(tmp_path / 'none')) == checking.listed(str(tmp_path / 'a.png')) == []
    assert checking.holds(str(tmp_path)) == "It holds 'a.png', 'b.png', 'sub'"


def test_values_are_quoted_and_bounded():
    assert checking.first_of(['1', 1, 'disc ', 2.0, None, 6]) == "'1', 1, 'disc ', 2.0, None, …"
    assert len(checking.first_of(['x' * 10_000] * 9)) < 400


def test_texts_that_utf8_cannot_encode():
    assert checking.is_text('läke') and not checking.is_text('\ud800') and not checking.is_text('')
    assert not checking.is_text(3) and not checking.is_text(None)


@pytest.mark.parametrize('ending, reason', [('jpg', 'JPEG'), ('png', 'PNG')])
def test_the_reason_of_damage_is_the_decoders(tmp_path, ending, reason):
    path = tmp_path / f'cut.{ending}'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, [40, 50, 3], dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(tf.errors.OpError) as caught:
        checking.decoded_shape(tf.io.read_file(str(path)))
    message = checking.damage(str(path), caught.value, 'remove it')
    assert f'Invalid {reason} data' in message
    assert 'Graph execution' not in message and 'node' not in message and '\n' not in message
    with pytest.raises(tf.errors.OpError) as caught:
        tf.io.read_file(str(tmp_path / 'gone'))
    assert 'gone; No such file or directory)' in checking.damage('gone', caught.value, 'remove it')


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / 'fifo.png')
    (tmp_path / 'zero.png').symlink_to('/dev/zero')
    for name, kind in (('fifo.png', 'a FIFO'), ('zero.png', 'a device'), ('', 'a folder')):
        with pytest.raises(ValueError, match=kind):
            image_files.read_header(str(tmp_path / name))


def test_a_split_needs_an_instance():
    assert 'here: all of its 7 instances are crowds' in checking.without_instances('here', 7).text
    assert 'here: it has no instance' in checking.without_instances('here', 0).text
