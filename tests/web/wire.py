"""HTTP/1.1 as it is on the wire: a request's exact bytes, an answer in its exact spelling.

No client library shows all of it: the reason phrase, header names as they were spelled, fields in
their order with their duplicates. So it is read by hand, as far as these tests need it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

# What a busy machine may need for what takes milliseconds; reached only by a test that fails.
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A request.

    Attributes:
        method: Its method.
        target: Its target, as it goes on the wire.
        fields: Its header lines, without `Host` and those that frame the body.
        body: Its body; None for a request without one.
        host: What `Host` says.
    """

    method: str
    target: str
    fields: tuple[str, ...] = ()
    body: bytes | None = None
    host: str = "localhost"

    @classmethod
    def json(
        cls,
        target: str,
        value: object,
        *fields: str,
        method: str = "POST",
        host: str = "localhost",
    ) -> Sent:
        """Make one with a JSON body; bytes are sent as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return cls(method, target, ("Content-Type: application/json", *fields), body, host)

    def head(self, *more: str) -> bytes:
        """Return the head."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}", *self.fields, *more]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def raw(self, *more: str) -> bytes:
        """Return the whole request with a length, and header lines `more`."""
        if self.body is None:
            return self.head(*more)
        return self.head(*more, f"Content-Length: {len(self.body)}") + self.body


@dataclass(slots=True)
class Answer:
    """An answer, as it came."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Return the values of a header, whatever its spelling."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Return the value of a header that is there exactly once."""
        (value,) = self.all(name)
        return value

    @property
    def error(self) -> dict[str, object]:
        """The error object in the body."""
        found: dict[str, object] = json.loads(self.body)["error"]
        return found


class Wire:
    """A connection that is read by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._held = b""

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed already may still have answered."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            return

    async def read_answer(self, method: str = "GET") -> Answer:
        """Read one final answer; interim ones are noted in it."""
        interim: list[int] = []
        while True:
            found = _parse_head(await self._until(b"\r\n\r\n"))
            if found.status >= 200:
                break
            interim.append(found.status)
        found.interim = interim
        if method != "HEAD" and found.status not in (204, 304):
            await self._read_body(found)
        return found

    async def read_some(self) -> bytes:
        """Read what comes next; empty at the end."""
        if self._held:
            data, self._held = self._held, b""
            return data
        return bytes(await self.stream.receive_some())

    async def at_end(self) -> bool:
        """Wait for the other side's next sign: True when it closed, False when it sent more."""
        try:
            return not self._held and not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True

    async def _read_body(self, answer: Answer) -> None:
        if "chunked" in (value.lower() for value in answer.all("Transfer-Encoding")):
            while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
                answer.body += await self._exactly(size)
                await self._exactly(2)
            assert await self._until(b"\r\n") == b"\r\n"
        elif answer.all("Content-Length"):
            answer.body = await self._exactly(int(answer.one("Content-Length")))
        else:
            while data := await self.read_some():
                answer.body += data

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._held:
            await self._more()
        found, _, self._held = self._held.partition(mark)
        return found + mark

    async def _exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            await self._more()
        found, self._held = self._held[:count], self._held[count:]
        return found

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        assert data, f"the connection ended inside an answer, after {self._held!r}"
        self._held += data


def _parse_head(data: bytes) -> Answer:
    status_line, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    _, status, reason = status_line.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    return Answer(int(status), reason, [(name, value.strip(" ")) for name, _, value in pairs])


async def ask(stream: trio.SocketStream, sent: Sent, *more: str) -> Answer:
    """Send one request on a new connection and read its answer; the connection is closed then."""
    async with stream:
        wire = Wire(stream)
        with trio.fail_after(PATIENCE_S):
            await wire.send(sent.raw(*more, "Connection: close"))
            return await wire.read_answer(sent.method)


async def ask_port(port: int, sent: Sent, *more: str) -> Answer:
    """Ask a server on loopback."""
    return await ask(await trio.open_tcp_stream("127.0.0.1", port), sent, *more)


async def ask_socket(path: str, sent: Sent, *more: str) -> Answer:
    """Ask a server on a unix socket."""
    return await ask(await trio.open_unix_socket(path), sent, *more)


def without(fields: Sequence[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    """Return the header fields whose names are not among `names`, in lower case."""
    return [found for found in fields if found[0].lower() not in names]
