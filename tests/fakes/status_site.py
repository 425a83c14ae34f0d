"""A program that plays the proxy's status routes: the real page, and reports as its caller says.

It serves the files of the page under the policy that the proxy serves them with, answers
`/status/json`, `/status/events` and the two commands of the page, and keeps what it was asked for.
Each viewer gets the last snapshot when it comes, as from the proxy, and then what is sent.

Run as a program it plays one scene over and over, for whoever works on the page:
`python -m tests.fakes.status_site`.
"""

from __future__ import annotations

import itertools
import json
import math
import mimetypes
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import proxy.web
from tests.fakes.status_scenes import ended, exchange, snapshot

STATIC = Path(proxy.web.__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Ends a viewer's stream.
_END = b""


class StatusSite:
    """What the site does, and what it was asked for. Every method may be called from any thread.

    Args:
        max_age_s: How long a browser may keep the files. More than nothing is for tests, in which
            they do not change.

    Attributes:
        url: The page's URL.
        port: Its TCP port.
        is_gone: Answer nothing but files, and hang up instead.
        asked: Method, path and `Authorization` of what was asked for, but files.
    """

    def __init__(self, max_age_s: int = 0) -> None:
        self.max_age_s = max_age_s
        self._lock = threading.Lock()
        self._viewers: list[queue.Queue[bytes]] = []
        self._number = 0
        self.reset()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/status"

    def reset(self) -> None:
        """Be as at first: an idle proxy without keys, and nothing was asked for yet."""
        self.asked: queue.Queue[tuple[str, str, str | None]] = queue.Queue()
        self.is_gone = False
        self._state = snapshot()
        self._refusal: tuple[int, str] | None = None
        self._keys: set[str] = set()
        self.close_streams()

    def status(self, state: dict[str, Any]) -> None:
        """Report a snapshot, to who views and, without its texts' loss, to who comes."""
        with self._lock:
            self._state = state
            self._send(self._event("status", state))

    def token(self, request_id: str, text: str, kind: str = "text") -> None:
        """Report a piece of text; who comes later does not get it."""
        found = {"request_id": request_id, "text": text, "kind": kind}
        with self._lock:
            self._send(self._event("token", found))

    def raw(self, data: bytes) -> None:
        """Send bytes to who views."""
        with self._lock:
            self._send(data)

    def refuse(self, status: int | None, message: str = "Refused.") -> None:
        """Answer everything but files with this status; None: no longer."""
        self._refusal = None if status is None else (status, message)

    def require_key(self, *keys: str) -> None:
        """Answer 401 to who has none of these."""
        self._keys = set(keys)

    def close_streams(self) -> None:
        """End every viewer's stream."""
        with self._lock:
            self._send(_END)

    @contextmanager
    def serving(self) -> Iterator[StatusSite]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.close_streams()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def refusal_of(self, key: str | None) -> tuple[int, str] | None:
        """Return what who has this `Authorization` is answered instead of what it wants."""
        if self._keys and (key or "").removeprefix("Bearer ") not in self._keys:
            return 401, "Invalid API key."
        return self._refusal

    def state(self) -> dict[str, Any]:
        """Return the last snapshot."""
        return self._state

    @contextmanager
    def viewing(self) -> Iterator[queue.Queue[bytes]]:
        """Have what is sent to a viewer, from the last snapshot on, while the block runs."""
        pieces: queue.Queue[bytes] = queue.Queue()
        with self._lock:
            pieces.put(self._event("status", self._state))
            self._viewers.append(pieces)
        try:
            yield pieces
        finally:
            with self._lock:
                self._viewers.remove(pieces)

    def _send(self, data: bytes) -> None:
        for pieces in self._viewers:
            pieces.put(data)

    def _event(self, name: str, value: object) -> bytes:
        self._number += 1
        number = f"id: {self._number}\n" if name == "status" else ""
        return f"event: {name}\n{number}data: {json.dumps(value)}\n\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: StatusSite


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path in ("/status", "/fastpath.js") or self.path.startswith("/status/static/"):
            self._file()
        elif self._admit():
            if self.path == "/status/events":
                self._stream()
            else:
                self._answer(200, json.dumps(self.server.site.state()).encode())

    def do_DELETE(self) -> None:
        if self._admit():
            self._answer(204, b"")

    def do_POST(self) -> None:
        if self._admit():
            self._answer(202, b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Say nothing."""

    def _admit(self) -> bool:
        site, key = self.server.site, self.headers["Authorization"]
        if site.is_gone:
            self.close_connection = True
            return False
        site.asked.put((self.command, self.path, key))
        refused = site.refusal_of(key)
        if refused is not None:
            status, message = refused
            error = {"code": status, "message": message, "type": "x", "request_id": "q"}
            self._answer(status, json.dumps({"error": error}).encode())
        return refused is None

    def _file(self) -> None:
        name = {"/status": "status/index.html", "/fastpath.js": "fastpath.js"}.get(
            self.path, self.path.replace("/status/static/", "status/")
        )
        path = STATIC / name
        if not path.is_file():
            self._answer(404, b"")
            return
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        self._answer(200, path.read_bytes(), kind, self.server.site.max_age_s)

    def _answer(
        self, status: int, body: bytes, kind: str = "application/json", max_age_s: int = 0
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", f"max-age={max_age_s}" if max_age_s else "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(OSError), self.server.site.viewing() as pieces:
            for piece in iter(pieces.get, _END):
                self.wfile.write(piece)


@contextmanager
def status_site(max_age_s: int = 0) -> Iterator[StatusSite]:
    """Serve a site on a free port of loopback; `StatusSite` has the argument."""
    with StatusSite(max_age_s).serving() as site:
        yield site


def _play() -> None:
    """Play one exchange after the other, each from its queue to its end, until interrupted."""
    pace = threading.Event()
    with status_site() as site, suppress(KeyboardInterrupt):
        print(site.url, flush=True)
        for number in itertools.count():
            name = f"exchange-{number}"
            for position in (2, 1):
                site.status(snapshot(exchange(name, phase="queued", position=position)))
                pace.wait(1)
            for done in range(0, 4097, 512):
                progress = {"total": 4096, "processed": done, "cached": 512}
                site.status(snapshot(exchange(name, phase="prefill", progress=progress)))
                pace.wait(0.25)
            for tokens in range(400):
                site.token(name, f"word {tokens} ", "thought" if tokens < 60 else "text")
                if tokens % 10 == 0:
                    speed = 20 + 5 * math.sin(tokens / 40)
                    going = exchange(name, completion_tokens=tokens, tokens_per_second=speed)
                    site.status(snapshot(going))
                pace.wait(0.025)
            site.status(snapshot(perf_history=[ended(name)]))
            pace.wait(3)


if __name__ == "__main__":
    _play()
