"""What a prompt asks the oracle's runner to do, in the words of the fake llama-server.

A prompt that starts with `?` is a query string as in `tests/fakes/fake_llama_server.py`, so that
one prompt makes the same chunks there and here:

    events=N     number of tokens, each a chunk `t0 `, `t1 `, ... (default 5)
    pace_s=F     time between two tokens (default 0)
    first_s=F    time before the first token (default 0)
    padding=N    so many more bytes in each chunk (default 0)
    name=NAME    the tokens are `NAME0 `, `NAME1 `, ..., and in each wait the prediction can be
                 told to end: a file NAME in the folder `ends` says how, in the words of `end`
    end=HOW      what follows the last token: `clean` (default) and `no_done` succeed, `crash` ends
                 the worker, `stall` waits, all other words of the fake make the prediction fail
    thought=TEXT a line on standard output before the first token
    timings=P,C,S    what is measured, as metrics after the last token: the tokens of prompt and
                 answer, and how many came in a second

and what llama-server does not have:

    log=TEXT, error_log=TEXT    a line on standard output or error before the first token
    metric=NAME:MODE:JSON       a metric before the first token; all three may be repeated

Any other prompt is answered with five tokens, as the fake does. It knows nothing of Cog: the runner
acts, this module only says what is next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs

# Longer than any test.
STALL_S = 3600.0


@dataclass(frozen=True, slots=True)
class Token:
    """A chunk of output."""

    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for so long, or until the prediction is told to end."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line of log, on standard error if `is_error`."""

    text: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, recorded in one of Cog's modes: replace, incr, append."""

    name: str
    mode: str
    value: object


@dataclass(frozen=True, slots=True)
class End:
    """What follows the last token, in the fake's words."""

    how: str


Step = Token | Pause | Line | Metric | End


@dataclass(frozen=True, slots=True)
class Script:
    """What one prompt asks for."""

    name: str | None
    steps: tuple[Step, ...]


def read_script(prompt: str) -> Script:
    """Read a prompt."""
    asked = parse_qs(prompt[1:]) if prompt.startswith("?") else {}
    query = {key: values[-1] for key, values in asked.items()}
    return Script(query.get("name"), (*_told(asked), *_tokens(query)))


def _told(asked: dict[str, list[str]]) -> Iterator[Step]:
    for text in asked.get("log", []) + asked.get("thought", []):
        yield Line(text, is_error=False)
    for text in asked.get("error_log", []):
        yield Line(text, is_error=True)
    for metric in asked.get("metric", []):
        name, mode, value = metric.split(":", 2)
        yield Metric(name, mode, json.loads(value))


def _tokens(query: dict[str, str]) -> Iterator[Step]:
    word, padding = query.get("name", "t"), "x" * int(query.get("padding", "0"))
    yield Pause(float(query.get("first_s", "0")))
    for number in range(int(query.get("events", "5"))):
        if number:
            yield Pause(float(query.get("pace_s", "0")))
        yield Token(f"{word}{number} {padding}")
    yield from _measured(query)
    if query.get("end") == "stall":
        yield Pause(STALL_S)
    yield End(query.get("end", "clean"))


def _measured(query: dict[str, str]) -> Iterator[Step]:
    if "timings" in query:
        prompt, completion, speed = query["timings"].split(",")
        yield Metric("prompt_tokens", "replace", int(prompt))
        yield Metric("completion_tokens", "replace", int(completion))
        yield Metric("tokens_per_second", "replace", float(speed))
