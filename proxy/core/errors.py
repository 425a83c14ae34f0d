"""The error tree: each error knows its HTTP status, its `type` string and where it came from.

Owns the shape of every error that this project answers itself (llama-server's own pass unchanged):
`{"error": {"code", "message", "type", "request_id"}}`. A message is written here or by the caller
for a person to read; it never carries the text of a foreign exception, a path, a key, argv or a
traceback. Foreign exceptions are translated once, at the seam where they enter, with `raise ...
from`.

Source: llama.cpp `tools/server/server-common.cpp`, `format_error_response`.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import ClassVar


class Origin(StrEnum):
    """Whose doing an error is."""

    CLIENT = "client"
    PROXY = "proxy"
    UPSTREAM = "upstream"


class ProxyError(Exception):
    """The root of every error this project raises on purpose."""


class HttpError(ProxyError):
    """An error with a place in HTTP: what a client is told.

    Args:
        message: One or two sentences for a person: what is wrong and, where we know, what to do.
        retry_after_s: Whole seconds for `Retry-After`, where waiting helps.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    origin: ClassVar[Origin] = Origin.PROXY

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def as_object(self, request_id: str | None = None) -> dict[str, object]:
        """Return the inner error object, in llama-server's shape."""
        found: dict[str, object] = {
            "code": self.status,
            "message": self.message,
            "type": self.type,
        }
        if request_id is not None:
            found["request_id"] = request_id
        return found

    def as_body(self, request_id: str | None = None) -> bytes:
        """Return the whole JSON body of an error reply."""
        return json.dumps({"error": self.as_object(request_id)}).encode()

    def as_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that an error reply needs beside its length and request id."""
        found = [(b"Content-Type", b"application/json; charset=utf-8")]
        if self.retry_after_s is not None:
            found.append((b"Retry-After", str(self.retry_after_s).encode()))
        return found


class InternalError(HttpError):
    """A defect of ours in one exchange; the log has the traceback, the client has this."""


class InvalidRequest(HttpError):
    """A malformed head, body or parameter."""

    status = 400
    type = "invalid_request_error"
    origin = Origin.CLIENT


class AuthenticationFailed(HttpError):
    """A key is missing or unknown."""

    status = 401
    type = "authentication_error"
    origin = Origin.CLIENT

    def as_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the reply; RFC 9110 section 15.5.2 wants the challenge."""
        return [*super().as_headers(), (b"WWW-Authenticate", b"Bearer")]


class RefusalReason(StrEnum):
    """Why a stream token was refused: for our log, never for the client."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used"
    WRONG_ORIGIN = "wrong_origin"
    WRONG_PATH = "wrong_path"
    ENGINE_RESTARTED = "engine_restarted"


class TokenRefused(AuthenticationFailed):
    """A stream token does not open a stream.

    Every client is told the same, so that nobody learns whether a guess was near.

    Args:
        reason: What was wrong with it.
    """

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(
            "The stream token is unknown, expired or used, or was made for another origin or path."
            " Ask for a new one."
        )
        self.reason = reason


class PermissionDenied(HttpError):
    """The origin, the path or the key's rank does not allow it."""

    status = 403
    type = "permission_error"
    origin = Origin.CLIENT


class NotFound(HttpError):
    """No such thing of ours."""

    status = 404
    type = "not_found_error"
    origin = Origin.CLIENT


class RequestTimeout(HttpError):
    """The client was too slow sending its request."""

    status = 408
    type = "timeout_error"
    origin = Origin.CLIENT


class BodyTooLarge(HttpError):
    """The body is over `--max-body-mib`."""

    status = 413
    type = "invalid_request_error"
    origin = Origin.CLIENT


class MisdirectedRequest(HttpError):
    """`Host` names a host that we are not (RFC 9110 section 15.5.20)."""

    status = 421
    type = "invalid_request_error"
    origin = Origin.CLIENT


class QueueFull(HttpError):
    """Every permit is taken and the queue is full."""

    status = 429
    type = "rate_limit_error"


class TooManyTokens(HttpError):
    """As many stream tokens as there may be wait to be used."""

    status = 429
    type = "rate_limit_error"


class HeadTooLarge(HttpError):
    """The request head is over its limit."""

    status = 431
    type = "invalid_request_error"
    origin = Origin.CLIENT


class UpstreamFailed(HttpError):
    """llama-server broke the exchange: refused, reset, or ended before the end of its message."""

    status = 502
    type = "upstream_error"
    origin = Origin.UPSTREAM


class UpstreamCrashed(UpstreamFailed):
    """The llama-server process died under the exchange; the message has the exit code or signal."""


class Unavailable(HttpError):
    """Loading, restarting past the queue timeout, failed, or shutting down."""

    status = 503
    type = "unavailable_error"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int | None = None,
        log_tail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.log_tail = log_tail

    def as_object(self, request_id: str | None = None) -> dict[str, object]:
        """Return the inner error object; with llama-server's last log lines after a crash loop."""
        found = super().as_object(request_id)
        return {**found, "log": list(self.log_tail)} if self.log_tail else found


class DeadlineExceeded(HttpError):
    """The whole exchange took longer than `--request-timeout-s`."""

    status = 504
    type = "timeout_error"


class RelayedError(HttpError):
    """An error that llama-server answered, carried on in another form than its own status.

    Needed where the reply's head is already sent: the status line said 200, so the error becomes an
    event.

    Args:
        status: llama-server's status.
        type: llama-server's `type`.
        message: llama-server's `message`.
    """

    origin = Origin.UPSTREAM

    def __init__(self, status: int, type: str, message: str) -> None:  # noqa: A002
        super().__init__(message)
        self.status = status  # type: ignore[misc]
        self.type = type  # type: ignore[misc]


class ConfigError(ProxyError):
    """An option, file or argument that cannot be used. The command exits with 2."""


class EngineError(ProxyError):
    """llama-server cannot be run. The command exits with 3.

    Args:
        reason: One sentence for a person.
        log_tail: llama-server's last log lines, oldest first.
    """

    def __init__(self, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log_tail = log_tail


class EngineNotFound(EngineError):
    """No llama-server binary and no embedded runtime was found where we looked."""


class EngineLoadFailed(EngineError):
    """The first load ended before the engine was ready."""


class EngineFailed(EngineError):
    """The engine crash-looped and is not restarted any more until somebody asks for it."""


class ProxyCrashed(ProxyError):
    """A background task of a running proxy failed; the cause is attached. The proxy has stopped."""
