"""One HTTP/1.1 exchange with llama-server, on a connection of its own.

Owns the socket to the upstream, with h11 for the request and the response's head, and
`core.response_body` for its body. Every relayed request opens one connection and closes it at its
end: closing is what frees llama-server's slot, and a kept connection races llama-server's own idle
timer (5 s, 100 requests). It never retries, never decides and never looks into a body.

Foreign errors (`OSError`, Trio's, h11's) are translated here, and only here, to `UpstreamFailed`.

Source: RFC 9112; h11's client role.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import h11
import trio

from proxy.core.errors import UpstreamFailed
from proxy.core.response_body import ResponseBody, body_of
from proxy.runtime.address import Address

# One read: a Linux unix socket hands over up to its whole buffer; larger reads only cost memory.
READ_SIZE = 64 * 1024
# llama-server's heads are under 1 KiB; an upstream that somebody else runs may set large cookies.
MAX_RESPONSE_HEAD = 64 * 1024

UNREACHABLE = "llama-server could not be reached."
BROKEN = "llama-server closed the connection before its answer was complete."
MALFORMED = "llama-server's answer was not valid HTTP."


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The status line and header fields of an upstream's final response, spelling kept."""

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class UpstreamConnection:
    """A connection to llama-server that carries exactly one request.

    Made by `open_upstream`. Order of use: `send_head`, `send_data`..., `send_end`, `receive_head`,
    `receive_data` until it returns `b""`. Sending and receiving may run in two tasks.

    Cancellation: every method may be cancelled at any await; the connection is then of no further
    use and wants `close`.

    Args:
        stream: To send with, to close, and under TLS to read.
        plain: The socket beneath `stream`, to read from it ourselves; None under TLS.
    """

    def __init__(
        self,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        plain: socket.socket | None = None,
    ) -> None:
        self._stream = stream
        self._plain = plain
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_RESPONSE_HEAD)
        self._peer_ended = False
        self._method = b""
        self._body: ResponseBody | None = None
        # Received with the head already.
        self._early = b""

    async def send_head(
        self, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Send the request's head; `headers` carry the framing of the body.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        self._method = method
        with self._translated():
            await self._send(h11.Request(method=method, target=target, headers=list(headers)))

    async def send_data(self, data: bytes) -> None:
        """Send a piece of the request's body.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        with self._translated():
            await self._send(h11.Data(data=data))

    async def send_end(self) -> None:
        """Say that the request is complete.

        Raises:
            UpstreamFailed: When the connection breaks.
        """
        with self._translated():
            await self._send(h11.EndOfMessage())

    async def receive_head(self) -> ResponseHead:
        """Wait for the head of the final response; interim (1xx) responses are passed over.

        Raises:
            UpstreamFailed: When the connection ends or breaks first, or what came is not HTTP.
        """
        with self._translated():
            while not isinstance(event := self._http.next_event(), h11.Response):
                if event is h11.NEED_DATA:
                    await self._receive()
            head = ResponseHead(
                event.status_code, bytes(event.reason), tuple(event.headers.raw_items())
            )
        self._early, _ = self._http.trailing_data
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
                received, self._early = self._early or await self._read(), b""
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
    def bare_socket(self) -> socket.socket | None:
        """The socket, for somebody else to read the rest of the body from; None under TLS.

        Also None while bytes that came with the head have not been received from us.
        """
        return None if self._early else self._plain

    async def _receive(self) -> None:
        data = await self._read()
        self._peer_ended = not data
        self._http.receive_data(data)

    async def _read(self) -> bytes:
        """Wait first and read then: Trio's stream tries first, for nothing in nearly every read.

        That, with the wrappers around it, is a tenth of what a relayed event costs.
        """
        if self._plain is None:
            return bytes(await self._stream.receive_some(READ_SIZE))
        while True:
            if self._plain.fileno() < 0:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._plain)
            try:
                return self._plain.recv(READ_SIZE)
            except BlockingIOError:
                continue

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise UpstreamFailed(BROKEN) from error
        except h11.RemoteProtocolError as error:
            raise UpstreamFailed(BROKEN if self._peer_ended else MALFORMED) from error

    def close(self) -> None:
        """Close the socket at once; idempotent, does not block, wakes whoever waits on it."""
        stream = self._stream
        transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        transport.socket.close()


async def open_upstream(address: Address) -> UpstreamConnection:
    """Connect to llama-server.

    Args:
        address: Where it listens. The caller bounds the wait in time.

    Raises:
        UpstreamFailed: When nobody listens there, or TLS cannot be agreed.

    Cancellation: nothing is left open.
    """
    try:
        if address.uds is not None:
            return _over_plain(await trio.open_unix_socket(address.uds))
        stream = await trio.open_tcp_stream(address.host, address.port)
        if not address.tls:
            return _over_plain(stream)
        return UpstreamConnection(await _over_tls(stream, address.host))
    except OSError as error:
        raise UpstreamFailed(UNREACHABLE) from error


def _over_plain(stream: trio.SocketStream) -> UpstreamConnection:
    """Take the plain socket out of Trio's, and let a new one of Trio's close both."""
    trio_socket = stream.socket
    plain = socket.socket(trio_socket.family, trio_socket.type, fileno=trio_socket.detach())
    plain.setblocking(False)
    return UpstreamConnection(trio.SocketStream(trio.socket.from_stdlib_socket(plain)), plain)


async def _over_tls(stream: trio.SocketStream, host: str) -> trio.SSLStream[trio.SocketStream]:
    secured = trio.SSLStream(
        stream, ssl.create_default_context(), server_hostname=host, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        stream.socket.close()
        raise UpstreamFailed(UNREACHABLE) from error
    except BaseException:
        stream.socket.close()
        raise
    return secured
