"""The front door: who is asking, may they, and who of us answers.

Owns the first and the last line of every request, on either listener: its request id, the access
decision (`core.access`), CORS and identity headers on whatever is answered, and the one boundary at
which an error of one request ends. It reads no body.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from proxy.core.access import AccessPolicy, Preflight, Refused, decide
from proxy.core.errors import HttpError, InternalError
from proxy.core.headers import request_id
from proxy.http1.asgi import AsgiApp, Message, Receive, Send
from proxy.http1.identity import identity_fields, make_request_id

logger = logging.getLogger("proxy.front_door")

_ALLOW = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")


class FrontDoor:
    """A listener's ASGI application.

    Args:
        policy: Keys, hosts and origins.
        choose: Returns who of us answers a path.
    """

    def __init__(self, policy: AccessPolicy, choose: Callable[[str], AsgiApp]) -> None:
        self._policy = policy
        self._choose = choose

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; a defect of ours after the reply has begun is raised."""
        state = scope["state"]
        found = next(
            (value for key, value in scope["headers"] if key.lower() == b"x-request-id"), None
        )
        state["request_id"] = request_id(found, make_request_id)
        reply = _Reply(send, state["request_id"])
        try:
            await self._answer(scope, receive, reply)
        except* HttpError as group:
            await reply.error(_first_http_error(group))
        except* Exception:
            logger.exception("a request failed", extra={"request_id": state["request_id"]})
            if reply.started:
                raise
            await reply.error(InternalError("The proxy made a mistake."))

    async def _answer(self, scope: Message, receive: Receive, reply: _Reply) -> None:
        method, path = scope["method"], scope["path"]
        decision = decide(
            self._policy,
            method=method,
            path=path,
            headers=scope["headers"],
            secure=scope["scheme"] == "https",
        )
        if isinstance(decision, Preflight):
            await reply.empty(204, decision.headers)
            return
        reply.cors_headers = decision.cors_headers
        if isinstance(decision, Refused):
            raise decision.error
        # Here and not in the framer: a page can read it, and who may not ask is told that first.
        refusal: HttpError | None = scope["state"].get("refusal")
        if refusal is not None:
            raise refusal
        scope["state"]["principal"] = decision.principal
        if path == "*":
            await reply.empty(204, [_ALLOW])
        else:
            await self._choose(path)(scope, receive, reply.send)


class _Reply:
    """The reply of one request: adds what every reply has."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.cors_headers: list[tuple[bytes, bytes]] = []
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": self._complete(message["headers"])}
        await self._send(message)

    async def error(self, error: HttpError) -> None:
        """Answer `error`; a reply that has begun is left unfinished, so its connection breaks."""
        if self.started:
            return
        body = error.as_body(self._request_id)
        headers = [*error.as_headers(), (b"Content-Length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def empty(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def _complete(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        ours = identity_fields(self._request_id)
        missing = [field for field in ours if field[0].lower() not in present]
        return [*headers, *missing, *self.cors_headers]


def _first_http_error(group: BaseExceptionGroup[HttpError]) -> HttpError:
    first: BaseExceptionGroup[HttpError] | HttpError = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
