"""What a client was told: the raw bytes of one reply, and how it tells of an error."""

from __future__ import annotations

import json

CHUNKED_END = b"\r\n0\r\n\r\n"


def last_event(received: bytes) -> str:
    """Return the last event of a chunked event stream."""
    return received.removesuffix(CHUNKED_END).strip().rsplit(b"\r\n", 1)[-1].decode()


def last_error(received: bytes) -> dict[str, object]:
    """Return the error of an OpenAI stream's last event, which has its proper end and no `[DONE]`.

    Raises:
        AssertionError: When the stream looks complete, or is torn.
    """
    assert received.endswith(CHUNKED_END), f"no proper end: {received[-500:]!r}"
    assert b"[DONE]" not in received
    found: dict[str, object] = json.loads(last_event(received).removeprefix("data: "))["error"]
    return found


def error_status(received: bytes) -> dict[str, object]:
    """Return the error of a reply that is one, whole; its status is that of its body."""
    head, _, body = received.partition(b"\r\n\r\n")
    found: dict[str, object] = json.loads(body)["error"]
    assert head.startswith(f"HTTP/1.1 {found['code']} ".encode())
    return found


def error_told(received: bytes) -> dict[str, object]:
    """Return the error that a reply ends with, as its status or as its last event."""
    began = received.startswith(b"HTTP/1.1 200 ")
    return last_error(received) if began else error_status(received)
