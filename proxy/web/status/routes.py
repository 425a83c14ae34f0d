"""The data of the status page: `/status/json`, and `/status/events` as it changes.

Owns one viewer's stream, as plain ASGI. The page itself is a file (`web.static_files`); who may see
it is the front door's.
"""

from __future__ import annotations

import json

import trio

from proxy.core.errors import NotFound
from proxy.core.sse import comment
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ClientConnection
from proxy.web.status.hub import StatusHub, Viewer

PATHS = frozenset({"/status/json", "/status/events"})

_HEARTBEAT_S = 15.0
_NO_STORE = (b"Cache-Control", b"no-store")


class StatusRoutes:
    """Answers `PATHS`.

    Args:
        hub: Tells viewers.
    """

    def __init__(self, hub: StatusHub) -> None:
        self._hub = hub

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            NotFound: For another method than GET and HEAD.
        """
        if scope["method"] not in ("GET", "HEAD"):
            raise NotFound("This path answers GET only.")
        if scope["path"] == "/status/json":
            await _answer(send, self._hub.snapshot())
        else:
            await self._watch(scope["state"]["connection"], send)

    async def _watch(self, connection: ClientConnection, send: Send) -> None:
        headers = [
            (b"Content-Type", b"text/event-stream"),
            _NO_STORE,
            (b"X-Accel-Buffering", b"no"),
        ]
        viewer = self._hub.attach()
        scope = trio.CancelScope()
        forget = connection.on_gone(lambda _: scope.cancel())
        try:
            with scope:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                while not self._hub.closed:
                    await _send_body(send, await self._next_of(viewer), more=True)
                await _send_body(send, b"", more=False)
        finally:
            forget()
            self._hub.detach(viewer)

    async def _next_of(self, viewer: Viewer) -> bytes:
        """Return what a viewer is to be sent next; a heartbeat where that is long in coming."""
        with trio.move_on_after(_HEARTBEAT_S):
            while not (data := viewer.queue.take()) and not self._hub.closed:
                await viewer.wait_news()
            return data
        return comment("heartbeat")


async def _send_body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _answer(send: Send, found: dict[str, object]) -> None:
    body = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    headers = [
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        _NO_STORE,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
