"""The page of a running recipe, served to this machine alone and read-only."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainer.pipeline.live_run import LiveRun
from trainer.report.page import filled_page, json_for_script

SCRIPTS = ("format.js", "charts.js", "live.js")
HOST = "127.0.0.1"
SECONDS = 30.0  # of silence, after which a connection is closed
LAST_LOOK_SECONDS = 4.0  # after the end, for pages that ask every 3 seconds


@contextmanager
def serving(read: Callable[[], LiveRun], port: int) -> Iterator[str]:
    """While this context is open, serve the page of the run that `read` reads. Yields its address;
    port 0 takes a free one. Raises ValueError if the port is taken."""
    first = read()
    page = filled_page(
        title=f"{first.name}: live", content=asdict(first), scripts=SCRIPTS, connects=True
    )
    try:
        server = _Server((HOST, port), partial(_Handler, page, read))
    except (OSError, OverflowError) as error:
        raise ValueError(f"--watch {port}: the port cannot be used: {error}") from error
    threading.Thread(target=server.serve_forever, name="live page", daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
        server.let_pages_read_the_end()
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    last_read = -math.inf  # the time of the last request for the state

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was closed while it was sent is no error of the run."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def let_pages_read_the_end(self) -> None:
        """Wait for the next request of every open page."""
        if time.monotonic() - self.last_read < 2 * LAST_LOOK_SECONDS:
            time.sleep(LAST_LOOK_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of the page and of its state. A page of another site must not read the run
    through a name of its own that leads to this machine, so the Host header must be ours."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = SECONDS
    server_version = "thinktree"
    sys_version = ""

    def __init__(self, page: bytes, read: Callable[[], LiveRun], *rest: object) -> None:
        self._page, self._read = page, read
        super().__init__(*rest)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._answer("text/html; charset=utf-8", self._page)
        elif self.path == "/state.json":
            self.server.last_read = time.monotonic()
            state = json_for_script(asdict(self._read()))
            self._answer("application/json", state.encode())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal shows the run."""
