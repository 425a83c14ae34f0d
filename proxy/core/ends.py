"""What a client is told for each end cause, and which cause an error stands for.

Two tables and nothing else. A client that is gone (`client_disconnected`, `client_too_slow`) is
told nothing; a finished exchange has already said everything.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core import errors
from proxy.core.causes import EndCause

_REPLIES: dict[EndCause, Callable[[], errors.HttpError]] = {
    EndCause.UPSTREAM_ERROR: lambda: errors.UpstreamFailed(
        "llama-server ended the exchange before its answer was complete."
    ),
    EndCause.UPSTREAM_CRASHED: lambda: errors.UpstreamCrashed(
        "llama-server crashed during the exchange."
    ),
    EndCause.TOKEN_EXPIRED: lambda: errors.AuthenticationFailed(
        "The lease of the stream token ended."
    ),
    EndCause.TOKEN_REVOKED: lambda: errors.AuthenticationFailed("The stream token was revoked."),
    EndCause.SUPERSEDED: lambda: errors.Unavailable("A newer request took this one's place."),
    EndCause.DEADLINE_EXCEEDED: lambda: errors.DeadlineExceeded(
        "The request took longer than this server allows."
    ),
    EndCause.QUEUE_TIMEOUT: lambda: errors.Unavailable(
        "No slot became free in time. Try again in a moment.", retry_after_s=5
    ),
    EndCause.CANCELLED_BY_ADMIN: lambda: errors.Unavailable(
        "The request was cancelled by an administrator."
    ),
    EndCause.CANCELLED_BY_CLIENT: lambda: errors.Unavailable("The request was cancelled."),
    EndCause.SHUTTING_DOWN: lambda: errors.Unavailable("The server is shutting down."),
    EndCause.INTERNAL_ERROR: lambda: errors.InternalError("The proxy made a mistake."),
}

_SILENT = frozenset({EndCause.FINISHED, EndCause.CLIENT_DISCONNECTED, EndCause.CLIENT_TOO_SLOW})


def reply_for(cause: EndCause) -> errors.HttpError | None:
    """Return what a client is told when its exchange ends by `cause`; None: nothing."""
    return None if cause in _SILENT else _REPLIES[cause]()


def cause_of(error: errors.HttpError) -> EndCause:
    """Return the end cause that `error` stands for.

    An error of the client's own (a bad body, a full queue) is a complete answer: `finished`.
    """
    if isinstance(error, errors.UpstreamCrashed):
        return EndCause.UPSTREAM_CRASHED
    if isinstance(error, errors.UpstreamFailed):
        return EndCause.UPSTREAM_ERROR
    if isinstance(error, errors.DeadlineExceeded):
        return EndCause.DEADLINE_EXCEEDED
    return EndCause.FINISHED
