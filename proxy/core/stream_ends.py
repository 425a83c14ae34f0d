"""How a stream says that its answer is whole, in the dialect of its route.

Owns the marks by which the last bytes of a stream are told from those of one that llama-server
ended early, though properly framed: in its router mode the process of a model may die behind it.
Without one of them a stream is not passed off as finished (promise P3).

Source: llama.cpp b11434, `tools/server/server-context.cpp` and `server-task.cpp`; Anthropic's
"Streaming messages"; OpenAI's "Streaming".
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.core.generation import (
    CHAT_ROUTES,
    MESSAGES_ROUTES,
    NATIVE_ROUTES,
    RESPONSES_ROUTES,
    TEXT_ROUTES,
)

# What a model writes cannot hold them: in a JSON string quotation marks and line feeds are escaped.
# llama-server tells an error of its own as the last event, and the client has it then.
_ERRORS = (b'"error":', b"\nevent: error\n")
_DONE = (b"\ndata: [DONE]",)
# The last event of a response repeats all of it: what shows at its end is what only it has.
_RESPONSE = (b'"usage":', b"\nevent: response.failed\n", b"\nevent: response.incomplete\n")


def is_whole(tail: bytes, marks: tuple[bytes, ...]) -> bool:
    """Return whether a stream that ends properly has said all that it had to say.

    Args:
        tail: Its last bytes, without framing.
        marks: What `end_marks` returned.
    """
    lines = b"\n" + tail
    return not marks or any(mark in lines for mark in marks)


def end_marks(label: str, fields: Mapping[str, object]) -> tuple[bytes, ...]:
    """Return the marks of which one has to be in the last bytes of a stream; none: any end will do.

    Args:
        label: The route's (`core.routes`).
        fields: The client's body.
    """
    if label in CHAT_ROUTES or label in TEXT_ROUTES:
        return (*_DONE, *_ERRORS)
    if label in MESSAGES_ROUTES:
        return (b"\nevent: message_stop\n", *_ERRORS)
    if label in RESPONSES_ROUTES:
        return (*_RESPONSE, *_ERRORS)
    # A client that chooses the members of the last event may have chosen none of these.
    if label in NATIVE_ROUTES and "response_fields" not in fields:
        return (b'"stop":true', *_DONE, *_ERRORS)
    return ()
