"""One HTTP/1.1 exchange with llama-server, on a connection of its own.

Owns the order and the bytes of the exchange: the request is written here, the response's head is
read by `response_head`, its body by `core.response_body`. Every relayed request opens one
connection and closes it at its end: closing is what frees llama-server's slot, and a kept
connection races llama-server's own idle timer (5 s, 100 requests). It never retries, never decides
and never looks into a body.

Foreign errors (`OSError`, Trio's, the parser's) are translated here, and only here, to
`UpstreamFailed`.

Source: RFC 9112.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio

from proxy.core.errors import UpstreamFailed
from proxy.core.response_body import ResponseBody, body_of
from proxy.runtime.address import Address
from proxy.runtime.response_head import END, MalformedHead, ResponseHead, read_head
from proxy.runtime.wires import Wire, dial

# llama-server's heads are under 1 KiB; an upstream that somebody else runs may set large cookies.
MAX_RESPONSE_HEAD = 64 * 1024

UNREACHABLE = "llama-server could not be reached."
BROKEN = "llama-server closed the connection before its answer was complete."
MALFORMED = "llama-server's answer was not valid HTTP."

Field = tuple[bytes, bytes]


class UpstreamConnection:
    """A connection to llama-server that carries exactly one request.

    Made by `open_upstream`. Order of use: `send_whole`, or `send_head`, `send_data`..., `send_end`;
    `receive_head`; `receive_data` until it returns `b""`. Sending and receiving may run in two
    tasks.

    Cancellation: every method may be cancelled at any await; the connection is then of no further
    use and wants `close`.

    Args:
        wire: The connection, fresh.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._method = b""
        self._sends_chunks = False
        self._body: ResponseBody | None = None
        # Received and not yet read.
        self._early = b""

    async def send_whole(
        self, method: bytes, target: bytes, headers: Iterable[Field], body: bytes
    ) -> None:
        """Send a whole request at once.

        Args:
            method: As the client sent it.
            target: In origin form, percent-encoded.
            headers: Checked before; `Content-Length` among them, unless `body` is empty.
            body: All of it.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        with self._translated():
            await self._wire.send_all(self._head(method, target, headers) + body)

    async def send_head(self, method: bytes, target: bytes, headers: Iterable[Field]) -> None:
        """Send the request's head; `headers` carry the framing of the body, chunked or a length.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        fields = list(headers)
        self._sends_chunks = any(name.lower() == b"transfer-encoding" for name, _ in fields)
        with self._translated():
            await self._wire.send_all(self._head(method, target, fields))

    async def send_data(self, data: bytes) -> None:
        """Send a piece of the request's body.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        if self._sends_chunks and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        with self._translated():
            await self._wire.send_all(data)

    async def send_end(self) -> None:
        """Say that the request is complete.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        if self._sends_chunks:
            with self._translated():
                await self._wire.send_all(b"0\r\n\r\n")

    async def receive_head(self) -> ResponseHead:
        """Wait for the head of the final response; interim (1xx) responses are passed over.

        Raises:
            UpstreamFailed: When the connection ends or breaks first, or what came is not HTTP.
        """
        with self._translated():
            while (head := await self._receive_one_head()).status < 200:
                pass
        self._body = body_of(self._method, head.status, head.headers)
        return head

    async def receive_data(self) -> bytes:
        """Wait for the next bytes of the response's body: all that is here, without framing.

        Returns:
            The bytes, `b""` at the proper end of the message.

        Raises:
            UpstreamFailed: When the connection ends or breaks inside the message.
        """
        body = self.body
        with self._translated():
            while not body.complete:
                if body.broken:
                    raise UpstreamFailed(MALFORMED)
                received, self._early = self._early or await self._wire.receive(), b""
                if payload := body.feed(received):
                    return payload
                if not received and not body.end():
                    raise UpstreamFailed(BROKEN)
        return b""

    @property
    def body(self) -> ResponseBody:
        """The body as far as it has been read; it is there once the head is."""
        if self._body is None:
            raise RuntimeError("a response's head comes before its body")
        return self._body

    @property
    def holds_more(self) -> bool:
        """Whether bytes that came with the head have not been received from us."""
        return bool(self._early)

    @property
    def bare_socket(self) -> socket.socket | None:
        """The socket, for somebody else to read the rest of the body from; None under TLS.

        Also None while it `holds_more`.
        """
        return None if self.holds_more else self._wire.bare_socket

    def close(self) -> None:
        """Close the socket at once; idempotent, does not block, wakes whoever waits on it."""
        self._wire.close()

    def _head(self, method: bytes, target: bytes, headers: Iterable[Field]) -> bytes:
        self._method = method
        lines = [b"%b %b HTTP/1.1" % (method, target)]
        lines += [b"%b: %b" % field for field in headers]
        return b"\r\n".join(lines) + END

    async def _receive_one_head(self) -> ResponseHead:
        while (end := self._early.find(END)) < 0:
            if len(self._early) > MAX_RESPONSE_HEAD:
                raise MalformedHead("longer than any head of llama-server's")
            received = await self._wire.receive()
            if not received:
                raise UpstreamFailed(BROKEN)
            self._early += received
        end += len(END)
        head, self._early = self._early[:end], self._early[end:]
        return read_head(head)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise UpstreamFailed(BROKEN) from error
        except MalformedHead as error:
            raise UpstreamFailed(MALFORMED) from error


async def open_upstream(address: Address) -> UpstreamConnection:
    """Connect to llama-server.

    Args:
        address: Where it listens. The caller bounds the wait in time.

    Raises:
        UpstreamFailed: When nobody listens there, or TLS cannot be agreed.

    Cancellation: nothing is left open.
    """
    try:
        return UpstreamConnection(await dial(address))
    except (OSError, trio.BrokenResourceError) as error:
        raise UpstreamFailed(UNREACHABLE) from error
