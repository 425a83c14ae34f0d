"""Who leaves, and how, and what becomes of the prediction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

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
)
from tests.conformance.line import LEAVING, Line
from tests.conformance.sides import Side
from tests.web.wire import Sent

Leave = Callable[[Line], None]
JOIN = Sent("PUT", f"/predictions/{ID}", (SSE,))
SNAPSHOT = Sent("PUT", f"/predictions/{ID}")


async def blocking_caller(side: Side, prediction: str, leave: Leave) -> Outcome:
    """The caller of a blocking request leaves, and a subscriber is told the end."""
    async with side.sent(of(put(prompt(held())), prediction)) as caller:
        await side.wait_begun(prediction)
        async with side.sent(of(JOIN, prediction)) as follower:
            await follower.head()
            frames = await follower.frames_until('"index":0')
            leave(caller)
            frames += (await follower.rest()).split("\n\n")
    await side.wait_health("READY")
    return {"frames": seen_frames(frames, prediction)}


async def creator_of_a_stream(side: Side, prediction: str, leave: Leave) -> Outcome:
    """Who has made a stream leaves, with nobody else there: the slot is free again."""
    async with side.sent(of(put(prompt(held()), SSE), prediction)) as creator:
        await creator.head()
        await creator.frames_until('"index":0')
        before = await side.health()
        leave(creator)
        await side.wait_health("READY")
    return {"before": before}


async def creator_then_follower(side: Side, prediction: str, leave: Leave) -> Outcome:
    """Who has made a stream leaves, then the other one."""
    async with side.sent(of(JOIN_OR_MAKE, prediction)) as creator:
        await creator.head()
        await creator.frames_until('"index":0')
        async with side.sent(of(JOIN, prediction)) as follower:
            await follower.head()
            await follower.frames_until('"index":0')
            leave(creator)
            running = await goes_on(side, prediction)
            leave(follower)
            await side.wait_health("READY")
    return {"after the first": running}


JOIN_OR_MAKE = put(prompt(held()), SSE)


async def goes_on(side: Side, prediction: str) -> object:
    """Return what a prediction is answered after somebody has left.

    Nothing tells that the server has seen it: it is asked as often as it surely needs to.
    """
    return [(await ask(side, SNAPSHOT, prediction))["status"] for _ in range(10)]


async def async_subscriber(side: Side, prediction: str, leave: Leave) -> Outcome:
    """A subscriber of a prediction that was made for itself leaves: it goes on to its end."""
    await ask(side, put(prompt(held()), ASYNC), prediction)
    async with side.sent(of(JOIN, prediction)) as follower:
        await follower.head()
        await follower.frames_until('"index":0')
        leave(follower)
        running = await goes_on(side, prediction)
    async with side.sent(of(JOIN, prediction)) as again:
        await again.head()
        frames = await again.frames_until('"index":0')
        await side.end(prediction)
        frames += (await again.rest()).split("\n\n")
    return {"running": running, "frames": seen_frames(frames, prediction)}


async def creator_after_a_truncated_one(side: Side, prediction: str, leave: Leave) -> Outcome:
    """A subscriber that came too late is no subscriber: the creator is the last one."""
    async with side.sent(
        of(put(prompt(held("events=1100&padding=200&end=stall")), SSE), prediction)
    ) as creator:
        await creator.head()
        await creator.frames_until('"index":1099')
        late = await ask(side, JOIN, prediction)
        running = await goes_on(side, prediction)
        leave(creator)
        await side.wait_health("READY")
    return {"late": late, "running": running}


def by(
    play: Callable[[Side, str, Leave], Awaitable[Outcome]], leave: Leave
) -> Callable[[Side, str], Awaitable[Outcome]]:
    """Return the play in which somebody leaves in this way."""

    async def played(side: Side, prediction: str) -> Outcome:
        return await play(side, prediction, leave)

    return played


PLAYS = {
    "caller_of_a_blocking_request_that_{}_cancels": blocking_caller,
    "creator_of_a_stream_that_{}_alone_cancels": creator_of_a_stream,
    "creator_of_a_stream_that_{}_leaves_it_to_its_follower": creator_then_follower,
    "subscriber_of_an_async_one_that_{}_changes_nothing": async_subscriber,
}
CASES = (
    *(
        Case(name.format(how), by(play, leave))
        for name, play in PLAYS.items()
        for how, leave in LEAVING.items()
    ),
    Case(
        "creator_of_a_stream_that_leaves_after_one_came_too_late_cancels",
        by(creator_after_a_truncated_one, Line.close),
    ),
)
