"""The page of a folder of predictions."""

import pytest

from seg.errors import UserError
from seg.prediction import index
from tests.browser import CHROMIUM, NO_SCROLLING, browse
from tests.prediction import fakes
from tests.prediction.test_outputs import bands, outputs
from tests.report.pages import Page


def predicted(folder, names):
    """Predictions for images of these names, and a failure."""
    with outputs(folder) as made:
        for name in names:
            image = fakes.noise(30, 40)
            found = made.write(fakes.source(name, None), image, bands(image))
            made.line({'file': f'{name}.jpg', 'output': name, 'width': 40, 'height': 30, **found})
        made.line({'file': 'bad.jpg', 'error': 'the file is truncated'})
    with open(folder / 'index.html', encoding='utf-8') as file:
        return Page(file.read())


def test_images_failures_and_a_legend(tmp_path, monkeypatch):
    found = predicted(tmp_path, ['a', 'deep/b <#1>?'])
    assert [image['src'] for image in found.of('img')] == ['a.overlay.jpg', 'deep/b%20%3C%231%3E%3F.overlay.jpg']
    assert 'deep/b%20%3C%231%3E%3F.png' in [link['href'] for link in found.of('a')]
    assert (found.of('img')[0]['width'], found.of('img')[0]['height']) == ('40', '30')
    for text in ('2 images', '1 failed', 'the file is truncated', 'deep/b <#1>?', 'mean confidence', 'blue', '%'):
        assert text in found.shown, text
    assert '#00c800' in found.source and '://' not in found.source
    monkeypatch.setattr(index, 'MOST', 1)
    found = predicted(tmp_path, ['a', 'c'])
    assert len(found.of('img')) == 1 and 'The first 1 are shown' in found.shown


def test_shares_that_round_to_nothing(tmp_path):
    """A class of a few pixels is there; a share of 0.0 % would say that it is not."""
    record = {'output': 'a', 'width': 40, 'height': 30}
    classes = [{'id': 0, 'name': 'road', 'share': 0.9996}, {'id': 1, 'name': 'sign', 'share': 0.0004}]
    found = Page(index.render(str(tmp_path), [{**record, 'classes': classes}], 1, [], fakes.INFO, []))
    assert 'road 100.0 %' in found.shown and 'sign < 0.1 %' in found.shown


def test_a_page_of_the_user_stays(tmp_path):
    (tmp_path / 'index.html').write_text('mine')
    with pytest.raises(UserError, match=r'index\.html exists'):
        predicted(tmp_path, ['a'])
    assert (tmp_path / 'index.html').read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_in_a_browser(tmp_path):
    predicted(tmp_path, ['a', 'deep/b #1'])

    def visit(browser):
        browser.show(400, 'dark')
        browser.open(f'file://{tmp_path}/index.html')
        browser.until('[...document.images].every((e) => e.complete && e.naturalWidth === 40)')
        assert browser.value(NO_SCROLLING)

    browser = browse(visit)
    assert not browser.errors and all(each.startswith((f'file://{tmp_path}', 'data:')) for each in browser.requests)
