"""What travels in the benchmark: the one event, its chunk, and the requests.

Owns the bytes that the upstream sends and the load counts, and the order that a request carries to
the upstream: it is a person's message, the one thing that every peer hands on as it is. Knows no
socket.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

# In every event once and nowhere in HTTP's framing: one byte is counted right however a proxy
# splits or joins what it relays.
MARK = b"~"

# Nanoseconds of CLOCK_MONOTONIC, which all processes share: enough for 31 years.
STAMP_DIGITS = 18
STAMP = re.compile(rb"~(\d{%d})" % STAMP_DIGITS)

STREAM_PATH = "/v1/chat/completions"
MODEL = "benchmark"


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    """Return an event as llama-server sends it, with its 230 to 260 bytes around a few of text."""
    document = {
        "choices": [{"finish_reason": finish_reason, "index": 0, "delta": delta}],
        "created": 1760000000,
        "id": "chatcmpl-0123456789abcdefghijklmnopqrstuv",
        "model": MODEL,
        "system_fingerprint": "b11434-0123456",
        "object": "chat.completion.chunk",
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
_BLANK = b"0" * STAMP_DIGITS
_STAMPED = _event({"content": f"~{_BLANK.decode()}"}, None)
EVENT_BYTES = len(_STAMPED)
_BEFORE_STAMP, _AFTER_STAMP = _chunk(_STAMPED).split(_BLANK)

# How a stream ends that is whole: without it some peers would rightly report a failure.
ENDING = _chunk(_event({}, "stop")) + _chunk(b"data: [DONE]\n\n") + LAST_CHUNK


def event_chunk(stamp_ns: int) -> bytes:
    """Return one event as a chunk, with the time at which it is due."""
    return b"%b%0*d%b" % (_BEFORE_STAMP, STAMP_DIGITS, stamp_ns, _AFTER_STAMP)


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks of the paced upstream.

    Attributes:
        events_per_s: The pace; 0 for as fast as it can be written.
        events: After how many the stream ends; 0 for never.
        name: What its end is reported by; "" for not at all.
    """

    events_per_s: float
    events: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"events_per_s={self.events_per_s:g} events={self.events} name={self.name};"


_ORDER = re.compile(rb"events_per_s=([\d.]+) events=(\d+) name=(\w*);")


def read_order(body: bytes) -> Order:
    """Return what a request's body asks for; where it says nothing, one event.

    It is looked for, not parsed: peers may write the JSON anew.
    """
    found = _ORDER.search(body)
    if found is None:
        return Order(events_per_s=0, events=1)
    return Order(float(found[1]), int(found[2]), found[3].decode())


def paced_request(authority: str, order: Order) -> bytes:
    """Return the request for one stream of the paced upstream."""
    return _request(authority, str(order))


# A prompt of a real model's, and its answer in pieces that each take a moment; the end of the text
# is no reason to end.
_PROMPT = "What happens to the slot when I close the tab?"


def engine_request(authority: str, tokens: int) -> bytes:
    """Return the request for one answer of a llama-server, of exactly `tokens` tokens."""
    return _request(authority, _PROMPT, max_tokens=tokens, ignore_eos=True)


def _request(authority: str, message: str, **more: object) -> bytes:
    document = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": message}],
        **more,
    }
    body = json.dumps(document).encode()
    head = (
        f"POST {STREAM_PATH} HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
