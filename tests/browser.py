"""A page in Chromium, driven by its debugging protocol over a pair of pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
NO_SCROLLING = 'document.documentElement.scrollWidth <= document.documentElement.clientWidth'
_KEYS = {'ArrowLeft': 37, 'ArrowUp': 38, 'ArrowRight': 39, 'ArrowDown': 40, 'Escape': 27, 'Enter': 13, 'Tab': 9}
_SECONDS = 30  # How long to wait for an answer, or for something to happen on the page.


class Browser:
    """A page.

    Attributes:
      requests: addresses that the page has asked for.
      errors: errors of its scripts and in its log.
    """

    def __init__(self, commands, answers):
        self._commands, self._answers = commands, answers
        self._number, self._rest, self._session = 0, b'', None
        self.requests, self.errors = [], []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'DOM', 'Log'):
            self.call(f'{domain}.enable')

    def call(self, method, **params):
        self._number += 1
        command = {'id': self._number, 'method': method, 'params': params}
        command |= {'sessionId': self._session} if self._session else {}
        os.write(self._commands, json.dumps(command).encode() + b'\0')
        while True:
            message = json.loads(self._receive())
            if message.get('method') == 'Network.requestWillBeSent':
                self.requests.append(message['params']['request']['url'])
            entry = message.get('params', {}).get('entry', {})
            if message.get('method') == 'Runtime.exceptionThrown' or entry.get('level') == 'error':
                self.errors.append(message['params'])
            if message.get('id') == self._number:
                assert 'error' not in message, message
                return message['result']

    def _receive(self):
        while b'\0' not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], _SECONDS)
            assert ready, 'Chromium does not answer'
            piece = os.read(self._answers, 2**20)
            assert piece, 'Chromium has ended'
            self._rest += piece
        message, _, self._rest = self._rest.partition(b'\0')
        return message

    def open(self, url, ready='true'):
        """Opens an address, and waits until JavaScript `ready` is true there."""
        self.call('Page.navigate', url=url)
        self.until(f"location.href !== 'about:blank' && document.readyState === 'complete' && ({ready})")

    def value(self, expression):
        result = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def until(self, expression):
        end = time.monotonic() + _SECONDS
        while not self.value(expression):
            assert time.monotonic() < end, (expression, self.errors)
            time.sleep(0.05)

    def choose(self, path):
        """Chooses a file, as a click on the field does."""
        root = self.call('DOM.getDocument')
        node = self.call('DOM.querySelector', nodeId=root['root']['nodeId'], selector='#file')
        self.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node['nodeId'])

    def key(self, key, shift=False):
        """Presses a key, such as 'ArrowLeft' or 'n'."""
        code = {'windowsVirtualKeyCode': _KEYS[key]} if key in _KEYS else {}
        common = {'key': key, 'modifiers': 8 * shift, **code}
        text = '\r' if key == 'Enter' else key if len(key) == 1 else ''
        self.call('Input.dispatchKeyEvent', type='keyDown', text=text, **common)
        self.call('Input.dispatchKeyEvent', type='keyUp', **common)

    def mouse(self, kind, x, y, **more):
        """Moves the mouse ('mouseMoved'), presses or releases a button, or turns the wheel."""
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **more)

    def middle(self, selector):
        """The middle of an element in the window, after scrolling it there."""
        found = f'document.querySelector({json.dumps(selector)})'
        self.value(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        return self.value(
            f'(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({found}.getBoundingClientRect())'
        )

    def click(self, selector):
        x, y = self.middle(selector)
        for kind in ('mousePressed', 'mouseReleased'):
            self.mouse(kind, x, y, button='left', clickCount=1)

    def show(self, width, scheme, height=900):
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def picture(self, path):
        """Saves what the window shows as a PNG."""
        Path(path).write_bytes(base64.b64decode(self.call('Page.captureScreenshot')['data']))


def browse(visit):
    """Starts Chromium, and calls `visit` with a `Browser`; returns the browser."""
    (read_commands, commands), (answers, write_answers) = os.pipe(), os.pipe()
    theirs = [fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 20) for pipe in (read_commands, write_answers)]

    def numbered():  # Chromium reads from 3 and writes to 4.
        for number, pipe in zip((3, 4), theirs, strict=True):
            os.dup2(pipe, number)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Without a sandbox, because containers often lack what it needs; the pages are our own.
        process = subprocess.Popen(
            [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--remote-debugging-pipe', f'--user-data-dir={profile}', 'about:blank'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=numbered, pass_fds=(3, 4),
        )  # fmt: skip
        try:
            for pipe in (read_commands, write_answers, *theirs):
                os.close(pipe)
            browser = Browser(commands, answers)
            visit(browser)
            return browser
        finally:
            process.kill()
            process.wait()
            os.close(commands)
            os.close(answers)
