"""What springs Hypercorn's traps: applications that do one thing each, and bytes of clients.

Nothing here expects anything; `test_hypercorn_traps.py` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import DataFrame, PriorityFrame

from proxy.http1.asgi import Message, Receive, Send

# --- applications ---


class Recorder:
    """An application that says by `ended` that it has answered its request, or was cancelled."""

    def __init__(self, answer: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._answer = answer
        self.ended = trio.Event()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._answer(scope, receive, send)
        finally:
            self.ended.set()


async def start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    """Begin an answer with 200."""
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def write(send: Send, data: bytes, *, more: bool = True) -> None:
    """Send a piece of the answer's body."""
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def wait_disconnect(receive: Receive) -> None:
    """Wait until ASGI says that the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def silent_answer(scope: Message, receive: Receive, send: Send) -> None:
    """Begin an answer, then wait for a silent upstream until the client is gone."""
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            await wait_disconnect(receive)
            nursery.cancel_scope.cancel()

        nursery.start_soon(leave)
        await start(send)
        await write(send, b"begun")
        await trio.sleep_forever()


async def endless_answer(scope: Message, receive: Receive, send: Send) -> None:
    """Send without end, and never receive."""
    await start(send)
    while True:
        await write(send, b"x" * 65536)


async def brief_answer(scope: Message, receive: Receive, send: Send) -> None:
    """Answer at once without reading the request; take every WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    await start(send, (b"Content-Length", b"2"))
    await write(send, b"ok", more=False)


async def reading_answer(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole request, then answer."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await brief_answer(scope, receive, send)


def get(path: str = "/", *fields: str) -> bytes:
    """Return a whole GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


# --- clients' bytes ---

WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
POST = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")]


def http2(*requests: list[tuple[str, str]], end: bool = True) -> bytes:
    """Return what an HTTP/2 client sends first: its preface, and requests."""
    config = H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
    )
    connection = H2Connection(config)
    connection.initiate_connection()
    for number, request in enumerate(requests):
        connection.send_headers(2 * number + 1, request, end_stream=end)
    return connection.data_to_send()


def with_path(path: str) -> list[tuple[str, str]]:
    """Return a request for `path`."""
    return [(name, path if name == ":path" else value) for name, value in POST]


PRIORITIES = b"".join(
    PriorityFrame(number, stream_weight=1).serialize() for number in range(1, 2202, 2)
)
KILLING = {
    "a byte after a WebSocket upgrade": (get("/", *WEBSOCKET) + b"x",),
    "a WebSocket subprotocol that is not ASCII": (
        get("/", *WEBSOCKET, "Sec-WebSocket-Protocol: X").replace(b": X", b": \xff"),
    ),
    "HTTP/2 data after an early response": (
        http2(POST, end=False),
        DataFrame(1, data=b"0123456789").serialize(),
    ),
    "an HTTP/2 path that is not ASCII": (http2(with_path("/\u00e9")),),
    "HTTP/2 CONNECT without a path": (
        http2([(":method", "CONNECT"), (":authority", "localhost")]),
    ),
    "over 1000 HTTP/2 PRIORITY frames": (http2() + PRIORITIES,),
}
