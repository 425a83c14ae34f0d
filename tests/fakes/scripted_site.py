"""A web site in a test's own Trio run: a page, the module, and two listeners that follow a script.

It stands for the proxy where a browser is to see what a proper proxy would not do. The `main`
listener serves the page, `fastpath.js` and the two routes that the module asks for; the `fast` one
is another origin, as the real one is. Preflights are answered by the site, everything else by the
script of the test.

Each answer has a connection of its own: then its end is the end of the client's interest, or ours.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any

import trio

import proxy.web
from tests.fakes.scripted_server import read_head

PATIENCE_S = 15.0
MODULE = Path(proxy.web.__file__).parent / "static" / "fastpath.js"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class End(Enum):
    """How a scripted stream ends."""

    WHOLE = auto()
    CUT = auto()
    STAYS_OPEN = auto()


@dataclass(slots=True)
class Visit:
    """One request, and the connection on which it is answered.

    Attributes:
        name: Whom it asks: `negotiation`, `fast`, `main` or `page`.
        method: Its method.
        target: Its target.
        fields: Its header fields, by their names in lower case.
        body: Its body.
        stream: The connection.
        left: Set when the client has closed the connection before we did.
    """

    name: str
    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    stream: trio.SocketStream
    left: trio.Event = field(default_factory=trio.Event)

    @property
    def json(self) -> Any:
        """The JSON in its body."""
        return json.loads(self.body)

    async def head(
        self, status: int, kind: str, *fields: str, cors: bool = True, framing: str
    ) -> None:
        """Send a head.

        Args:
            status: The status.
            kind: The content type.
            fields: More header lines.
            cors: Let a page of another origin read the answer.
            framing: The header line that frames the body.
        """
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", framing, *fields]
        if cors and "origin" in self.fields:
            lines.append(f"Access-Control-Allow-Origin: {self.fields['origin']}")
            lines.append("Access-Control-Expose-Headers: X-Request-Id")
        text = "\r\n".join([*lines, "Connection: close", "", ""])
        await self.stream.send_all(text.encode())

    async def chunk(self, data: bytes) -> None:
        """Send a piece of a body; an empty one ends it."""
        await self.stream.send_all(b"%x\r\n%b\r\n" % (len(data), data))

    async def stay(self) -> None:
        """Say nothing more, for as long as the client stays."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass  # it closed with a reset
        except trio.ClosedResourceError:
            return  # we did
        self.left.set()

    async def wait_left(self) -> None:
        """Wait until the client has closed the connection before we did."""
        with trio.fail_after(PATIENCE_S):
            await self.left.wait()

    def cut(self) -> None:
        """Close the connection, whatever the script is at."""
        self.stream.socket.close()

    def reset(self) -> None:
        """Break the connection."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.cut()


Script = Callable[[Visit], Awaitable[None]]


def answer(
    status: int, body: object, *fields: str, kind: str = "application/json", cors: bool = True
) -> Script:
    """Make a script that answers once: bytes as they are, everything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def follow(visit: Visit) -> None:
        length = f"Content-Length: {len(content)}"
        await visit.head(status, kind, *fields, cors=cors, framing=length)
        await visit.stream.send_all(content)

    return follow


def stream(
    *pieces: bytes,
    end: End = End.WHOLE,
    status: int = 200,
    fields: tuple[str, ...] = (),
    kind: str = EVENT_STREAM,
) -> Script:
    """Make a script that answers a body in pieces."""

    async def follow(visit: Visit) -> None:
        await visit.head(status, kind, *fields, framing="Transfer-Encoding: chunked")
        for piece in pieces:
            await visit.chunk(piece)
        if end is End.WHOLE:
            await visit.chunk(b"")
        elif end is End.STAYS_OPEN:
            await visit.stay()

    return follow


async def silence(visit: Visit) -> None:
    """Answer nothing, for as long as the client waits."""
    await visit.stay()


async def hang_up(visit: Visit) -> None:
    """Break the connection without an answer."""
    visit.reset()


class ScriptedSite:
    """A running site.

    Attributes:
        url: The main listener's base URL: the page's origin.
        fast_url: The fast listener's.
        visits: What was asked so far, in order, but the page's own files and preflights.
        negotiation: Answers where the fast path is; unless the test says otherwise: here.
        fast: Answers on the fast listener.
        main: Answers `/v1/chat/completions` on the main listener.
        preflight_status: What preflights are answered.
    """

    def __init__(self, url: str, fast_url: str) -> None:
        self.url = url
        self.fast_url = fast_url
        self.visits: list[Visit] = []
        self.negotiation: Script = answer(200, self.offer())
        self.fast: Script = answer(500, {})
        self.main: Script = answer(500, {})
        self.preflight_status = 204
        self._asked = trio.Event()

    def offer(self, **changes: object) -> dict[str, object]:
        """Return what is answered to who asks where the fast path is, with `changes`."""
        usual = {
            "supported": True,
            "stream_url": f"{self.fast_url}/stream",
            "token": "once",
            "port": int(self.fast_url.rpartition(":")[2]),
            "ttl_seconds": 10,
        }
        return usual | changes

    @property
    def names(self) -> list[str]:
        """Who was asked, in order."""
        return [visit.name for visit in self.visits]

    def visit(self, name: str) -> Visit:
        """Return the only visit to `name`."""
        (found,) = (visit for visit in self.visits if visit.name == name)
        return found

    async def wait_asked(self, name: str) -> Visit:
        """Wait for the first visit to `name`."""
        with trio.fail_after(PATIENCE_S):
            while name not in self.names:
                await self._asked.wait()
        return self.visit(name)

    async def serve(self, listener: str, stream: trio.SocketStream) -> None:
        """Answer one connection of a listener, `main` or `fast`."""
        async with stream:
            try:
                visit = await _read_visit(listener, stream)
                if visit is not None:
                    await self._answer(visit)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # one of the two left; the test looks at what matters of it

    async def _answer(self, visit: Visit) -> None:
        if visit.method == "OPTIONS":
            methods = "Access-Control-Allow-Methods: GET, POST"
            asked = visit.fields["access-control-request-headers"]
            names = f"Access-Control-Allow-Headers: {asked}"
            await answer(self.preflight_status, b"", methods, names)(visit)
            return
        if visit.name != "page":
            self.visits.append(visit)
            self._asked.set()
            self._asked = trio.Event()
        await self._script(visit)(visit)

    def _script(self, visit: Visit) -> Script:
        scripts = {"negotiation": self.negotiation, "fast": self.fast, "main": self.main}
        if visit.name in scripts:
            return scripts[visit.name]
        if visit.target == "/fastpath.js":
            return answer(200, MODULE.read_bytes(), kind="text/javascript")
        found = visit.target == "/"
        return answer(200 if found else 404, b"<!doctype html>", kind="text/html")


async def _read_visit(listener: str, stream: trio.SocketStream) -> Visit | None:
    """Read one request; None when there is none: browsers connect in advance."""
    head, _, body = (await read_head(stream)).partition(b"\r\n\r\n")
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(fields.get("content-length", 0)):
        piece = await stream.receive_some()
        if not piece:
            return None
        body += piece
    return Visit(_name_of(listener, target), method, target, fields, body, stream)


def _name_of(listener: str, target: str) -> str:
    if listener == "fast":
        return "fast"
    known = {"/api/inference/stream-url": "negotiation", "/v1/chat/completions": "main"}
    return known.get(target, "page")


@asynccontextmanager
async def scripted_site() -> AsyncIterator[ScriptedSite]:
    """Serve a site on two free ports of loopback."""
    async with trio.open_nursery() as nursery:
        listeners = {
            name: (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            for name in ("main", "fast")
        }
        urls = [f"http://127.0.0.1:{_port(listener)}" for listener in listeners.values()]
        site = ScriptedSite(*urls)
        for name, listener in listeners.items():
            nursery.start_soon(trio.serve_listeners, partial(site.serve, name), [listener])
        yield site
        nursery.cancel_scope.cancel()


def _port(listener: trio.SocketListener) -> int:
    port: int = listener.socket.getsockname()[1]
    return port
