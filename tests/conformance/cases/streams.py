"""Streams that have not all they should: cut replay, lag, no history, too many."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import trio

from tests.conformance.case import (
    ASYNC,
    ID,
    SSE,
    Case,
    Outcome,
    ask,
    held,
    of,
    prompt,
    put,
    seen_frames,
    seen_head,
)
from tests.conformance.line import PATIENCE_S
from tests.conformance.sides import LOOK_AGAIN_S, Side
from tests.web.wire import Sent

JOIN = Sent("PUT", f"/predictions/{ID}", (SSE,))
# More than the sockets between and the 1024 events that are kept, of which none is so large that
# the bytes that ours keeps end before.
EVENTS, PADDING = 6000, 3900
KEPT = 1024
MOST_SUBSCRIBERS = 1024

Play = Callable[[Side, str], Awaitable[Outcome]]


def late_after(text: str, skipped: int) -> Play:
    """Return the play of joining when the first events are gone already."""

    async def play(side: Side, prediction: str) -> Outcome:
        await ask(side, put(prompt(text), ASYNC), prediction)
        await wait_gone(side, prediction, skipped)
        outcome = await ask(side, JOIN, prediction)
        await side.end(prediction)
        return outcome

    return play


async def late_to_no_history(side: Side, prediction: str) -> Outcome:
    """Join where nothing is kept."""
    async with side.sent(of(put(prompt(held("events=2&pace_s=3600")), SSE), prediction)) as first:
        await first.head()
        frames = await first.frames_until('"index":0')
        async with side.sent(of(JOIN, prediction)) as late:
            head = seen_head(await late.head())
            await side.end(prediction)
            after = (await late.rest()).split("\n\n")
        frames += (await first.rest()).split("\n\n")
    return {
        "first": seen_frames(frames, prediction),
        "late": {**head, "frames": seen_frames(after, prediction)},
    }


async def slow_one(side: Side, prediction: str) -> Outcome:
    """Do not read while far more events are made than are kept; then read."""
    text = held(f"events={EVENTS}&padding={PADDING}&end=stall")
    await ask(side, put(prompt(text), ASYNC), prediction)
    async with side.sent(of(JOIN, prediction), receive_buffer=4096) as slow:
        await slow.head()
        await wait_gone(side, prediction, EVENTS + 1 - KEPT)
        *_, last, nothing = (await slow.rest()).split("\n\n")
    async with side.sent(of(Sent("PUT", JOIN.target), prediction)) as line:
        snapshot = json.loads(await line.whole())
    await side.end(prediction)
    last = re.sub(r'"skipped":[1-9][0-9]*', '"skipped":SOME', last)
    return {
        "last": last,
        "after it": nothing,
        "status": snapshot["status"],
        "made": len(snapshot["output"]),
    }


async def wait_gone(side: Side, prediction: str, count: int) -> None:
    """Wait until so many events are kept no longer, of which one who comes late is told."""
    with trio.fail_after(PATIENCE_S):
        while f'"skipped":{count}' not in await first_frame(side, prediction):
            await trio.sleep(LOOK_AGAIN_S)


async def first_frame(side: Side, prediction: str) -> str:
    """Join, and leave after one event."""
    async with side.sent(of(JOIN, prediction)) as line:
        await line.head()
        return await line.frame()


async def one_too_many(side: Side, prediction: str) -> Outcome:
    """Follow a prediction as often as is allowed, and once more."""
    async with AsyncExitStack() as open_lines:
        first = await open_lines.enter_async_context(
            side.sent(of(put(prompt(held()), SSE), prediction))
        )
        await first.head()
        await first.frames_until('"index":0')

        async def follow() -> None:
            line = await open_lines.enter_async_context(side.sent(of(JOIN, prediction)))
            await line.head()

        for _ in range(MOST_SUBSCRIBERS - 1):
            await follow()
        outcome = await ask(side, JOIN, prediction)
        await side.end(prediction)
        await first.rest()
    return outcome


CASES = (
    Case(
        "subscriber_that_comes_too_late_is_told_what_is_gone",
        late_after(held("events=1100&end=stall"), 77),
    ),
    Case(
        "subscriber_that_comes_late_to_a_short_history_is_told_what_is_gone",
        late_after(held("events=5&end=stall"), 4),
        pair="short_history",
    ),
    Case(
        "subscriber_that_comes_late_without_history_gets_what_is_to_come",
        late_to_no_history,
        pair="no_history",
    ),
    Case("subscriber_that_does_not_read_is_ended_alone", slow_one),
    Case("subscriber_beyond_the_most_is_refused", one_too_many),
)
