"""What every assembler has in common: events in, one answer out, errors as llama-server means them.

Owns the order of it (events, the end, the answer), the bound on what is kept, and the writing of
JSON. It must never know a dialect: those are the modules beside it.

Numbers keep their value: Python reads and writes integers of any size, and writes a float as the
shortest text that is read as the same float, which is what llama-server does.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxy.core.errors import RelayedError, UpstreamFailed
from proxy.core.sse import Event, EventDecoder, EventTooLarge

# A million tokens of text are 5 MiB; a token with twenty probabilities is 2 KiB, so that thirty
# thousand of those fit.
MAX_ANSWER_BYTES = 64 * 1024 * 1024

# What the Responses API tells before the first token.
_BEFORE_DECODE = frozenset({"response.created", "response.in_progress"})

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer put together.

    Attributes:
        status: The HTTP status.
        body: The JSON text.
    """

    status: int
    body: bytes

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that tell of the body, as llama-server's own answer has them."""
        return [
            (b"Content-Type", b"application/json; charset=utf-8"),
            (b"Content-Length", str(len(self.body)).encode()),
        ]


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a stream does not tell and llama-server answers beside its slots.

    Attributes:
        path: Where to ask it.
        fields: What to post, a JSON object; None for a GET.
        learn: Takes the answer, a JSON object; one that is an error teaches nothing.
    """

    path: str
    fields: Json | None
    learn: Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON text that is written as it is: kept so, it takes a tenth of the memory of objects."""

    text: bytes


class AnsweredError(RelayedError):
    """An error that llama-server told inside a stream, as it tells it to those who asked for none.

    Args:
        found: llama-server's error object.
    """

    def __init__(self, found: Json) -> None:
        code = found.get("code")
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        super().__init__(
            status, str(found.get("type", "server_error")), str(found.get("message", ""))
        )
        self._found = found

    def as_object(self, request_id: str | None = None) -> dict[str, object]:  # noqa: ARG002
        """Return the error object, unchanged: it may have members of its own."""
        return self._found


class Assembler(ABC):
    """Puts one answer together from the events of a stream.

    Args:
        max_answer_bytes: How much may be kept of one answer.

    Attributes:
        decoding: Whether the first event of decode has come.
    """

    def __init__(self, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._decoder = EventDecoder()
        self._room = max_answer_bytes
        self.decoding = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the stream, however they are cut.

        Raises:
            AnsweredError: llama-server told an error.
            UpstreamFailed: It is not a stream of llama-server's, or the answer is too large.
        """
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise too_large() from error
        for event in events:
            if event.data == "null":
                # What llama-server begins a second prompt with, where it tells no progress.
                continue
            self.decoding = self.decoding or not _is_of_prefill(event)
            try:
                self._take(event)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise _not_understood() from error

    def questions(self) -> list[Question]:
        """Return what to ask llama-server before `finish`, when the stream has ended.

        Without the answers the answer is less exact, but whole.
        """
        return []

    def finish(self) -> Answer:
        """Return the answer, when the stream has ended.

        Raises:
            UpstreamFailed: The stream ended before the answer did.
        """
        if not self._is_complete():
            raise UpstreamFailed("llama-server ended its stream before the end of the answer.")
        return Answer(200, encode(self._answer()))

    def _keep(self, data: bytes | str) -> bytes:
        """Return `data` as bytes, having made sure there is room for it."""
        kept = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self._room -= len(kept)
        if self._room < 0:
            raise too_large()
        return kept

    @abstractmethod
    def _take(self, event: Event) -> None:
        """Take one event."""

    @abstractmethod
    def _is_complete(self) -> bool:
        """Return whether the last event has come."""

    @abstractmethod
    def _answer(self) -> object:
        """Return the answer as JSON objects and `Raw` text."""


def too_large() -> UpstreamFailed:
    """Return the error for an answer that is over the limit."""
    return UpstreamFailed(
        f"The answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB; ask for it as a stream."
    )


def parse(event: Event) -> Json:
    """Return the object that an event's data is.

    Raises:
        AnsweredError: It tells an error.
        UpstreamFailed: It is no JSON object.
    """
    try:
        found = json.loads(event.data)
    except ValueError as error:
        raise _not_understood() from error
    if not isinstance(found, dict):
        raise _not_understood()
    if isinstance(found.get("error"), dict):
        raise AnsweredError(found["error"])
    return found


def text_of(kept: bytes | bytearray) -> str:
    """Return kept text."""
    return kept.decode("utf-8", "surrogatepass")


def encode(value: object) -> bytes:
    """Return JSON text without spaces, as llama-server writes it."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return b"{%b}" % b",".join(b"%b:%b" % (encode(k), encode(v)) for k, v in value.items())
    if isinstance(value, list):
        return b"[%b]" % b",".join(map(encode, value))
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _is_of_prefill(event: Event) -> bool:
    # Cannot be inside a JSON string, where a quotation mark has a backslash before it.
    return event.event in _BEFORE_DECODE or ',"prompt_progress":{' in event.data


def _not_understood() -> UpstreamFailed:
    return UpstreamFailed("llama-server sent an event that is not understood.")
