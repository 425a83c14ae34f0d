"""The routes that make stream tokens: where the fast path is, a token for it, and its end.

Owns the shapes of these replies, as plain ASGI: a page asks for one before each stream, and waits
for no framework. What a token is good for is `core.stream_tokens`'s; who may ask is the front
door's.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import trio

from proxy.core.errors import BodyTooLarge, InvalidRequest, NotFound
from proxy.core.fast_reach import STREAM_PATH, FastReach
from proxy.core.keyring import ApiKey
from proxy.http1.asgi import Message, Receive, Send
from proxy.relay.relayed_request import parse_object
from proxy.runtime.stream_tokens import StreamToken, StreamTokens

STREAM_URL_PATH = "/api/inference/stream-url"
TOKENS_PATH = "/v1/stream-tokens"

# Its members are five, and 16 paths of theirs are under 1 KiB.
_MAX_BODY = 16 * 1024
_UNSUPPORTED = {"supported": False}


class TokenRoutes:
    """Answers `/api/inference/stream-url`, `/v1/stream-tokens` and what is below it.

    Args:
        tokens: Makes and revokes them.
        reach: Where the fast listener is; None when there is none.
        paths: Those that a token may be for.
        any_admin: Whether some keys are admins', who may then revoke the tokens of others.
    """

    def __init__(
        self,
        tokens: StreamTokens,
        reach: FastReach | None,
        *,
        paths: frozenset[str],
        any_admin: bool,
    ) -> None:
        self._tokens = tokens
        self._reach = reach
        self._paths = paths
        self._any_admin = any_admin

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            HttpError: It is not to be had.
        """
        method, path = scope["method"], scope["path"]
        if path == STREAM_URL_PATH and method in ("GET", "HEAD"):
            await _answer(send, 200, self._negotiate(scope))
        elif path == TOKENS_PATH and method == "POST":
            await _answer(send, 201, await self._make(scope, receive))
        elif path.startswith(f"{TOKENS_PATH}/") and method == "DELETE":
            self._revoke(scope, path.removeprefix(f"{TOKENS_PATH}/"))
            await _answer(send, 204, None)
        else:
            raise NotFound("This path does not answer this method.")

    def _negotiate(self, scope: Message) -> dict[str, object]:
        url = self._url_for(scope)
        # A HEAD has no body, so nobody would get the token.
        if url is None or self._reach is None or scope["method"] == "HEAD":
            return dict(_UNSUPPORTED)
        token = self._tokens.issue(
            key_name=_name_of(scope),
            paths=frozenset({STREAM_PATH}),
            origin=_field(scope, b"origin") or None,
        )
        return {
            "supported": True,
            "stream_url": url + STREAM_PATH,
            "token": token.token,
            "port": self._reach.port,
            "ttl_seconds": token.ttl_s,
        }

    async def _make(self, scope: Message, receive: Receive) -> dict[str, object]:
        if self._reach is None:
            raise NotFound("There is no fast path: it was turned off.")
        body = await _read_body(receive)
        fields = await parse_object(body) if body.strip() else {}
        token = self._tokens.issue_as_asked(fields, key_name=_name_of(scope), paths=self._paths)
        url = self._url_for(scope)
        return {
            "id": token.id,
            "token": token.token,
            "stream_url": None if url is None else url + STREAM_PATH,
            "expires_at": _wall_clock(token),
            "lease_s": token.lease_s,
        }

    def _revoke(self, scope: Message, token_id: str) -> None:
        key: ApiKey | None = scope["state"]["principal"]
        admin = key is None or (self._any_admin and key.admin)
        self._tokens.revoke(token_id, key_name=_name_of(scope), admin=admin)

    def _url_for(self, scope: Message) -> str | None:
        if self._reach is None:
            return None
        client = scope["client"]
        return self._reach.url_for(
            host_field=_field(scope, b"host"), client_host=client[0] if client else None
        )


async def _read_body(receive: Receive) -> bytes:
    """Read the whole body, if it is no larger than one that asks for a token can be.

    Raises:
        HttpError: It is, it did not come, or the guard refused it.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            # The client is gone: nobody would get the token.
            raise InvalidRequest("The body did not come.")
        body += message["body"]
        if len(body) > _MAX_BODY:
            raise BodyTooLarge("The body is larger than any that asks for a stream token.")
        more = message["more_body"]
    return bytes(body)


def _name_of(scope: Message) -> str | None:
    key: ApiKey | None = scope["state"]["principal"]
    return None if key is None else key.name


def _field(scope: Message, name: bytes) -> str:
    found = (value for key, value in scope["headers"] if key.lower() == name)
    return next(found, b"").decode("latin1")


def _wall_clock(token: StreamToken) -> float:
    """Return when it expires, as Unix time in seconds: the client has no other clock with us."""
    left_s = token.expires_at - trio.current_time()
    return round(datetime.now(UTC).timestamp() + left_s, 3)


async def _answer(send: Send, status: int, found: dict[str, object] | None) -> None:
    body = b"" if found is None else json.dumps(found).encode()
    headers = [(b"Cache-Control", b"no-store")]
    if found is not None:
        headers.append((b"Content-Type", b"application/json; charset=utf-8"))
        headers.append((b"Content-Length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
