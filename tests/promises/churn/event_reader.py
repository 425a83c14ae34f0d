"""A stream of a prediction's events, read as it comes: no byte of it is looked at twice.

Owns the framing, and the judgement whether a stream has its proper end.
"""

from __future__ import annotations

from tests.promises.churn.client import Dishonest
from tests.promises.predicting import Frame, frame_of, status_of
from tests.promises.wire import Wire


class StreamReader:
    """Reads one chunked stream of events, as it comes.

    Args:
        client: The connection.
    """

    def __init__(self, client: Wire) -> None:
        self._client = client
        self._raw = b""
        self._text = b""
        self._over = False

    async def begin(self) -> None:
        """Read the head of the answer."""
        head = await self._client.read_until(b"\r\n\r\n")
        if status_of(head) != 200:
            raise Dishonest(f"a stream was answered {head!r}")
        self._raw = head.partition(b"\r\n\r\n")[2]

    async def next(self) -> Frame | None:
        """Return the next event; None at the proper end.

        Raises:
            Dishonest: The stream ends without its proper end.
        """
        while True:  # noqa: ASYNC913 - it waits, or has something to return
            block, found, rest = self._text.partition(b"\n\n")
            if found:
                self._text = rest
                if not block.startswith(b":"):
                    return frame_of(block)
            elif self._over:
                return None
            else:
                await self._take_chunk()

    async def _take_chunk(self) -> None:
        while (chunk := self._next_chunk()) is None:
            data = await self._client._stream.receive_some(65536)
            if not data:
                raise Dishonest(f"a stream has no end: {self._text[-300:]!r}")
            self._raw += data
        self._over = not chunk
        self._text += chunk

    def _next_chunk(self) -> bytes | None:
        size, found, rest = self._raw.partition(b"\r\n")
        length = int(size, 16) if found else 0
        if not found or len(rest) < length + 2:
            return None
        self._raw = rest[length + 2 :]
        return rest[:length]
