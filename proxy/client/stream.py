"""The events of one answer, for the caller to iterate over.

Owns the end: only the end mark is one. A body that ends without it, an event that is an error and a
connection that breaks are raised. Knows nothing of how the answer was got (`client.client`).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, Self

import trio

from proxy.client.answers import read_event
from proxy.client.errors import StreamBroken, StreamFailed
from proxy.client.transport import Answer
from proxy.core.sse import Event, EventDecoder, EventTooLarge

StreamPath = Literal["fast", "main"]

_END_MARK = "[DONE]"
_UNENDED = f"The stream ended without {_END_MARK}: the answer is not complete."
_CLOSED = "this stream was closed"
# Between the end mark and the end of the body there is nothing to wait for but the network.
_END_S = 1.0


class ChatStream:
    """The events of one answer, in their order: to be iterated over, once.

    Each is the JSON object that the server sent; the end mark is not among them. The iteration ends
    after the end mark only; otherwise it raises.

    Attributes:
        path: The way it came: `"fast"` or `"main"`.
        request_id: What the server's log calls the request; None where it did not tell.
    """

    def __init__(self, answer: Answer, path: StreamPath, max_event_bytes: int) -> None:
        self.path = path
        self.request_id = answer.headers.get("X-Request-Id")
        self._answer = answer
        self._decoder = EventDecoder(max_event_bytes)
        self._unread = b""
        self._events: deque[Event] = deque()
        self._complete = False
        self._closed = False
        self._failure: StreamFailed | None = None

    def __repr__(self) -> str:
        return f"<ChatStream over the {self.path} path, request {self.request_id}>"

    async def wait_begun(self) -> None:
        """Wait for the first byte, and look at it no further.

        Raises:
            StreamBroken: It did not come.
        """
        self._unread = await self._receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """Return the next event.

        Raises:
            StreamAborted: The server ended the stream with an error.
            StreamBroken: It cannot be read on. Whoever asks again gets the same error again.
            trio.ClosedResourceError: It was closed, or its block left, also by another task.

        Cancellation: the connection is closed; asking again is a `StreamBroken`.
        """
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        if self._failure is not None:
            raise self._failure
        try:
            return await self._next()
        except StreamFailed as error:
            if self._closed:
                raise trio.ClosedResourceError(_CLOSED) from error
            self._failure = error
            raise

    async def _next(self) -> dict[str, Any]:
        while not self._events and not self._complete:
            await self._decode()
        if not self._complete:
            data = self._events.popleft().data
            if data != _END_MARK:
                return read_event(data, self.request_id)
            self._complete = True
            await self._finish()
        raise StopAsyncIteration

    async def _decode(self) -> None:
        data, self._unread = self._unread, b""
        try:
            self._events.extend(self._decoder.feed(data or await self._receive()))
        except EventTooLarge as error:
            raise StreamBroken(f"The stream cannot be read on. {error}") from error

    async def _receive(self) -> bytes:
        data = await self._answer.receive_some()
        if not data:
            raise StreamBroken(_UNENDED)
        return data

    async def _finish(self) -> None:
        """Let the server end its reply: one that is left a byte too early takes it for a leave."""
        with trio.move_on_after(_END_S):
            try:
                while await self._answer.receive_some():
                    pass
            except StreamBroken:
                # The answer is whole nevertheless.
                return

    async def aclose(self) -> None:
        """Close the connection at once, whatever is still to come; that frees the slot.

        Cancellation: it is closed nevertheless.
        """
        self._closed = True
        await self._answer.aclose()
