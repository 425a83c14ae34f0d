"""How an error looks inside a stream that has begun, in the dialect of its endpoint.

Owns the three forms of the last event of a stream that failed. None of them is followed by
`[DONE]`, so that no client takes the answer for complete. Before a stream has begun an error has
one form for all routes (`HttpError.as_body`).

Source: llama.cpp's `data: {"error": ...}`; Anthropic's "Streaming messages, error events"; OpenAI's
"Streaming events, error".
"""

from __future__ import annotations

import json

from proxy.core.errors import HttpError
from proxy.core.routes import Dialect
from proxy.core.sse import encode


def error_event(dialect: Dialect, error: HttpError, request_id: str | None) -> bytes:
    """Return the event that ends a stream which failed.

    Args:
        dialect: The endpoint's.
        error: What to tell.
        request_id: The exchange's.
    """
    data = json.dumps(_DATA[dialect](error, request_id))
    return encode(data, event=None if dialect is Dialect.OPENAI else "error")


def _openai(error: HttpError, request_id: str | None) -> dict[str, object]:
    return {"error": error.as_object(request_id)}


def _anthropic(error: HttpError, request_id: str | None) -> dict[str, object]:
    found: dict[str, object] = {
        "type": "error",
        "error": {"type": error.type, "message": error.message},
    }
    if request_id is not None:
        found["request_id"] = request_id
    return found


def _responses(error: HttpError, request_id: str | None) -> dict[str, object]:
    # `error` beside the flat fields of OpenAI's own event: with the flat fields alone the openai
    # package hands the event on as one of many and ends the stream as if it were complete.
    return {
        "type": "error",
        "code": error.type,
        "message": error.message,
        "param": None,
        # The stream's own numbers are llama-server's to count; what went before is not read here.
        "sequence_number": 0,
        "error": error.as_object(request_id),
    }


_DATA = {
    Dialect.OPENAI: _openai,
    Dialect.ANTHROPIC: _anthropic,
    Dialect.RESPONSES: _responses,
}
