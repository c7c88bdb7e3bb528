"""Event files: the newest figures, what a resume has made void, and files that are cut."""

import glob
import os

import pytest

from seg.run import event_files
from tests.report import made


def newest(folder):
    return {found.tag: found.step for found in event_files.figures(os.path.join(folder, 'eval'))}


def test_newest_step_of_each_kind(tmp_path):
    made.events(tmp_path, 100, [made.figure(tag) for tag in ('fixed/1', 'worst/1', 'worst/2', 'class_pixels')])
    made.events(tmp_path, 200, [made.figure(tag) for tag in ('fixed/1', 'worst/1')])
    assert newest(tmp_path) == {'fixed/1': 200, 'worst/1': 200, 'class_pixels': 100}


def test_a_resume_makes_later_steps_void(tmp_path):
    """The run was resumed from step 150; TensorBoard drops steps 151 and later as well."""
    made.events(tmp_path, 100, [made.figure('fixed/1', value=1), made.figure('worst/1')])
    made.events(tmp_path, 200, [made.figure('fixed/1', value=2), made.figure('worst/1')])
    made.events(tmp_path, 180, [made.figure('fixed/1', value=3)], start=150)
    assert newest(tmp_path) == {'fixed/1': 180, 'worst/1': 100}


def test_the_same_step_again_replaces(tmp_path):
    made.events(tmp_path, 100, [made.figure('fixed/1', value=1)])
    made.events(tmp_path, 100, [made.figure('fixed/1', value=2), made.figure('fixed/2', value=3)])
    first, second = event_files.figures(str(tmp_path / 'eval'))
    single = event_files.figures(str(tmp_path / 'eval'))
    assert first.read() != second.read() and first.read().startswith(b'\x89PNG')
    assert [image.tag for image in single] == ['fixed/1', 'fixed/2']


def test_more_than_nine_files_of_a_process(tmp_path):
    """Their numbers are no text: 10 comes after 9."""
    (tmp_path / 'eval').mkdir()
    for number in (10, 9):
        made.events(tmp_path / str(number), 1, [made.figure('fixed/1')])
        (path,) = glob.glob(f'{tmp_path}/{number}/eval/*tfevents*')
        os.rename(path, tmp_path / 'eval' / f'events.out.tfevents.1700000000.host.1.{number}')
    (found,) = event_files.figures(str(tmp_path / 'eval'))
    assert found.path.endswith('.10')


@pytest.mark.parametrize('cut', [1, 30, 300])
def test_a_cut_file_gives_what_is_whole(tmp_path, cut):
    made.events(tmp_path, 100, [made.photo('fixed/1'), made.photo('worst/1')])
    (path,) = glob.glob(f'{tmp_path}/eval/*tfevents*')
    os.truncate(path, os.path.getsize(path) - cut)
    assert newest(tmp_path) == {'fixed/1': 100}


def test_a_damaged_length_ends_the_file(tmp_path):
    made.events(tmp_path, 100, [made.photo('fixed/1'), made.photo('worst/1')])
    first, second = event_files.figures(str(tmp_path / 'eval'))
    with open(second.path, 'r+b') as file:
        file.seek(second.offset)
        file.write(b'\xff\xff\xff\xff\xff\xff\xff\x00')
    assert newest(tmp_path) == {'fixed/1': 100} and first.read()
    assert second.read() == b''
    os.remove(first.path)
    assert first.read() == b''


def test_starts(tmp_path):
    from seg.run.events import Events

    for start in (0, 100, 250):
        writer = Events(str(tmp_path / 'train'), start)
        writer.scalars(start + 10, {'loss': 1.0})
        writer.close()
    found = event_files.starts(str(tmp_path / 'train'))
    assert [start.step for start in found] == [0, 100, 250] and all(start.time > 1e9 for start in found)
    assert event_files.starts(str(tmp_path / 'nothing')) == [] == event_files.figures(str(tmp_path / 'nothing'))
