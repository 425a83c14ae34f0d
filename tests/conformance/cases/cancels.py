"""Cancelling a prediction, also when it is about to end."""

from __future__ import annotations

import trio

from tests.conformance.case import (
    ID,
    SSE,
    Case,
    Outcome,
    ask,
    chat,
    held,
    of,
    prompt,
    put,
    request,
    seen,
    seen_frames,
    status_of,
)
from tests.conformance.sides import Side
from tests.web.wire import Sent

CANCEL = Sent("POST", f"/predictions/{ID}/cancel")
TEXT = held("events=2&pace_s=3600&thought=hm")
RACES = 10


async def blocking(side: Side, prediction: str) -> Outcome:
    """Cancel while somebody waits for the whole."""
    async with side.sent(of(put(chat(TEXT)), prediction)) as caller:
        await side.wait_begun(prediction)
        cancel = await ask(side, CANCEL, prediction)
        whole = await seen(caller, prediction)
    return {"cancel": cancel, "whole": whole}


async def stream(side: Side, prediction: str) -> Outcome:
    """Cancel while somebody follows."""
    async with side.sent(of(put(chat(TEXT), SSE), prediction)) as follower:
        await follower.head()
        frames = await follower.frames_until('"index":0')
        cancel = await ask(side, CANCEL, prediction)
        frames += (await follower.rest()).split("\n\n")
    return {"cancel": cancel, "frames": seen_frames(frames, prediction)}


async def before_output(side: Side, prediction: str) -> Outcome:
    """Cancel before there is any output."""
    text = held("first_s=3600")
    async with side.sent(of(put(prompt(text), SSE), prediction)) as follower:
        await follower.head()
        frames = await follower.frames_until("event: start")
        cancel = await ask(side, CANCEL, prediction)
        frames += (await follower.rest()).split("\n\n")
    return {"cancel": cancel, "frames": seen_frames(frames, prediction)}


async def finished(side: Side, prediction: str) -> Outcome:
    """Cancel one that has ended."""
    await ask(side, put(prompt()), prediction)
    await side.wait_health("READY")
    return await ask(side, CANCEL, prediction)


async def race(side: Side, prediction: str) -> Outcome:
    """Cancel just when it ends, again and again: whatever wins, all that is told fits together."""
    found = [await race_once(side, f"{prediction}-{number}") for number in range(RACES)]
    return {"consistent": found}


async def race_once(side: Side, prediction: str) -> bool:
    """Return whether one stream has one end, and a cancel that came too late changed nothing."""
    cancel: Outcome = {}

    async def do_cancel() -> None:
        cancel.update(await ask(side, CANCEL, prediction))

    await side.wait_health("READY")
    async with side.sent(of(put(prompt(held()), SSE), prediction)) as follower:
        await follower.head()
        await follower.frames_until('"index":0')
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.end, prediction)
            nursery.start_soon(do_cancel)
            frames = seen_frames((await follower.rest()).split("\n\n"), prediction)
    status = status_of(frames[-1])
    ends = [frame for frame in frames if frame.startswith(("event: completed", "event: error"))]
    ways = {(200, "canceled"), (200, "succeeded"), (404, "succeeded")}
    return len(ends) == 1 and (cancel["status"], status) in ways and cancel["body"] == "{}"


CASES = (
    Case("cancel_of_a_blocking_one_is_its_answer", blocking),
    Case("cancel_of_a_stream_is_its_last_event", stream),
    Case("cancel_before_any_output_ends_it_without", before_output),
    Case("cancel_of_an_unknown_one_finds_nothing", request(CANCEL)),
    Case("cancel_of_one_that_has_ended_finds_nothing", finished),
    Case("cancel_that_races_with_the_end_fits_what_is_told", race),
)
