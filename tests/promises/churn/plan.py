"""What the clients of a churn do: an endless plan of errands, the same for the same seed.

Owns every choice that is left to chance. Must never know how an errand is run, nor when: chance in
time is the machine's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class End(StrEnum):
    """How an errand ends, if it comes so far."""

    FINISHED = "finished"
    FIN = "fin"
    RESET = "reset"
    HALF_CLOSE = "half-close"
    CANCELLED = "cancelled by admin"
    DEADLINE = "deadline"
    STALLED = "stopped reading"
    BAD_REQUEST = "bad request"


class Moment(StrEnum):
    """When a client leaves."""

    IN_HEAD = "in the head"
    IN_BODY = "in the body"
    WAITING = "while it waits"
    READING = "while it reads"


@dataclass(frozen=True, slots=True)
class Errand:
    """What one client does.

    Attributes:
        number: From 0.
        path: The route that is asked.
        body: Its JSON body; None for a GET.
        end: How it ends.
        moment: When it leaves, for ends that are the client's or an administrator's.
        after_s: How long after that moment.
        after_bytes: How many bytes it reads before, when it leaves while it reads.
        reuses: Whether the connection has carried another request before.
        extra: Bytes of a pipelined request behind the request.
    """

    number: int
    path: str
    body: dict[str, Any] | None
    end: End
    moment: Moment
    after_s: float
    after_bytes: int
    reuses: bool
    extra: bytes

    @property
    def streams(self) -> bool:
        """Whether it asks for an event stream."""
        return self.body is not None and self.body.get("stream") is True


# In hundredths. Ends that hold a slot for seconds (deadline, a client that stops reading) are rare,
# so that thousands of exchanges take a minute.
_ENDS = {
    End.FINISHED: 35.0,
    End.FIN: 20.0,
    End.RESET: 15.0,
    End.HALF_CLOSE: 13.0,
    End.CANCELLED: 10.0,
    End.BAD_REQUEST: 5.0,
    End.DEADLINE: 1.0,
    End.STALLED: 1.0,
}
_MOMENTS = {Moment.IN_HEAD: 8, Moment.IN_BODY: 8, Moment.WAITING: 34, Moment.READING: 50}
_CHAT = {"messages": [{"role": "user", "content": "Go on."}]}
_GENERATING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": {"prompt": "Go on."},
    "/completion": {"prompt": "Go on."},
    "/v1/responses": {"input": "Go on."},
    "/v1/messages": _CHAT,
}
# Events of 40 KB: a client that stops reading is noticed once every buffer is full (3 MB).
_HEAVY = "/completion"
_HEAVY_FIELDS = {"n_probs": 500}
_LENGTH_FIELD = {"/completion": "n_predict", "/v1/responses": "max_output_tokens"}
_BESIDE_SLOTS: dict[str, dict[str, Any] | None] = {
    "/v1/models": None,
    "/props": None,
    "/health": None,
    "/tokenize": {"content": "Go on."},
}
_PIPELINED = (b"", b"", b"", b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
# For a stream that nobody waits to see the end of.
_ENDLESS = 30_000
# For a whole answer that its client abandons: half a second.
_LONG = 600


def errands(seed: int) -> Iterator[Errand]:
    """Yield what clients do, without end."""
    chance = Random(seed)
    number = 0
    while True:
        yield _errand(chance, number)
        number += 1


def _errand(chance: Random, number: int) -> Errand:
    end = _choose(chance, _ENDS)
    path, body = _request(chance, end)
    reads_later = body is not None and body.get("stream") is True
    moment = _choose(chance, _MOMENTS)
    if moment is Moment.READING and not reads_later:
        moment = Moment.WAITING
    return Errand(
        number=number,
        path=path,
        body=body,
        end=end,
        moment=moment,
        after_s=chance.choice((0.0, chance.uniform(0, 0.01), chance.uniform(0, 0.1))),
        after_bytes=chance.choice((1, chance.randrange(2_000), chance.randrange(40_000))),
        reuses=chance.random() < 0.2,
        extra=chance.choice(_PIPELINED) if end in (End.FIN, End.RESET) else b"",
    )


def _request(chance: Random, end: End) -> tuple[str, dict[str, Any] | None]:
    must_generate = end in (End.DEADLINE, End.STALLED)
    if not must_generate and chance.random() < 0.08:
        return chance.choice(list(_BESIDE_SLOTS.items()))
    path = _HEAVY if end is End.STALLED else chance.choice(list(_GENERATING))
    stream = must_generate or chance.random() < 0.65
    body = {**_GENERATING[path], "stream": stream}
    length = chance.randrange(1, 60)
    if end is not End.FINISHED:
        length = _ENDLESS if stream else _LONG
        body["ignore_eos"] = True
    if end is End.STALLED:
        body |= _HEAVY_FIELDS
    body[_LENGTH_FIELD.get(path, "max_tokens")] = length
    return path, body


def _choose(chance: Random, weights: Mapping[T, float]) -> T:
    return chance.choices(list(weights), weights=list(weights.values()))[0]
