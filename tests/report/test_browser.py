"""The report in Chromium, where it is installed: hover, sort, zoom, slider and keyboard, narrow and dark."""

import json

import pytest

from seg.report import page
from tests.browser import CHROMIUM, NO_SCROLLING, browse
from tests.report import made, test_instances

ORDER = "[...document.querySelectorAll('{} tbody .name')].map((e) => e.firstChild.textContent.trim())"
TIP = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"


def heading(table, text):
    """The button in the heading of a column."""
    return f"[...document.querySelectorAll('{table} thead button')].find((e) => e.textContent === '{text}')"


def hover_and_keys(browser):
    """Values of a curve and of the matrix."""
    browser.mouse('mouseMoved', *browser.middle('#curves .drawing'))
    told = browser.value(TIP)
    step = int(told.partition('Training')[0].removeprefix('Step '))
    hover = json.loads(browser.value("document.querySelector('#curves .drawing').dataset.hover"))
    training, evaluation = hover['series']
    assert 100 < step < 200 and f'Training: {training["value"][training["at"].index(str(step))]}' in told
    assert f'Evaluation: {evaluation["value"][0]}' in told
    assert browser.value("!document.querySelector('#curves .mark').hidden")
    browser.value("document.querySelector('#curves .drawing').focus()")
    browser.key('Home')
    assert browser.value(TIP).startswith('Step 5Training')
    browser.key('ArrowRight')
    assert browser.value(TIP).startswith('Step 10Training')
    browser.key('Escape')
    assert browser.value(TIP) == ''
    browser.mouse('mouseMoved', *browser.middle('.confusion tbody tr:nth-child(2) td:nth-child(2)'))
    assert browser.value(TIP) == 'True catPredicted background: 40.00 %, 40 pixels'
    browser.value('document.querySelector(\'.confusion td[tabindex="0"]\').focus()')
    browser.key('ArrowDown')
    browser.key('ArrowRight')
    assert browser.value(TIP) == 'True catPredicted cat: 60.00 %, 60 pixels'


def sorting(browser):
    assert browser.value(ORDER.format('.classes')) == ['background', 'dog', 'cat']
    browser.value(heading('.classes', 'Class') + '.focus()')
    browser.key('Enter')
    assert browser.value(ORDER.format('.classes')) == ['background', 'cat', 'dog']
    browser.key('Enter')
    assert browser.value(ORDER.format('.classes')) == ['dog', 'cat', 'background']
    assert browser.value("document.querySelector('.classes [aria-sort]').ariaSort") == 'descending'
    browser.value(heading('.images', 'mIoU') + '.click()')
    assert browser.value(ORDER.format('.images'))[0] == 'street/image_0011'


def viewer(browser):
    """Opened from a row of an image that is drawn large as well, after the table was sorted."""
    title, layer = "document.querySelector('#viewer .title').textContent", "document.querySelector('#viewer .over')"
    browser.click('.images tbody tr:nth-child(1) .open')
    assert browser.value("document.getElementById('viewer').open") and browser.value(title) == 'street/image_0011'
    assert browser.value("document.querySelector('#viewer .names').textContent") == 'truth | prediction'
    browser.key('n')
    assert browser.value(title) == 'street/image_0010'
    browser.key('p')
    assert browser.value(f'{layer}.style.clipPath') == 'inset(0px 0px 0px 50%)'
    browser.key('ArrowRight')
    assert browser.value(f'{layer}.style.clipPath') == 'inset(0px 0px 0px 55%)'
    x, y = browser.middle('#viewer .stage')
    left = browser.value("document.querySelector('#viewer .stage').getBoundingClientRect().left")
    browser.mouse('mousePressed', x, y, button='left', clickCount=1)
    browser.mouse('mouseMoved', left + (x - left) / 2, y, button='left')
    browser.mouse('mouseReleased', left + (x - left) / 2, y, button='left', clickCount=1)
    assert browser.value("Math.round(document.querySelector('#viewer .slider').value)") == 25
    browser.mouse('mouseWheel', x, y, deltaX=0, deltaY=-100)
    assert browser.value("document.querySelector('#viewer .zoom').textContent") == '125 %'
    browser.key('+')
    assert browser.value(f'{layer}.style.transform').endswith('scale(1.875)')
    before = browser.value(f'{layer}.style.transform')
    browser.key('ArrowLeft', shift=True)
    assert browser.value(f'{layer}.style.transform') != before
    browser.key('0')
    assert browser.value(f'{layer}.style.transform') == 'translate(0px, 0px) scale(1)'
    choice = "document.querySelector('#viewer select.right')"
    browser.value(f"{choice}.value = 'errors'; {choice}.dispatchEvent(new Event('change'))")
    assert browser.value(f'{layer}.style.backgroundPosition') == '100% 0px'
    browser.key('Escape')
    assert not browser.value("document.getElementById('viewer').open")


def nothing_cut(browser):
    """No page that scrolls sideways, and a cue where a table does; one background for each scheme."""
    backgrounds = set()
    for width in (1300, 400):
        for scheme in ('light', 'dark'):
            browser.show(width, scheme)
            assert browser.value(NO_SCROLLING), (width, scheme)
            browser.until(
                "[...document.querySelectorAll('.scroll')].every((e) => "
                '(e.scrollWidth > e.clientWidth + 1) === /more-(left|right)/.test(e.className))'
            )
            backgrounds.add(browser.value('getComputedStyle(document.body).backgroundColor'))
    assert len(backgrounds) == 2
    assert browser.value("document.querySelector('.classes').closest('.scroll').matches('.more-right')")


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_the_page_is_driven(tmp_path):
    folder = made.run(tmp_path)
    made.images(folder, 12)
    url = f'file://{page.write(folder)}'

    def visit(browser):
        browser.show(1300, 'light')
        browser.open(url, "!!document.getElementById('viewer')")
        hover_and_keys(browser)
        sorting(browser)
        viewer(browser)
        nothing_cut(browser)

    browser = browse(visit)
    assert not browser.errors and all(each.startswith((url, 'data:')) for each in browser.requests)


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_explanations_and_figures_on_a_phone(tmp_path):
    """Several words of an explanation stand in a line, and a figure is not enlarged, which would blur its text."""
    folder = test_instances.run(tmp_path)
    made.events(folder, 400, [made.figure('fixed/1', 32, 64)])
    url = f'file://{page.write(folder)}'

    def visit(browser):
        browser.show(400, 'light')
        browser.open(url, "!!document.getElementById('scores')")
        heights = "[...document.querySelectorAll('#scores tbody small')].map((e) => e.offsetHeight)"
        assert max(browser.value(heights)) < 55
        browser.value("document.querySelector('.wide img').scrollIntoView()")
        browser.until("document.querySelector('.wide img').complete")
        assert browser.value("document.querySelector('.wide img').offsetWidth") == 64

    browse(visit)
