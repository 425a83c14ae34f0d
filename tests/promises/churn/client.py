"""One client of a churn: runs its errand over a socket of its own and says how it came out.

Owns the sockets, and the judgement whether an answer is honest: an answer that looks complete has
to be complete (promise P3), whatever happened to the exchange meanwhile.
"""

from __future__ import annotations

import json
import socket
import struct
from enum import StrEnum

import trio

from tests.promises.churn.plan import End, Errand, Moment

# A client that stops reading stays until the proxy has cut it off: some tenths of a second until
# every buffer between is full, and the proxy's send timeout.
_STALL_S = 3.0
# How a stream says that it is complete, by route.
_LAST_WORDS = {
    "/completion": b'"stop":true',
    "/v1/responses": b"response.completed",
    "/v1/messages": b"message_stop",
}
_DONE = b"[DONE]"
_LINGER_ZERO = struct.pack("ii", 1, 0)
_SMALL_BUFFER = 4096


class Outcome(StrEnum):
    """What a client has seen of its exchange."""

    WHOLE = "a whole answer"
    REFUSED = "refused for now"
    ERROR = "an error status"
    ERROR_EVENT = "an error event"
    BROKEN = "a broken answer"
    LEFT = "left before the end"


class Dishonest(AssertionError):
    """An answer looks complete and is not."""


async def run_errand(errand: Errand, port: int, request_id: str) -> Outcome:
    """Run an errand against the proxy on `port`.

    Raises:
        Dishonest: When an answer looks complete and is not.
    """
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if errand.end is End.STALLED:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    with sock:
        client = _Client(sock, errand, port, request_id)
        try:
            await sock.connect(("127.0.0.1", port))
            return await client.run()
        except OSError:
            return Outcome.BROKEN


async def cancel_by_admin(port: int, request_id: str) -> None:
    """Cancel an exchange, which may have ended meanwhile."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with sock:
        await sock.connect(("127.0.0.1", port))
        target = f"DELETE /proxy/exchanges/{request_id} HTTP/1.1"
        await _send(sock, f"{target}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = _status(await _read_to_end(sock))
        if status not in (204, 404):
            raise AssertionError(f"DELETE of an exchange was answered {status}")


class _Client:
    def __init__(
        self, sock: trio.socket.SocketType, errand: Errand, port: int, request_id: str
    ) -> None:
        self._sock = sock
        self._errand = errand
        self._port = port
        self._request_id = request_id

    async def run(self) -> Outcome:
        errand = self._errand
        if errand.reuses:
            await self._ask_before()
        leaves = errand.end in (End.FIN, End.RESET, End.HALF_CLOSE)
        if leaves and errand.moment in (Moment.IN_HEAD, Moment.IN_BODY):
            return await self._leave_in_request()
        await _send(self._sock, self._head() + self._body() + errand.extra)
        received = b""
        if leaves or errand.end is End.CANCELLED:
            if errand.moment is Moment.READING:
                received = await self._read(errand.after_bytes)
            # Chance in time is what a churn is about.
            await trio.sleep(errand.after_s)
            if leaves:
                return await self._leave()
            await cancel_by_admin(self._port, self._request_id)
        elif errand.end is End.STALLED:
            await trio.sleep(_STALL_S)
        return self._judge(received + await _read_to_end(self._sock))

    async def _ask_before(self) -> None:
        """Carry another request on the connection first, so that it is a kept one."""
        await _send(self._sock, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"live\n"):
            data = await self._sock.recv(4096)
            if not data:
                raise ConnectionResetError
            received += data

    def _head(self) -> bytes:
        errand = self._errand
        lines = [
            f"{'GET' if errand.body is None else 'POST'} {errand.path} HTTP/1.1",
            "Host: localhost",
            f"X-Request-Id: {self._request_id}",
            "Connection: close",
        ]
        if errand.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self._body())}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def _body(self) -> bytes:
        if self._errand.body is None:
            return b""
        body = json.dumps(self._errand.body).encode()
        return body[:-1] + b"!" if self._errand.end is End.BAD_REQUEST else body

    async def _leave_in_request(self) -> Outcome:
        head, body = self._head(), self._body()
        sent = head[: len(head) // 2]
        if self._errand.moment is Moment.IN_BODY:
            sent = head + body[: len(body) // 2]
        await _send(self._sock, sent)
        await trio.sleep(self._errand.after_s)
        return await self._leave()

    async def _leave(self) -> Outcome:
        if self._errand.end is End.RESET:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        elif self._errand.end is End.HALF_CLOSE:
            self._sock.shutdown(socket.SHUT_WR)
            await _read_to_end(self._sock)
        return Outcome.LEFT

    async def _read(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            data = await self._sock.recv(4096)
            if not data:
                break
            received += data
        return received

    def _judge(self, received: bytes) -> Outcome:
        head, _, body = received.partition(b"\r\n\r\n")
        if not _is_complete(head, body):
            return Outcome.BROKEN
        status = _status(received)
        if status != 200:
            return Outcome.REFUSED if status in (429, 503) else Outcome.ERROR
        if not self._errand.streams:
            return Outcome.WHOLE
        if b'"error"' in body.rsplit(b"data: ", 1)[-1]:
            return Outcome.ERROR_EVENT
        if _LAST_WORDS.get(self._errand.path, _DONE) in body:
            return Outcome.WHOLE
        raise Dishonest(f"{self._errand} ended with {body[-300:]!r}")


def _is_complete(head: bytes, body: bytes) -> bool:
    """Tell whether an answer has its proper end, by its framing."""
    fields = head.lower()
    if b"transfer-encoding: chunked" in fields:
        return body.endswith(b"\r\n0\r\n\r\n")
    _, length, rest = fields.partition(b"content-length: ")
    return bool(length) and len(body) == int(rest.split(b"\r\n")[0])


def _status(received: bytes) -> int:
    return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0


async def _send(sock: trio.socket.SocketType, data: bytes) -> None:
    while data:
        data = data[await sock.send(data) :]


async def _read_to_end(sock: trio.socket.SocketType) -> bytes:
    received = []
    try:
        while data := await sock.recv(65536):
            received.append(data)
    except ConnectionError:
        pass
    return b"".join(received)
