"""The text of an answer, read from llama-server's stream while it passes.

Owns where each dialect has the text of a token's event. It reads lines, not events: llama-server
writes each event's data as one line, and the framing of HTTP chunks between events has lines of its
own, which begin otherwise. It must never fail, for whoever watches must not disturb: what it cannot
read it skips.

Of an answer with several choices the first is read.

Source: llama.cpp b11434, `server_task_result_cmpl_partial::to_json_*`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from proxy.core.generation import (
    CHAT_ROUTES,
    MESSAGES_ROUTES,
    NATIVE_ROUTES,
    RESPONSES_ROUTES,
    TEXT_ROUTES,
)
from proxy.core.sound_text import sound_text

# An event with hundreds of probabilities. The longer one that ends a response repeats its text.
MAX_LINE_BYTES = 256 * 1024

_DATA = b"data:"
# A line that begins so is no event's. It stands for one that is too long, up to its end.
_COMMENT = b":"
_decode = json.JSONDecoder().decode

Kind = Literal["text", "thought"]
# Of an event: what was thought and what was said. What is no text is nothing.
_Finder = Callable[[Any], tuple[object, object]]
_NOTHING = (None, None)


class Piece(NamedTuple):
    """A piece of an answer.

    Attributes:
        kind: Whether it was said, or thought before.
        text: Never empty, and good for UTF-8.
    """

    kind: Kind
    text: str


class TextReader:
    """Reads one stream. At most `MAX_LINE_BYTES` are held.

    Args:
        label: The route's (`core.routes`); of one that does not generate nothing is read.
    """

    def __init__(self, label: str) -> None:
        self._find = _finder(label)
        self._held = b""

    def feed(self, data: bytes) -> list[Piece]:
        """Return the text that `data` completes.

        Args:
            data: What passes next, cut anywhere; the first may begin anywhere.
        """
        *lines, rest = (self._held + data).split(b"\n")
        self._held = rest if len(rest) <= MAX_LINE_BYTES else _COMMENT
        pieces: list[Piece] = []
        for line in lines:
            if line.startswith(_DATA):
                self._read(line, pieces)
        return pieces

    def _read(self, line: bytes, pieces: list[Piece]) -> None:
        try:
            thought, text = self._find(_decode(line[len(_DATA) :].decode("utf-8", "replace")))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return
        if thought and isinstance(thought, str):
            pieces.append(Piece("thought", sound_text(thought)))
        if text and isinstance(text, str):
            pieces.append(Piece("text", sound_text(text)))


def _finder(label: str) -> _Finder:
    for routes, finder in _FINDERS:
        if label in routes:
            return finder
    return _find_nothing


def _find_nothing(_event: Any) -> tuple[object, object]:
    return _NOTHING


def _find_in_chat(event: Any) -> tuple[object, object]:
    choice = event["choices"][0]
    if choice.get("index"):
        return _NOTHING
    delta = choice["delta"]
    return delta.get("reasoning_content"), delta.get("content")


def _find_in_text(event: Any) -> tuple[object, object]:
    choice = event["choices"][0]
    return _NOTHING if choice.get("index") else (None, choice["text"])


def _find_in_native(event: Any) -> tuple[object, object]:
    return _NOTHING if event.get("index") else (None, event["content"])


def _find_in_responses(event: Any) -> tuple[object, object]:
    kind = event["type"]
    if kind == "response.output_text.delta":
        return None, event["delta"]
    return (event["delta"], None) if kind == "response.reasoning_text.delta" else _NOTHING


def _find_in_messages(event: Any) -> tuple[object, object]:
    if event["type"] != "content_block_delta":
        return _NOTHING
    delta = event["delta"]
    return delta.get("thinking"), delta.get("text")


_FINDERS: tuple[tuple[frozenset[str], _Finder], ...] = (
    (CHAT_ROUTES, _find_in_chat),
    (TEXT_ROUTES, _find_in_text),
    (NATIVE_ROUTES, _find_in_native),
    (RESPONSES_ROUTES, _find_in_responses),
    (MESSAGES_ROUTES, _find_in_messages),
)
