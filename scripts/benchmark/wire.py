"""What travels in the benchmark: the one event, its chunk, and the requests.

Owns the bytes that the upstream sends and the load counts. Knows no socket.
"""

from __future__ import annotations

import json

# In every event once and nowhere in HTTP's framing: one byte is counted right however a proxy
# splits or joins what it relays.
MARK = b"~"

# A token as llama-server sends it, with its 230 to 260 bytes around a few of text.
EVENT = (
    b"data: "
    + json.dumps(
        {
            "choices": [{"finish_reason": None, "index": 0, "delta": {"content": " token~"}}],
            "created": 1760000000,
            "id": "chatcmpl-0123456789abcdefghijklmnopqrstuv",
            "model": "benchmark",
            "system_fingerprint": "b11434-0123456",
            "object": "chat.completion.chunk",
        },
        separators=(",", ":"),
    ).encode()
    + b"\n\n"
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
LAST_CHUNK = b"0\r\n\r\n"

STREAM_PATH = "/v1/chat/completions"

_BODY = json.dumps(
    {"stream": True, "messages": [{"role": "user", "content": "Count until I have heard enough."}]}
).encode()


def stream_request(authority: str, *, events_per_s: float, events: int = 0) -> bytes:
    """Return the request for one stream.

    Args:
        authority: For `Host`.
        events_per_s: The pace; 0 for as fast as it can be written.
        events: After how many the upstream ends the stream; 0 for never.
    """
    target = f"{STREAM_PATH}?events_per_s={events_per_s:g}&events={events}"
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    return head.encode() + _BODY
