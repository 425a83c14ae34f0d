"""llama-server's stream, read as the output of a prediction.

Owns what in an event of the two routes that predictions use is text, and which event is the end. At
most one event is held; nothing that was told is kept but the counts.

Source: llama.cpp b11434, `server_task_result_cmpl_partial` and `..._final`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proxy.core.assembly.seam import AnsweredError, Json, parse
from proxy.core.errors import UpstreamFailed
from proxy.core.generation import NATIVE_ROUTES
from proxy.core.sse import Event, EventDecoder, EventTooLarge


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what a reasoning model thinks before it answers."""

    text: str


class AnswerReader:
    """Reads one answer.

    Args:
        path: The route that was asked.

    Attributes:
        whole: Whether the answer's proper end has come; nothing after it is read.
        error: The message of llama-server's error, if it told one; nothing after it is read.
        timings: What llama-server measured, as it last told it; None before.
    """

    def __init__(self, path: str) -> None:
        self._native = path in NATIVE_ROUTES
        self._decoder = EventDecoder()
        self._usage: Json = {}
        self.whole = False
        self.error: str | None = None
        self.timings: Json | None = None

    def feed(self, data: bytes) -> list[Output | Thought]:
        """Return the text that `data`, cut anywhere, completes; no piece is empty.

        Raises:
            UpstreamFailed: It is not a stream of llama-server's.
        """
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise UpstreamFailed("llama-server sent an event that is too large.") from error
        pieces: list[Output | Thought] = []
        for event in events:
            if self.whole or self.error is not None:
                break
            try:
                pieces += self._take(event)
            except AnsweredError as error:
                self.error = error.message
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise UpstreamFailed(
                    "llama-server sent an event that is not understood."
                ) from error
        return pieces

    def metrics(self) -> dict[str, int | float]:
        """Return the counts of tokens and the speed, as far as llama-server has told them."""
        timings = self.timings or {}
        counts = {
            "prompt_tokens": _count(timings, "prompt_n", "cache_n"),
            "completion_tokens": _count(timings, "predicted_n"),
        }
        if self.timings is None:
            counts = {name: _count(self._usage, name) for name in counts}
        found: dict[str, int | float] = {
            name: count for name, count in counts.items() if count is not None
        }
        speed = timings.get("predicted_per_second")
        if isinstance(speed, int | float) and math.isfinite(speed):
            found["tokens_per_second"] = speed
        return found

    def _take(self, event: Event) -> list[Output | Thought]:
        if event.data == "[DONE]":
            self.whole = True
            return []
        found = parse(event)
        if isinstance(found.get("timings"), dict):
            self.timings = found["timings"]
        if isinstance(found.get("usage"), dict):
            self._usage = found["usage"]
        if "prompt_progress" in found:
            return []
        return list(self._take_native(found) if self._native else _pieces_of_chat(found))

    def _take_native(self, found: Json) -> Iterator[Output]:
        self.whole = found["stop"] is True
        if text := _text(found["content"]):
            yield Output(text)


def _pieces_of_chat(found: Json) -> Iterator[Output | Thought]:
    # The last but one names no choice: it has the usage.
    for choice in found["choices"]:
        delta = choice["delta"]
        if thought := _text(delta.get("reasoning_content")):
            yield Thought(thought)
        if text := _text(delta.get("content")):
            yield Output(text)


def _text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("text is expected")
    return value or ""


def _count(found: Mapping[str, object], *names: str) -> int | None:
    """Return the sum of counts; None where the first is not told."""
    counts = [found.get(name) for name in names]
    if not isinstance(counts[0], int):
        return None
    return sum(count for count in counts if isinstance(count, int) and count > 0)
