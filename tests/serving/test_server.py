"""The HTTP server: its answers, its limits, hostile uploads, and its end."""

import base64
import gzip
import io
import json
import pathlib
import re
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.prediction import fakes
from tests.serving import servers

pytest.importorskip('aiohttp', reason="needs the extra serve: pip install -e '.[serve]'")
pytest.importorskip('prometheus_client', reason="needs the extra serve: pip install -e '.[serve]'")

IMAGE = fakes.noise(20, 30)
CLASSES = fakes.colours(IMAGE).argmax(-1)


@pytest.fixture(scope='module')
def server():
    with servers.serving(max_megabytes=0.5, max_megapixels=0.1) as found:
        yield found


@pytest.fixture(scope='module')
def detector():
    with servers.serving(servers.model(servers.Detector())) as found:
        yield found


def sent(server, body, query='', **headers):
    status, headers, body = server.ask('POST', f'/segment{query}', body, headers)
    return status, headers['Content-Type'], body


def refused(server, body, query='', **headers):
    """Status and reason of a refusal."""
    status, kind, body = sent(server, body, query, **headers)
    assert kind.startswith('application/json')
    return status, json.loads(body)['error']


# ---- Answers ---------------------------------------------------------------------------------------------------------


def test_class_map_as_run_lengths(server):
    status, kind, body = sent(server, servers.encoded(IMAGE))
    found = json.loads(body)
    assert (status, kind, found['task'], found['width'], found['height']) == (
        200,
        'application/json',
        'semantic',
        30,
        20,
    )
    assert sum(entry['pixels'] for entry in found['classes']) == 600
    for entry in found['classes']:
        assert np.array_equal(coco.decode(entry['segmentation']), CLASSES == entry['id'])
        assert entry['name'] == fakes.INFO.class_names[entry['id']] and entry['color'] == list(
            fakes.COLORS[entry['id']]
        )


def test_class_map_as_polygons_and_confidence(server):
    found = json.loads(sent(server, servers.encoded(IMAGE), '?masks=polygons&confidence=1')[2])
    assert all(entry['polygons'] and 'segmentation' not in entry for entry in found['classes'])
    png = Image.open(io.BytesIO(base64.b64decode(found['confidence_png'])))
    assert np.abs(np.asarray(png) / 255 - fakes.colours(IMAGE).max(-1)).max() < 0.003


def test_class_map_as_png_and_overlay(server):
    status, kind, body = sent(server, servers.encoded(IMAGE), Accept='image/png')
    assert kind == 'image/png' and np.array_equal(np.asarray(Image.open(io.BytesIO(body))), CLASSES)
    kind, body = sent(server, servers.encoded(IMAGE), '?format=overlay')[1:]
    assert kind == 'image/jpeg' and Image.open(io.BytesIO(body)).size == (30, 20)


def test_a_large_image_comes_back_at_its_own_size(server):
    image = np.zeros((80, 100, 3), np.uint8)
    image[:, :50, 1], image[:, 50:, 2] = 255, 255
    found = np.asarray(Image.open(io.BytesIO(sent(server, servers.encoded(image), '?format=png')[2])))
    assert found.shape == (80, 100) and (found[:, :49] == 1).all() and (found[:, 51:] == 2).all()


def test_a_form_as_curl_sends_it(server):
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head + servers.encoded(IMAGE) + b'\r\n--x--\r\n'
    kind = {'Content-Type': 'multipart/form-data; boundary=x', 'Accept': 'image/png'}
    found = sent(server, body, **kind)[2]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found))), CLASSES)


def test_instances(detector):
    found = json.loads(sent(detector, servers.encoded(IMAGE))[2])
    assert found['task'] == 'instance' and found['count'] == 2
    first, second = found['detections']
    assert (first['class'], first['score'], first['bbox']) == ('red', 0.9, [4, 2, 16, 8])
    assert coco.decode(first['segmentation']).sum() == 128 and second['class'] == 'blue'
    assert json.loads(sent(detector, servers.encoded(IMAGE), '?min_score=0.5&masks=polygons')[2])['count'] == 1
    numbers = np.asarray(Image.open(io.BytesIO(sent(detector, servers.encoded(IMAGE), '?format=png')[2])))
    assert numbers[5, 5] == 1 and numbers[1, 1] == 2 and numbers[15, 25] == 0
    assert sent(detector, servers.encoded(IMAGE), '?format=overlay')[1] == 'image/jpeg'


def test_health_model_and_metrics(server):
    assert json.loads(server.ask(path='/health')[2]) == {'status': 'ok'}
    about = json.loads(server.ask(path='/model')[2])
    assert about['task'] == 'semantic' and [entry['name'] for entry in about['classes']] == ['red', 'green', 'blue']
    before = server.metric('seg_requests_total{path="/segment",status="200"}')
    sent(server, servers.encoded(IMAGE))
    assert server.metric('seg_requests_total{path="/segment",status="200"}') == before + 1
    assert server.metric('seg_requests_in_progress') == 0


def test_examples_of_the_documentation(server, detector, tmp_path, monkeypatch, capsys):
    page = (pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'serving.md').read_text(encoding='utf-8')
    (program,) = re.findall(r'^```python\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photo.jpg').write_bytes(servers.encoded(IMAGE, 'JPEG'))
    for running in (server, detector):
        exec(program.replace('127.0.0.1:8000', f'127.0.0.1:{running.port}'), {})
        assert 'of 600 pixels' in capsys.readouterr().out
    questions = re.findall(r'^curl .*?/segment(\?[^ \n\']*)?', page, re.MULTILINE)
    assert len(questions) == 4
    assert all(sent(server, servers.encoded(IMAGE), question)[0] == 200 for question in questions)


# ---- Refusals --------------------------------------------------------------------------------------------------------


def bomb(side):
    """A PNG of a few bytes that states side x side pixels."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'\0' * 99)) + chunk(b'IEND', b'')


@pytest.mark.parametrize(
    ('body', 'status', 'reason'),
    [
        (b'', 400, 'empty'),
        (b'GET me an image', 415, 'not an image'),
        (b'%PDF-1.7 ' + bytes(500), 415, 'not an image'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, 'not an image'),
        (servers.encoded(IMAGE)[:200], 400, 'truncated'),
        (servers.encoded(IMAGE)[:20], 415, 'no image'),
        (servers.encoded(fakes.noise(60, 60), 'JPEG')[:900], 400, 'truncated'),
        (bomb(400), 413, '400 x 400 pixels'),
        (bomb(60000), 413, 'million pixels'),
        (bytes(600_000), 413, '0.5 MB'),
    ],
    ids=['empty', 'text', 'pdf', 'svg', 'png cut', 'head cut', 'jpeg cut', 'too many pixels', 'bomb', 'too many bytes'],
)
def test_hostile_uploads(server, body, status, reason):
    found, text = refused(server, body)
    assert found == status and reason in text


def test_endless_body(server):
    """It has no length, and is refused before its end."""
    with socket.create_connection(('127.0.0.1', server.port), timeout=20) as client:
        client.sendall(b'POST /segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
        for _ in range(20):
            client.sendall(b'10000\r\n' + bytes(0x10000) + b'\r\n')
        assert client.recv(1000).startswith(b'HTTP/1.1 413 ')


def test_slow_upload():
    with servers.serving(timeout=0.2) as server:
        with socket.create_connection(('127.0.0.1', server.port), timeout=20) as client:
            client.sendall(b'POST /segment HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n' + bytes(9))
            assert client.recv(1000).startswith(b'HTTP/1.1 408 ')


def test_a_connection_without_a_request_is_closed():
    with servers.serving(timeout=0.2) as server:
        with socket.create_connection(('127.0.0.1', server.port), timeout=20) as client:
            assert client.recv(1000) == b''


@pytest.mark.parametrize(
    ('query', 'named'),
    [('?format=bmp', 'format'), ('?masks=svg', 'masks'), ('?min_score=2', 'min_score'), ('?min_score=x', 'min_score'),
     ('?size=7', 'size'), ('?confidence=yes', 'confidence')],
)  # fmt: skip
def test_unknown_questions(server, query, named):
    status, text = refused(server, servers.encoded(IMAGE), query)
    assert status == 400 and named in text


def test_forms_without_a_file(server):
    kind = {'Content-Type': 'multipart/form-data; boundary=x'}
    field = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nhello\r\n--x--\r\n'
    assert refused(server, field, **kind)[0] == 400
    assert refused(server, b'--x--\r\n', **kind)[0] == 400
    assert refused(server, b'nothing of the kind', **kind)[0] == 400
    assert refused(server, b'', **{'Content-Type': 'multipart/form-data'})[0] == 400


def long_headers(count):
    return b'--x\r\n' + b'A: b\r\n' * count


@pytest.mark.parametrize(
    ('headers', 'body', 'status'),
    [
        ({'Content-Encoding': 'gzip'}, b'not compressed', 400),
        ({'Content-Encoding': 'gzip'}, gzip.compress(bytes(50_000_000)), 413),
        ({'Content-Type': 'multipart/form-data; boundary=x'}, b'A' * 520_000, 400),
        ({'Content-Type': 'multipart/form-data; boundary=x'}, long_headers(50_000), 400),
        ({'Content-Type': f'multipart/form-data; boundary={"x" * 200}'}, b'a', 400),
        ({'Content-Type': 'multipart/mixed; boundary=x'}, b'--x\r\nContent-Type: multipart/mixed\r\n\r\n', 400),
    ],
    ids=['not compressed', 'bomb', 'no line', 'headers', 'boundary', 'nested'],
)
def test_bodies_that_break_rules(server, headers, body, status, caplog):
    found, reason = refused(server, body, **headers)
    assert found == status and reason and 'Traceback' not in caplog.text


def test_requests_that_break_rules(server):
    for request in (
        b'\x16\x03\x01\x02\x00',
        b'POST /segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
        b'GET /' + b'a' * 20_000 + b' HTTP/1.1\r\n\r\n',
    ):
        with socket.create_connection(('127.0.0.1', server.port), timeout=20) as client:
            client.sendall(request)
            assert client.recv(1000).split()[1] == b'400'


def test_unknown_paths_and_methods(server):
    assert server.ask(path='/etc/passwd')[0] == 404
    status, headers, body = server.ask(path='/segment')
    assert status == 405 and headers['Allow'] == 'POST' and json.loads(body)['error']
    assert server.ask('DELETE', '/')[0] == 405


# ---- Several requests ------------------------------------------------------------------------------------------------


def test_concurrent_requests_share_batches():
    predictor = servers.Predictor()
    with servers.serving(servers.model(predictor), batch_size=4, batch_wait_ms=0) as server:
        assert [len(sizes) for sizes in predictor.batches] == [1, 2, 4]  # Warm-up.
        predictor.free.clear()
        predictor.running.clear()
        images = [fakes.noise(8, 8 + i, i) for i in range(7)]
        with ThreadPoolExecutor(7) as clients:
            answers = [clients.submit(sent, server, servers.encoded(image), '?format=png') for image in images]
            servers.until(lambda: server.metric('seg_requests_in_progress') == 7)
            servers.until(predictor.running.is_set)
            predictor.free.set()
            for image, answer in zip(images, answers, strict=True):
                found = np.asarray(Image.open(io.BytesIO(answer.result()[2])))
                assert np.array_equal(found, fakes.colours(image).argmax(-1))
        assert len(predictor.batches) - 3 < 7 and max(len(sizes) for sizes in predictor.batches[3:]) == 4


def test_a_fixed_batch_is_filled_up():
    predictor = servers.Predictor()
    with servers.serving(servers.model(predictor, batch=3)) as server:
        assert sent(server, servers.encoded(IMAGE))[0] == 200
        assert {len(sizes) for sizes in predictor.batches} == {3}


def test_busy_server_refuses_and_a_client_that_leaves_frees_its_place():
    predictor = servers.Predictor()
    with servers.serving(servers.model(predictor), max_requests=1) as server:
        predictor.free.clear()
        with socket.create_connection(('127.0.0.1', server.port)) as client:
            body = servers.encoded(IMAGE)
            client.sendall(b'POST /segment HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
            servers.until(lambda: server.metric('seg_requests_in_progress') == 1)
            status, text = refused(server, body)
            assert status == 503 and '1 requests' in text
        servers.until(lambda: server.metric('seg_requests_in_progress') == 0)
        predictor.free.set()
        assert sent(server, body)[0] == 200 and server.metric('seg_requests_left_total') == 1


def test_an_answer_that_takes_too_long():
    predictor = servers.Predictor()
    with servers.serving(servers.model(predictor), timeout=0.3) as server:
        predictor.free.clear()
        assert refused(server, servers.encoded(IMAGE))[0] == 503
        predictor.free.set()
        assert sent(server, servers.encoded(IMAGE))[0] == 200


def test_requests_in_progress_are_answered_at_the_end():
    predictor = servers.Predictor()
    with servers.serving(servers.model(predictor)) as server:
        predictor.free.clear()
        with ThreadPoolExecutor(1) as clients:
            answer = clients.submit(sent, server, servers.encoded(IMAGE))
            servers.until(lambda: server.metric('seg_requests_in_progress') == 1)
            server.stop()
            servers.until(lambda: _refuses_connections(server.port))
            threading.Timer(0.1, predictor.free.set).start()
            assert answer.result()[0] == 200


def _refuses_connections(port):
    try:
        socket.create_connection(('127.0.0.1', port), timeout=1).close()
    except OSError:
        return True
    return False


def test_a_fault_of_the_model_is_told_as_the_servers():
    class Broken(servers.Predictor):
        def __call__(self, batch):
            if len(self.batches) < 3:
                return super().__call__(batch)
            raise RuntimeError('secret')

    with servers.serving(servers.model(Broken())) as server:
        status, text = refused(server, servers.encoded(IMAGE))
        assert status == 500 and 'secret' not in text
        assert server.ask(path='/health')[0] == 200
