"""What the server's answers mean: an offer of the fast path, an error reply, an event.

Owns the reading of each, from bytes that are already here. Everything is somebody else's, so
nothing in it is taken for what it should be. Knows nothing of connections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from proxy.client.errors import StreamAborted, StreamBroken, StreamRefused
from proxy.client.urls import is_visible

# What `core.errors` calls an error of a server that does not tell its type.
_UNTYPED = "server_error"
# `Retry-After` is a number of seconds, or a date that is no use without the server's clock.
_MOST_DIGITS = 9


class NoOffer(Exception):
    """There is no fast path to be used; the message says why, for our log."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where the fast path is, and what opens it once.

    Attributes:
        stream_url: What the body is posted to.
        token: Secret; good for one request.
    """

    stream_url: str
    token: str = field(repr=False)


def read_offer(answer: bytes) -> Offer:
    """Read the body of the answer to `GET /api/inference/stream-url`.

    Raises:
        NoOffer: It is none.
    """
    found = _object(answer)
    if found is None:
        raise NoOffer("the answer is no JSON object")
    if found.get("supported") is not True:
        raise NoOffer("the server has none")
    url, token = found.get("stream_url"), found.get("token")
    if not isinstance(url, str):
        raise NoOffer("its URL is no text")
    # It goes into a header field.
    if not isinstance(token, str) or not is_visible(token):
        raise NoOffer("its token cannot be sent")
    return Offer(url, token)


def read_refusal(status: int, headers: Mapping[str, str], answer: bytes) -> StreamRefused:
    """Read an answer that is no stream.

    Args:
        status: Its status.
        headers: Its header, by name in any case.
        answer: Its body, or as much of it as came.
    """
    error = (_object(answer) or {}).get("error")
    members = error if isinstance(error, dict) else {}
    return StreamRefused(
        _words(error) or _without_words(status),
        status=status,
        type=_text(members.get("type")) or _UNTYPED,
        request_id=_text(members.get("request_id")) or headers.get("X-Request-Id"),
        retry_after_s=_seconds(headers.get("Retry-After", "")),
    )


def read_event(data: str, request_id: str | None) -> dict[str, Any]:
    """Read the data of one event that is not the end mark.

    Args:
        data: What came.
        request_id: What the server calls the request; an error may say it again.

    Raises:
        StreamAborted: It is an error.
        StreamBroken: It is no JSON object.
    """
    found = _object(data)
    if found is None:
        raise StreamBroken("The stream sent an event that is no JSON object.")
    error = found.get("error")
    if error in (None, False, ""):
        return found
    members = error if isinstance(error, dict) else {}
    code = members.get("code")
    raise StreamAborted(
        _words(error) or "The server ended the stream with an error and no words about it.",
        status=code if type(code) is int else None,
        type=_text(members.get("type")) or _UNTYPED,
        request_id=_text(members.get("request_id")) or request_id,
    )


def _object(text: str | bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _words(error: object) -> str | None:
    """Return an error's message; to some servers the error is nothing else."""
    return _text(error.get("message") if isinstance(error, dict) else error)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _without_words(status: int) -> str:
    if status == HTTPStatus.OK:
        return "The server answered something else than an event stream."
    return f"The server answered {status} and no words about it."
