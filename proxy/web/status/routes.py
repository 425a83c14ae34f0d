"""The data of the status page: `/status/json`, and `/status/events` as it changes.

Owns one viewer's stream, as plain ASGI. The page itself is a file (`web.static_files`); who may see
it is the front door's.
"""

from __future__ import annotations

import trio

from proxy.core.errors import NotFound
from proxy.core.sse import comment
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ClientConnection
from proxy.web.status.hub import StatusHub, Viewer, compact_json

PATHS = frozenset({"/status/json", "/status/events"})

_HEARTBEAT_S = 15.0
_STREAM = [(b"Content-Type", b"text/event-stream"), (b"X-Accel-Buffering", b"no")]


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

        Cancellation: the viewer is forgotten; its stream has no proper end.
        """
        if scope["method"] not in ("GET", "HEAD"):
            raise NotFound("This path answers GET only.")
        if scope["path"] == "/status/json":
            await _answer(send, self._hub.snapshot())
            return
        await _start(send, _STREAM)
        if scope["method"] == "GET":
            await self._watch(scope["state"]["connection"], send)
        else:
            await _send_body(send, b"", more=False)

    async def _watch(self, connection: ClientConnection, send: Send) -> None:
        viewer = self._hub.attach()
        forget = connection.on_gone(lambda _: viewer.life.cancel())
        try:
            with viewer.life:
                while data := await _next_of(viewer):
                    await _send_body(send, data, more=True)
                await _send_body(send, b"", more=False)
        finally:
            forget()
            self._hub.detach(viewer)


async def _next_of(viewer: Viewer) -> bytes:
    """Return what a viewer is to be sent next; a heartbeat where that is long in coming.

    Empty when it is over.
    """
    with trio.move_on_after(_HEARTBEAT_S):
        while not (data := viewer.queue.take()) and not viewer.over:
            await viewer.wait_news()
        return data
    return comment("heartbeat")


async def _start(send: Send, fields: list[tuple[bytes, bytes]]) -> None:
    headers = [*fields, (b"Cache-Control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _answer(send: Send, found: dict[str, object]) -> None:
    body = compact_json(found).encode()
    kind = (b"Content-Type", b"application/json; charset=utf-8")
    await _start(send, [kind, (b"Content-Length", b"%d" % len(body))])
    await _send_body(send, body, more=False)
