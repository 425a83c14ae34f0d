"""A request that is to be relayed: what the relay needs of it, and its body read and parsed.

Owns the reading of whole bodies and the parsing of JSON ones. Their size and the pace at which they
come are bounded before, by the guard. It decides nothing about them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import trio

from proxy.core.errors import InvalidRequest
from proxy.core.generation import upstream_body
from proxy.core.media import refuse_foreign_media
from proxy.core.routes import Route, classify
from proxy.core.token_cap import capped_members
from proxy.http1.asgi import Message, Receive

# From here on parsing JSON would hold up every other stream for longer than 10 ms.
_PARSE_IN_THREAD_BYTES = 1024 * 1024


@dataclass(slots=True)
class RelayedRequest:
    """One request as the relay needs it.

    Attributes:
        method: As the client sent it.
        target: The origin-form target, percent-encoding untouched.
        route: What kind of route it is.
        headers: As the client sent them.
        request_id: The `X-Request-Id` it answers.
        client_host: The client's address; None where the socket has none.
        body: The whole body, once it was read; None for a request whose body is streamed.
        fields: The body's JSON object, once it was parsed.
        principal: The name of the key that it came with.
        model: The model that the body names, once it was parsed.
        fast_path: It came by the fast listener.
    """

    method: str
    target: str
    route: Route
    headers: list[tuple[bytes, bytes]]
    request_id: str
    client_host: str | None
    body: bytes | None = None
    fields: dict[str, object] = field(default_factory=dict)
    principal: str | None = None
    model: str | None = None
    fast_path: bool = False

    @classmethod
    def of(cls, scope: Message) -> RelayedRequest:
        """Make it from an ASGI scope that the front door has passed."""
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        client, principal = scope["client"], scope["state"].get("principal")
        return cls(
            method=scope["method"],
            target=target.decode("ascii"),
            route=classify(scope["method"], scope["path"]),
            headers=scope["headers"],
            request_id=scope["state"]["request_id"],
            client_host=client[0] if client else None,
            principal=None if principal is None else principal.name,
        )

    async def read(self, receive: Receive, *, allow_remote_media: bool) -> None:
        """Read the whole body and find it in order.

        Raises:
            HttpError: It is not.

        A client that leaves meanwhile has its exchange ended by whoever notices; this then waits to
        be cancelled.
        """
        body = await read_body(receive)
        if body is None:
            await trio.sleep_forever()
        self.body = body
        if self.has_json:
            self.fields = await parse_object(body)
            model = self.fields.get("model")
            self.model = model if isinstance(model, str) else None
        if self.route.generates and not allow_remote_media:
            refuse_foreign_media(self.fields)

    def ask_as_we_do(self, max_tokens: int | None) -> None:
        """Make its body what llama-server is asked in the client's place.

        Args:
            max_tokens: How many tokens the answer may have at most; None for no bound of ours.
        """
        if self.route.generates and self.body is not None:
            label, fields = self.route.label, self.fields
            bounds = capped_members(label, fields, max_tokens)
            self.body = upstream_body(label, fields, self.body, bounds)

    def forget_body(self) -> None:
        """Hold the body no more: it is being sent, and it is decided what becomes of the answer.

        A stream may run for an hour, and its prompt may have megabytes.
        """
        self.fields = {}
        if self.body is not None:
            self.body = b""

    @property
    def conversation(self) -> str | None:
        """The `X-Conversation-Id` under which llama-server keeps a stream for those who rejoin."""
        found = self.header(b"x-conversation-id")
        return None if found is None else found.decode("latin1")

    @property
    def wants_stream(self) -> bool:
        """Whether the client asked for an event stream."""
        return self.fields.get("stream") is True

    @property
    def has_json(self) -> bool:
        """Whether the body has to be JSON: on routes that generate, whatever it is called."""
        kind = self.header(b"content-type") or b""
        return self.route.generates or kind.lower().startswith(b"application/json")

    @property
    def relayed_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers for llama-server, before the policy; what we read comes uncompressed."""
        if not self.route.generates:
            return list(self.headers)
        return [field for field in self.headers if field[0].lower() != b"accept-encoding"]

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


async def read_body(receive: Receive) -> bytes | None:
    """Read the whole body; None when the client left first.

    Raises:
        HttpError: When the guard refused the body: too large, too slow, malformed.
    """
    pieces = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces += message["body"]
        if not message["more_body"]:
            return bytes(pieces)


async def parse_object(body: bytes) -> dict[str, object]:
    """Parse a body that has to be a JSON object.

    Raises:
        InvalidRequest: When it is not.
    """
    try:
        if len(body) < _PARSE_IN_THREAD_BYTES:
            found = _parse(body)
        else:
            found = await trio.to_thread.run_sync(_parse, body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The body is not valid JSON.") from error
    if not isinstance(found, dict):
        raise InvalidRequest("The body has to be a JSON object.")
    return found


def _parse(body: bytes) -> object:
    # RFC 8259 section 8.1: UTF-8; a byte order mark may be ignored, and llama-server does.
    return json.loads(body.decode("utf-8-sig"))
