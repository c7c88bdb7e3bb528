"""The page of the server, in Chromium where it is installed."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, NO_SCROLLING, browse
from tests.report.pages import Page
from tests.serving import servers

pytest.importorskip('aiohttp', reason="needs the extra serve: pip install -e '.[serve]'")
pytest.importorskip('prometheus_client', reason="needs the extra serve: pip install -e '.[serve]'")


@pytest.fixture
def photo(tmp_path):
    """Red on the left, blue on the right; the right half is less certain."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15, 0], pixels[:, 15:, 2] = 255, 60
    Image.fromarray(pixels).save(tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


def color(browser, x, y):
    """Red, green, blue and opacity of a pixel of the overlay, without the browser's last digit."""
    values = browser.value(f"[...overlay.getContext('2d').getImageData({x}, {y}, 1, 1).data]")
    return [round(value / 8) * 8 for value in values]


def slide(browser, name, value):
    browser.value(f"{name}.value = {value}; {name}.dispatchEvent(new Event('input'))")


def browse_page(server, visit):
    """Opens the server's page, which must ask nobody else, and calls `visit` with it."""
    own = f'http://127.0.0.1:{server.port}/'

    def opened(browser):
        browser.open(own, "!!document.getElementById('drop')")
        visit(browser)

    browser = browse(opened)
    assert not browser.errors and all(url.startswith((own, 'data:')) for url in browser.requests)


def test_page_is_sound_and_names_no_other_server():
    with servers.serving() as server:
        status, headers, body = server.ask()
    page = Page(body.decode())
    assert status == 200 and headers['Content-Type'].startswith('text/html')
    assert 'http' not in page.source.replace('http-equiv="Content-Security-Policy"', '')
    assert "connect-src 'self'" in page.source and page.of('input')[0]['type'] == 'file'


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_class_map_in_a_browser(photo, tmp_path):
    def visit(browser):
        browser.show(1300, 'light')
        browser.choose(photo)
        browser.until("found.rows.length === 2 && message.textContent.includes('30 × 20')")
        assert color(browser, 3, 3) == [200, 0, 0, 128]
        assert color(browser, 20, 3) == [0, 0, 200, 128]
        assert '50.0 %' in browser.value('found.rows[0].textContent')
        slide(browser, 'threshold', 0.9)
        assert color(browser, 3, 3) == [200, 0, 0, 128]
        assert color(browser, 20, 3) == [0, 0, 0, 0]
        slide(browser, 'opacity', 1)
        assert color(browser, 3, 3) == [200, 0, 0, 256]
        browser.value("found.rows[0].querySelector('input').click()")
        assert browser.value("overlay.getContext('2d').getImageData(0, 0, 30, 20).data.filter(Boolean).length") == 0
        backgrounds = set()
        for width in (1300, 400):
            for scheme in ('light', 'dark'):
                browser.show(width, scheme)
                assert browser.value(NO_SCROLLING)
                backgrounds.add(browser.value('getComputedStyle(document.body).backgroundColor'))
        assert len(backgrounds) == 2

    with servers.serving() as server:
        browse_page(server, visit)


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_instances_and_a_refusal_in_a_browser(photo, tmp_path):
    def visit(browser):
        browser.choose(photo)
        browser.until('found.rows.length === 2')
        assert browser.value('found.rows[0].textContent') == ' red0.90'
        assert color(browser, 8, 6)[3] == 128
        assert color(browser, 1, 1) == [0, 0, 0, 0]  # Its score is below the slider's 0.5.
        slide(browser, 'threshold', 0.3)
        assert color(browser, 1, 1)[3] == 128 and color(browser, 0, 0)[3] == 256
        bad = tmp_path / 'notes.txt'
        bad.write_text('nothing')
        browser.errors.clear()
        browser.choose(bad)
        browser.until("message.classList.contains('error')")
        assert 'not an image' in browser.value('message.textContent')
        assert all('415' in json.dumps(error) for error in browser.errors)
        browser.errors.clear()

    with servers.serving(servers.model(servers.Detector())) as server:
        browse_page(server, visit)
