"""One request on a client's connection as an ASGI application sees it: scope, receive, send.

Owns the translation between HTTP/1.1 and ASGI for one request: the body is read from the socket
when the application asks for it and not before, so back-pressure reaches the client's kernel and no
queue stands between. What has arrived already is taken without being asked for, so that an early
answer knows whether the connection can be kept.

It does not decide when a connection ends; `connection` does.

Source: the ASGI specification, HTTP; RFC 9110 section 10.1.1 for 100-continue.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import unquote

import trio

from proxy.core.errors import HttpError
from proxy.core.framing import END_OF_REQUEST, NEED_DATA, RequestFramer, RequestHead
from proxy.http1.asgi import Message
from proxy.http1.response_writer import ResponseWriter

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DISCONNECT: Message = {"type": "http.disconnect"}


class Carrier(Protocol):
    """What a request needs of the connection that it came on."""

    gone: trio.Event

    @property
    def may_keep(self) -> bool:
        """Whether the connection may carry another request after this one."""
        ...

    async def read_body(self) -> None:
        """Receive more of the body into the framer; returns when some came or the client is gone.

        Raises:
            HttpError: When the client is too slow.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to the client; a client that is gone takes them without a word."""
        ...


class RequestCycle:
    """One request and its response.

    Args:
        carrier: The connection.
        framer: The connection's framer, which has just given `head`.
        head: The request's head.
    """

    def __init__(self, carrier: Carrier, framer: RequestFramer, head: RequestHead) -> None:
        self._carrier = carrier
        self._framer = framer
        self._head = head
        self._pieces: list[bytes] = []
        self._fault: HttpError | None = None
        self._body_given = False
        self._may_continue = head.expects_continue
        self._writer: ResponseWriter | None = None
        self._held_head = b""
        self._body_end = trio.Event()
        self.complete = False

    @property
    def body_ended(self) -> bool:
        """Whether the whole request has been received."""
        return self._body_end.is_set()

    async def wait_body_ended(self) -> None:
        """Wait until the whole request has been received."""
        await self._body_end.wait()

    @property
    def keeps_alive(self) -> bool:
        """Whether request and response are complete and another request may follow."""
        return self._writer is not None and self._writer.keeps_alive

    @property
    def sends_chunks(self) -> bool:
        """Whether the response's head is sent, its body under way, and that goes in chunks."""
        writer = self._writer
        return writer is not None and writer.chunked and not self._held_head and not self.complete

    def scope(self, state: dict[str, Any], *, scheme: str, client: Any, server: Any) -> Message:
        """Return the ASGI scope.

        Args:
            state: What the application finds under `state`.
            scheme: `http` or `https`.
            client: The client's address.
            server: The address that it connected to.
        """
        head = self._head
        path, _, query = head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version.decode(),
            "method": head.method.decode(),
            "scheme": scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": client,
            "server": server,
            "state": state,
            "extensions": {},
        }

    async def receive(self) -> Message:
        """Return the next piece of the body; after its end, wait for the client to leave.

        Raises:
            HttpError: When the body is malformed, too large or too slow.
        """
        if self._body_given:
            await self._carrier.gone.wait()
            return _DISCONNECT
        self._take_received()
        while not self._pieces and not self.body_ended:
            if self._fault is not None:
                raise self._fault
            if self._carrier.gone.is_set():
                return _DISCONNECT
            await self._read_more()
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._body_given = self.body_ended
        return {"type": "http.request", "body": body, "more_body": not self.body_ended}

    async def send(self, message: Message) -> None:
        """Send the head, or bytes of the body, of the response.

        The head goes out with the first bytes of the body, in one write, and until then another one
        takes its place; an application that has no bytes yet sends it with an empty body message.
        (ASGI: "The protocol server must not start sending the response to the client until it has
        received at least one Response Body event.")

        Cancellation: it is looked at before anything is framed. What is framed is sent, or the
        connection is broken: a message never has a hole.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if message["type"] == "http.response.start":
            self._held_head = self._begin(message)
            return
        writer = self._writer
        if writer is None:
            raise RuntimeError("a response's head comes before its body")
        body = message.get("body", b"")
        data, self._held_head = self._held_head, b""
        if body:
            data += writer.data(body)
        if not message.get("more_body", False):
            data += writer.end()
            self.complete = True
        if data:
            await self._carrier.write(data)

    def _begin(self, message: Message) -> bytes:
        self._take_received()
        self._may_continue = False
        keep = self._head.keep_alive and self.body_ended and self._carrier.may_keep
        self._writer = ResponseWriter(self._head.method, self._head.version, keep_alive=keep)
        return self._writer.head(message["status"], message["headers"], message.get("reason"))

    async def _read_more(self) -> None:
        if self._may_continue:
            self._may_continue = False
            await self._carrier.write(_CONTINUE)
        await self._carrier.read_body()
        self._take_received()

    def _take_received(self) -> None:
        """Take what the framer has: at most what one receive brought."""
        while not self.body_ended and self._fault is None:
            try:
                event = self._framer.next_event()
            except HttpError as fault:
                self._fault = fault
                return
            if event is NEED_DATA:
                return
            if event is END_OF_REQUEST:
                self._body_end.set()
            elif not isinstance(event, RequestHead):
                self._pieces.append(event.data)
