"""The images of an evaluation on the page: some large, all in a table, and where their file is odd."""

import os
import zipfile

import pytest

from seg.errors import UserError
from seg.report import images, page
from seg.run import evaluated_images
from tests.report import made
from tests.report.pages import Page
from tests.report.test_page import no_curves, outside, report  # noqa: F401


def table(found):
    """The names in the table, from top to bottom, and those of images with a picture anywhere."""
    source = found.source.partition('<table class="images')[2].partition('</table>')[0]
    names = [part.partition('<')[0] for part in source.split('<span class="name">')[1:]]
    return names, {a['data-name'] for a in found.of('button') if 'data-name' in a}


def test_each_image_is_embedded_once(no_curves, tmp_path):  # noqa: F811
    folder = made.run(tmp_path)
    made.images(folder, 6)
    made.events(folder, made.STEPS, [made.photo(f'{kind}/1') for kind in ('worst', 'best', 'fixed')])
    found = report(folder)
    names, pictures = table(found)
    assert names == sorted(names) and len(names) == 6 and pictures == set(names), 'the lowest score first'
    assert found.source.count('data:image/jpeg') == 6 and not found.of('img') and not outside(found)
    links = [a for a in found.of('a') if a.get('class') == 'open']
    assert [a['href'] for a in links] == ['#image-1', '#image-2', '#image-3', '#image-5', '#image-6']
    assert {a['id'] for a in found.of('figure') if 'id' in a} == {a['href'][1:] for a in links}
    assert (0.2, '0.2000') in found.values and 'mIoU 0.200, 1 % of the pixels wrong' in found.shown
    assert '(worst 2, fixed 1)' in found.shown and found.shown.count('Fixed images') == 1
    opened = next(a for a in found.of('button') if a.get('data-name') == 'street/image_0003')
    assert (opened['data-width'], opened['data-height']) == ('90', '60') and 'errors' in opened['data-headings']
    assert {'ignored', 'errors: wrong', 'dog'} <= set(map(str.strip, found.text))


def test_many_images_stay_small(no_curves, monkeypatch, tmp_path):  # noqa: F811
    folder = made.run(tmp_path)
    made.images(folder, 40, (30, 40))
    monkeypatch.setattr(images, '_BUDGET', 30_000)
    monkeypatch.setattr(images, '_MOST_ROWS', 30)
    found = report(folder)
    names, pictures = table(found)
    assert len(names) == 30 and names == sorted(names) and 4 < len(pictures) < 20
    assert {'street/image_0000', 'street/image_0039'} <= pictures, 'those that are drawn large come first'
    assert 'Images in the table: 30 of 40' in found.shown and 'Images without a picture' in found.shown


def cut(path):
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def other(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('images.json', '{"step": "x", "images": []}')


@pytest.mark.parametrize('damage', [cut, other])
def test_a_damaged_file_is_reported(no_curves, tmp_path, damage):  # noqa: F811
    folder = made.run(tmp_path)
    made.images(folder, 3)
    damage(os.path.join(folder, 'eval', 'images-val.zip'))
    made.events(folder, made.STEPS, [made.photo('worst/1')])
    found = report(folder)
    assert 'eval/images-val.zip is damaged, and omitted.' in found.shown
    assert [image['alt'] for image in found.of('img')] == ['Worst images: 1'], 'as of a run without the file'


def test_values_of_the_wrong_type(no_curves, tmp_path):  # noqa: F811
    folder = made.run(tmp_path)
    path = os.path.join(folder, 'eval', 'images-val.zip')
    entries = '{"name": "<b>", "score": NaN, "caption": 3, "headings": ["a"], "size": [0, 2], "chosen": [1, "worst x"]}'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('images.json', f'{{"step": 300, "images": [1, {entries}]}}')
        archive.writestr('1.jpg', b'x')
    step, (image,) = evaluated_images.read(path)
    assert step == 300 and image == evaluated_images.EvaluatedImage('<b>', None, chosen=['worst x'])
    assert table(Page(page.render(page.run_files.read(folder))))[0] == ['&lt;b&gt;']


def test_what_is_written_is_read(tmp_path):
    path = str(tmp_path / 'images-val.zip')
    one = evaluated_images.EvaluatedImage('a', 0.5, 'c', ['x', 'y'], (2, 3), b'jpeg', ['worst 1'])
    bare = evaluated_images.EvaluatedImage('b', None)
    evaluated_images.write(path, 7, [bare, one])
    step, images = evaluated_images.read(path)
    assert step == 7 and images == [bare._replace(chosen=[]), one]
    with pytest.raises(UserError, match='nothing.zip'):
        evaluated_images.read(str(tmp_path / 'nothing.zip'))
