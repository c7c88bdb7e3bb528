"""A server of files on this machine, in place of the addresses of published ones."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.contents`, by path.

    A file whose path begins with `/broken` ends in the middle, `/unsized` has no stated length, and `/whole` cannot be
    continued.
    """

    def do_GET(self):
        path = self.path.partition('?')[0]
        self.server.requests.append((self.path, self.headers.get('Range')))
        content = self.server.contents.get(path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if (wanted := self.headers.get('Range')) and not path.startswith('/whole'):
            start = int(wanted.removeprefix('bytes=').removesuffix('-'))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if not path.startswith('/unsized'):
            self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2] if path.startswith('/broken') else content[start:])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(contents: Mapping[str, bytes]) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server of these files, by path. Its `url` begins their addresses; `requests` has paths and ranges."""
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.contents, server.requests = contents, []
        server.url = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def closed_url() -> str:
    """The beginning of an address at which nobody listens."""
    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as closed:
        return f'http://127.0.0.1:{closed.server_port}'
