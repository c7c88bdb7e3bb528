"""Load of the HTTP server: many clients for a minute, beside the same model called in a loop, and a kill in the middle.

    python benchmarks/serving.py [--clients 32] [--seconds 60] [--size 512] -- --model=runs/mine/export/model.onnx

What follows `--` are flags of `seg_main --mode=serve`: an exported file, or the `--model_dir` of a run. Three parts,
each in processes of its own:

- `loop`: images are decoded, predicted and encoded to JSON one after the other, as a program without a server would;
- `server`: clients send the same JPEG images; one of 16 uploads is truncated, and must be refused with status 400. Then
  SIGTERM comes in the middle of requests: all of them must be answered (`cut` 0), and new ones find no server;
- `kill`: SIGKILL in the middle of requests. No process, no file and no port may be left behind.

Prints a JSON object: images per second, latency, errors, and the memory of the server in the first and the last third.
Run it on a machine without other load: the clients and the server share its cores.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import psutil
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONPATH': str(ROOT)}
BROKEN = 16  # One of so many uploads is truncated.


def photos(size: int, count: int = 8) -> list[bytes]:
    """JPEG images with structure and noise."""
    random, found = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((size, size), Image.BICUBIC)
        noisy = np.asarray(coarse, np.int16) + random.normal(0, 8, (size, size, 3)).astype(np.int16)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, 'JPEG', quality=90)
        found.append(buffer.getvalue())
    return found


def loop(flags: list[str], uploads: list[bytes], seconds: float) -> dict[str, float]:
    """Runs in a process of its own: the model of `--mode=serve`, called in a loop."""
    from absl import flags as absl_flags

    from seg import modes, seg_main
    from seg.modes.serve import Serve
    from seg.prediction import canvas, reading
    from seg.serving import answers

    absl_flags.FLAGS.mark_as_parsed()
    values = seg_main.parser()
    values(['seg_main', *flags])
    given = {flag.name: values[flag.name].value for flag in Serve.flags}
    mode = modes._call('serve', values.model_dir, values.gin_file, values.gin_param, values.plugins, None, given)
    with mode.ready():
        model, settings = mode.model(), mode.settings
    writer = model.writer('', settings)
    answering = answers.of_writer(writer)

    def one(upload: bytes) -> bytes:
        pixels = reading.read_image(io.BytesIO(upload))
        plan = writer.plan(pixels, model.canvas)
        window = plan.window(0)
        found = model.predictor(canvas.batch([window], model.batch or 1, model.canvas, 'float32'))
        result = {key: found.get(key, 0, window.shape[:2] if plan.maps else None) for key in plan.keys}
        return answering.body(pixels, plan.prediction(iter([result])), answers.Ask())

    for upload in uploads[:3]:
        one(upload)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        one(uploads[count % len(uploads)])
        count += 1
    return {'images': count, 'images_per_second': round(count / (time.perf_counter() - start), 3)}


class Server:
    """`seg_main --mode=serve` in a process of its own.

    Attributes:
      port: the port that it listens on.
      process: the process.
    """

    def __init__(self, flags: list[str], scratch: str):
        command = [sys.executable, '-m', 'seg.seg_main', '--mode=serve', '--port=0', *flags]
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT | {'TMPDIR': scratch}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if found := re.search(r'Serving on http://\S+?:(\d+)/', line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit(''.join(lines))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def memory_mb(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


class Clients:
    """Threads that send images until they are stopped.

    Attributes:
      statuses: number of answers by status; of requests without one, `refused` connections and those `cut` later.
      seconds: duration of each answer with status 200.
      wrong: answers that a right or a truncated upload should not get.
    """

    def __init__(self, port: int, uploads: list[bytes], count: int):
        self.statuses: collections.Counter = collections.Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self._port, self._uploads, self._ended = port, uploads, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        sent = number  # Clients begin with different images.
        while not self._ended.is_set():
            sent += 1
            upload, broken = self._uploads[sent % len(self._uploads)], sent % BROKEN == 0
            connection = http.client.HTTPConnection('127.0.0.1', self._port, timeout=120)
            start = time.perf_counter()
            try:
                connection.request('POST', '/segment', upload[: len(upload) // 2] if broken else upload)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.statuses['refused' if isinstance(error, ConnectionRefusedError) else 'cut'] += 1
                time.sleep(0.05)
                continue
            finally:
                connection.close()
            self.statuses[response.status] += 1
            if response.status != (400 if broken else 200):
                self.wrong.append(f'{response.status}: {body[:200]!r}')
            elif not broken:
                self.seconds.append(time.perf_counter() - start)


def load(flags: list[str], uploads: list[bytes], clients: int, seconds: float) -> dict:
    """Clients for some seconds, then SIGTERM in the middle of requests."""
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(flags, scratch)
        sending = Clients(server.port, uploads, clients)
        memory, start = [], time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            memory.append(server.memory_mb())
            time.sleep(0.25)
        done, taken = len(sending.seconds), passed
        statuses, p50, p99 = dict(sending.statuses), *np.percentile(sending.seconds, (50, 99))
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=120)
        sending.stop()
        third = len(memory) // 3
        return {
            'images': done,
            'images_per_second': round(done / taken, 3),
            'p50_s': round(float(p50), 3),
            'p99_s': round(float(p99), 3),
            'statuses': statuses,
            'wrong': sending.wrong[:5],
            'memory_mb_first_third': round(max(memory[:third])),
            'memory_mb_last_third': round(max(memory[-third:])),
            'status_after_sigterm': status,
            'cut': sending.statuses['cut'],
            'files_left': os.listdir(scratch),
        }


def kill(flags: list[str], uploads: list[bytes], clients: int) -> dict:
    """SIGKILL in the middle of requests."""
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(flags, scratch)
        sending = Clients(server.port, uploads, clients)
        while len(sending.seconds) < clients:
            time.sleep(0.05)
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        server.process.wait()
        sending.stop()
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(('127.0.0.1', server.port))
        return {
            'processes_left': [child.pid for child in children if child.is_running()],
            'files_left': os.listdir(scratch),
            'wrong': sending.wrong[:5],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clients', type=int, default=32)
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--size', type=int, default=512, help='side of the images, in pixels')
    parser.add_argument('--loop_only', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('flags', nargs='+', help='flags of seg_main --mode=serve, after --')
    arguments = parser.parse_args()
    uploads = photos(arguments.size)
    if arguments.loop_only:
        print(json.dumps(loop(arguments.flags, uploads, arguments.seconds)))
        return
    # A third of the time each before and after the server, because the machine's speed drifts.
    command = [
        sys.executable,
        __file__,
        '--loop_only',
        f'--size={arguments.size}',
        f'--seconds={arguments.seconds / 3}',
    ]
    loops = []

    def run_loop() -> None:
        done = subprocess.run([*command, '--', *arguments.flags], env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
        loops.append(json.loads(done.stdout.splitlines()[-1]))

    run_loop()
    server = load(arguments.flags, uploads, arguments.clients, arguments.seconds)
    run_loop()
    speed = sum(found['images_per_second'] for found in loops) / len(loops)
    results = {'loop': loops, 'server': server, 'share': round(server['images_per_second'] / speed, 3)}
    print(json.dumps(results | {'kill': kill(arguments.flags, uploads, arguments.clients)}, indent=2))


if __name__ == '__main__':
    main()
