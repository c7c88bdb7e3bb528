"""`--mode=serve`: an exported file is served until a signal, and mistakes in its flags are told."""

import json
import os
import signal
import socket
import sys
import threading
import types
import urllib.request

import numpy as np
import pytest

from seg import modes
from seg.engine import set_up
from seg.errors import UserError
from seg.export import model_file
from seg.export.description import Description
from seg.modes import serve
from tests.prediction import fakes
from tests.serving import servers

pytest.importorskip('aiohttp', reason="needs the extra serve: pip install -e '.[serve]'")
pytest.importorskip('prometheus_client', reason="needs the extra serve: pip install -e '.[serve]'")


@pytest.fixture(autouse=True)
def exported(monkeypatch):
    """An exported file that looks at single pixels."""
    about = Description(
        task='semantic', format='onnx', quantize='none', canvas=(32, 48), batch=None, fills_canvas=False,
        class_names=fakes.INFO.class_names, original_ids=None, colors=(), ignore_label=255, data='mine/train',
        weights='raw', step=7, seg='0', outputs={'classes': '', 'confidence': ''},
    )  # fmt: skip

    def run(images, sizes):
        found = fakes.colours(images)
        return {'classes': found.argmax(-1).astype(np.uint8), 'confidence': found.max(-1)}

    fake = types.SimpleNamespace(path='a/model.onnx', description=about, run=run)
    monkeypatch.setattr(model_file, 'open_model', lambda path: fake)


def call(**flags):
    return modes.run(mode='serve', model='a/model.onnx', engine=set_up('one', 'float32', 'off'), **flags)


def test_serves_until_it_is_asked_to_terminate(monkeypatch):
    answers = []

    def visit(host, port):
        def client():
            address = f'http://{host}:{port}'
            request = urllib.request.Request(f'{address}/segment', servers.encoded(fakes.noise(40, 60)))
            answers.append(json.loads(urllib.request.urlopen(request, timeout=20).read()))
            answers.append(json.loads(urllib.request.urlopen(f'{address}/model', timeout=20).read()))
            os.kill(os.getpid(), signal.SIGTERM)

        assert host == '127.0.0.1'
        threading.Thread(target=client).start()

    monkeypatch.setattr(serve, '_tell', visit)
    before = signal.getsignal(signal.SIGTERM)
    assert call(port=0) == {'segmented': 1}
    segmented, about = answers
    assert (segmented['width'], segmented['height']) == (60, 40) and about['format'] == 'onnx'
    signal.signal(signal.SIGTERM, before)


def test_an_address_that_is_taken():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f'--port={port}'):
            call(port=port)


@pytest.mark.parametrize(
    ('flags', 'named'),
    [
        ({'port': 70000}, '--port=70000'),
        ({'max_requests': 0}, '--max_requests'),
        ({'max_megabytes': -1.0}, '--max_megabytes'),
        ({'timeout': 0.0}, '--timeout'),
        ({'checkpoint': 'best'}, '--checkpoint=best'),
    ],
)
def test_refused_flags(flags, named):
    with pytest.raises(UserError, match=named):
        call(**flags)


def test_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, 'aiohttp', None)
    with pytest.raises(UserError, match=r'aiohttp.*\.\[serve\]'):
        call()
