"""A case: a request or a short scene that is played at both servers, and what may differ.

Owns the form of what is compared. Values that must differ (made-up ids, times) are written as words
there; everything else is compared to the letter. A deliberate difference is data: what ours has
instead, and the row of docs/predictions.md that gives the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import h11

from tests.conformance.line import Line
from tests.conformance.sides import Side
from tests.web.wire import Sent

Outcome = dict[str, object]
"""What a case saw, by what it is called there."""

SSE = "Accept: text/event-stream"
ASYNC = "Prefer: respond-async"

# Of one request: it stands in targets and bodies where the id of the prediction is, and `NAME` in
# prompts.
ID = "THE-ID"

# Of a difference: what Cog has, and ours has not.
ABSENT = object()

_HEADERS = ("content-type", "allow", "retry-after", "location", "preference-applied")
# More than that is compared by length and hash, so that a failure can be read.
_SHOWN_CHARACTERS = 4096
_TIME = re.compile(r'"predict_time":[0-9.e-]+')
_MADE_ID = re.compile(r"pred_[0-9a-f]{16}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_EVENT_ID = re.compile(r"id: ([0-9]+)\n")


Play = Callable[[Side, str], Awaitable[Outcome]]
"""Plays a case at a server, with the id of a prediction that is new there."""


@dataclass(frozen=True, slots=True)
class Differs:
    """One deliberate difference.

    Attributes:
        reason: How its row in docs/predictions.md begins: what Cog does.
        ours: What ours has instead, by the names in the outcome.
    """

    reason: str
    ours: Mapping[str, object]

    def is_from(self, cog: Outcome) -> bool:
        """Return whether it is a difference from what Cog has."""
        return any(cog.get(name, ABSENT) != value for name, value in self.ours.items())


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: Subject, situation and outcome.
        play: Plays it at a server with a new id, and returns what it saw.
        differs: What ours does differently.
        pair: The pair of servers that it needs (`pairs.SETTINGS`).
        idle: Whether both have to be ready before it.
    """

    name: str
    play: Play
    differs: tuple[Differs, ...] = ()
    pair: str = "one_slot"
    idle: bool = True

    def expected(self, cog: Outcome) -> Outcome:
        """Return what ours has to have, where Cog has `cog`."""
        expected = dict(cog)
        for difference in self.differs:
            expected |= difference.ours
        return {name: value for name, value in expected.items() if value is not ABSENT}


# -- requests --------------------------------------------------------------------------------------


def post(body: object, *fields: str, target: str = "/predictions", method: str = "POST") -> Sent:
    """Make a request with a JSON body; bytes are sent as they are."""
    return Sent.json(target, body, *fields, method=method)


def put(body: object, *fields: str, target: str = f"/predictions/{ID}") -> Sent:
    """Make a request that names its prediction in the path."""
    return Sent.json(target, body, *fields, method="PUT")


def prompt(text: str = "hello", /, **members: object) -> dict[str, object]:
    """Make a body with a prompt."""
    return {"input": {"prompt": text}, **members}


def chat(text: str, /, **members: object) -> dict[str, object]:
    """Make a body with a chat of one message."""
    return {"input": {"messages": [{"role": "user", "content": text}]}, **members}


def held(query: str = "events=2&pace_s=3600") -> str:
    """Make a prompt of which the prediction waits after what it is told to say, until its end."""
    return f"?name={ID}&{query}"


def of(sent: Sent, prediction: str) -> Sent:
    """Put a prediction's id where a request has the word for it."""
    body = None if sent.body is None else sent.body.replace(ID.encode(), prediction.encode())
    return Sent(sent.method, sent.target.replace(ID, prediction), sent.fields, body)


# -- what is seen ----------------------------------------------------------------------------------


def told(text: str, prediction: str) -> str:
    """Return a text with words for the values that must differ; of a long one length and hash."""
    text = _TIME.sub('"predict_time":TIME', text.replace(prediction, ID))
    text = _MADE_ID.sub("MADE", text)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[:40]}... of {len(text)} characters, SHA-256 {digest}"


def seen_head(head: h11.Response) -> Outcome:
    """Return what is compared of a head: its status, and the headers that matter."""
    fields = {name.decode(): value.decode() for name, value in head.headers}
    found: Outcome = {name: fields[name] for name in _HEADERS if name in fields}
    if found.get("content-type") == "text/event-stream":
        found["cache-control"] = fields.get("cache-control")
    return {"status": head.status_code, **found}


def seen_frames(frames: list[str], prediction: str) -> list[str]:
    """Return frames as Cog has them; where they have ids, these have to count without a gap."""
    numbers = [int(found[1]) for frame in frames if (found := _EVENT_ID.match(frame))]
    assert all(after == number + 1 for number, after in pairwise(numbers)), numbers
    return [told(_EVENT_ID.sub("", frame, count=1), prediction) for frame in frames if frame]


async def seen(line: Line, prediction: str) -> Outcome:
    """Wait for a whole answer and return what is compared of it."""
    head = seen_head(await line.head())
    body = await line.rest()
    if "cache-control" in head:
        return {**head, "frames": seen_frames(body.split("\n\n"), prediction)}
    return {**head, "body": told(body, prediction)}


async def ask(side: Side, sent: Sent, prediction: str) -> Outcome:
    """Send a request and return what is compared of its answer."""
    async with side.sent(of(sent, prediction)) as line:
        return await seen(line, prediction)


def request(sent: Sent) -> Play:
    """Return the play of a single request."""

    async def play(side: Side, prediction: str) -> Outcome:
        return await ask(side, sent, prediction)

    return play


def status_of(text: object) -> str:
    """Return the status of the prediction that a body, or the data of a `completed`, tells."""
    told_as = str(text).partition("data: ")[2] or str(text)
    found: str = json.loads(told_as.replace(":TIME", ":0"))["status"]
    return found
