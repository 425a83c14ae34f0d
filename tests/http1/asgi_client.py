"""An ASGI application asked without a server: for what needs no socket."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import trio

from proxy.http1.asgi import AsgiApp, Message

Field = tuple[bytes, bytes]


@dataclass(slots=True)
class Reply:
    """What an application answered.

    Attributes:
        status: Its status; 0 if it never began.
        headers: Its header fields, in order.
        body: Its body so far.
        complete: Whether it had its proper end.
    """

    status: int = 0
    headers: list[Field] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of a header, whatever its spelling."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: bytes) -> bytes:
        """Return the value of a header that is there exactly once."""
        (value,) = self.all(name)
        return value

    @property
    def error(self) -> dict[str, Any]:
        """The error object in the body."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found

    async def take(self, message: Message) -> None:
        """Take a message of the application's."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message["body"]
            self.complete = not message["more_body"]


def scope_of(
    method: str = "GET",
    path: str = "/",
    headers: tuple[Field, ...] = ((b"Host", b"localhost"),),
    **state: Any,
) -> Message:
    """Return the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
        "state": state,
        "extensions": {},
    }


async def ask(app: AsgiApp, scope: Message, reply: Reply | None = None) -> Reply:
    """Ask `app` with an empty body, by a client that stays; return the reply."""
    found = reply or Reply()
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await trio.sleep_forever()
        return messages.pop()

    with trio.fail_after(10):
        await app(scope, receive, found.take)
    return found
