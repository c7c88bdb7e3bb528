"""The page of the server, in Chromium where it is installed."""

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.pages import Page
from tests.serving import servers

aiohttp = pytest.importorskip('aiohttp', reason="needs the extra serve: pip install -e '.[serve]'")
pytest.importorskip('prometheus_client', reason="needs the extra serve: pip install -e '.[serve]'")
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


class Browser:
    """A page in Chromium, driven by its debugging protocol.

    Attributes:
      requests: addresses that the page has asked for.
    """

    def __init__(self, socket):
        self._socket, self._number, self.requests, self.errors = socket, 0, [], []

    async def call(self, method, **params):
        self._number += 1
        await self._socket.send_json({'id': self._number, 'method': method, 'params': params})
        while True:
            message = json.loads((await self._socket.receive(timeout=30)).data)
            if message.get('method') == 'Network.requestWillBeSent':
                self.requests.append(message['params']['request']['url'])
            entry = message.get('params', {}).get('entry', {})
            if message.get('method') == 'Runtime.exceptionThrown' or entry.get('level') == 'error':
                self.errors.append(message['params'])
            if message.get('id') == self._number:
                assert 'error' not in message, message
                return message['result']

    async def value(self, expression):
        result = await self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    async def until(self, expression):
        end = time.monotonic() + 20
        while not await self.value(expression):
            assert time.monotonic() < end, (expression, self.errors)
            await asyncio.sleep(0.05)

    async def choose(self, path):
        """Chooses a file, as a click on the field does."""
        root = await self.call('DOM.getDocument')
        node = await self.call('DOM.querySelector', nodeId=root['root']['nodeId'], selector='#file')
        await self.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node['nodeId'])

    async def color(self, x, y):
        """Red, green, blue and opacity of a pixel of the overlay, without the browser's last digit."""
        context = "overlay.getContext('2d')"
        values = await self.value(f'[...{context}.getImageData({x}, {y}, 1, 1).data]')
        return [round(value / 8) * 8 for value in values]

    async def slide(self, name, value):
        await self.value(f"{name}.value = {value}; {name}.dispatchEvent(new Event('input'))")

    async def show(self, width, scheme):
        await self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])


def browse(server, visit):
    """Opens the server's page in Chromium, and calls `visit` with it."""

    async def run(port):
        async with aiohttp.ClientSession() as session:
            async with session.get(f'http://127.0.0.1:{port}/json') as response:
                pages = json.loads(await response.text())
            address = next(page['webSocketDebuggerUrl'] for page in pages if page['type'] == 'page')
            async with session.ws_connect(address, max_msg_size=0) as socket:
                browser = Browser(socket)
                for domain in ('Page', 'Runtime', 'Network', 'DOM', 'Log'):
                    await browser.call(f'{domain}.enable')
                await browser.call('Page.navigate', url=f'http://127.0.0.1:{server.port}/')
                await browser.until("document.readyState === 'complete' && !!document.getElementById('drop')")
                await visit(browser)
                own = f'http://127.0.0.1:{server.port}/'
                assert not browser.errors and all(url.startswith((own, 'data:')) for url in browser.requests)

    with tempfile.TemporaryDirectory() as profile:
        # Without a sandbox, because containers often lack what it needs; the page is our own.
        process = subprocess.Popen(
            [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--remote-debugging-port=0', f'--user-data-dir={profile}', 'about:blank'],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            ports = Path(profile) / 'DevToolsActivePort'
            servers.until(lambda: ports.exists() and ports.read_text().count('\n') > 0, seconds=60)
            asyncio.run(run(int(ports.read_text().split()[0])))
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def photo(tmp_path):
    """Red on the left, blue on the right; the right half is less certain."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15, 0], pixels[:, 15:, 2] = 255, 60
    Image.fromarray(pixels).save(tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


NO_SCROLLING = 'document.documentElement.scrollWidth <= document.documentElement.clientWidth'


def test_page_is_sound_and_names_no_other_server():
    with servers.serving() as server:
        status, headers, body = server.ask()
    page = Page(body.decode())
    assert status == 200 and headers['Content-Type'].startswith('text/html')
    assert 'http' not in page.source.replace('http-equiv="Content-Security-Policy"', '')
    assert "connect-src 'self'" in page.source and page.of('input')[0]['type'] == 'file'


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_class_map_in_a_browser(photo, tmp_path):
    async def visit(browser):
        await browser.show(1300, 'light')
        await browser.choose(photo)
        await browser.until("found.rows.length === 2 && message.textContent.includes('30 × 20')")
        assert await browser.color(3, 3) == [200, 0, 0, 128]
        assert await browser.color(20, 3) == [0, 0, 200, 128]
        assert '50.0 %' in await browser.value('found.rows[0].textContent')
        await browser.slide('threshold', 0.9)
        assert await browser.color(3, 3) == [200, 0, 0, 128]
        assert await browser.color(20, 3) == [0, 0, 0, 0]
        await browser.slide('opacity', 1)
        assert await browser.color(3, 3) == [200, 0, 0, 256]
        await browser.value("found.rows[0].querySelector('input').click()")
        assert (
            await browser.value("overlay.getContext('2d').getImageData(0, 0, 30, 20).data.filter(Boolean).length") == 0
        )
        backgrounds = set()
        for width in (1300, 400):
            for scheme in ('light', 'dark'):
                await browser.show(width, scheme)
                assert await browser.value(NO_SCROLLING)
                backgrounds.add(await browser.value('getComputedStyle(document.body).backgroundColor'))
        assert len(backgrounds) == 2

    with servers.serving() as server:
        browse(server, visit)


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_instances_and_a_refusal_in_a_browser(photo, tmp_path):
    async def visit(browser):
        await browser.choose(photo)
        await browser.until('found.rows.length === 2')
        assert await browser.value('found.rows[0].textContent') == ' red0.90'
        assert (await browser.color(8, 6))[3] == 128
        assert await browser.color(1, 1) == [0, 0, 0, 0]  # Its score is below the slider's 0.5.
        await browser.slide('threshold', 0.3)
        assert (await browser.color(1, 1))[3] == 128 and (await browser.color(0, 0))[3] == 256
        bad = tmp_path / 'notes.txt'
        bad.write_text('nothing')
        browser.errors.clear()
        await browser.choose(bad)
        await browser.until("message.classList.contains('error')")
        assert 'not an image' in await browser.value('message.textContent')
        assert all('415' in json.dumps(error) for error in browser.errors)
        browser.errors.clear()

    with servers.serving(servers.model(servers.Detector())) as server:
        browse(server, visit)
