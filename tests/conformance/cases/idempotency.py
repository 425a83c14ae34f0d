"""Asking again: `PUT` of a prediction that runs, or has ended, and `POST` with an id in use."""

from __future__ import annotations

from tests.conformance import rows
from tests.conformance.case import (
    ABSENT,
    ASYNC,
    ID,
    SSE,
    Case,
    Differs,
    Outcome,
    Play,
    ask,
    chat,
    held,
    of,
    post,
    prompt,
    put,
    request,
    seen_frames,
)
from tests.conformance.sides import Side
from tests.web.wire import Sent

JOIN = Sent("PUT", f"/predictions/{ID}")


async def while_one_runs(side: Side, prediction: str, sent: Sent) -> Outcome:
    """Send a request while the prediction is held after its first piece of output."""
    async with side.sent(
        of(put(chat(held("events=2&pace_s=3600&thought=hm")), ASYNC), prediction)
    ) as line:
        await line.whole()
    async with side.sent(of(Sent("PUT", JOIN.target, (SSE,)), prediction)) as line:
        await line.head()
        await line.frames_until('"index":0')
        outcome = await ask(side, sent, prediction)
    await side.end(prediction)
    await side.wait_health("READY")
    return outcome


def running(sent: Sent) -> Play:
    """Return the play of a request while the prediction runs."""

    async def play(side: Side, prediction: str) -> Outcome:
        return await while_one_runs(side, prediction, sent)

    return play


async def join_stream(side: Side, prediction: str) -> Outcome:
    """Join a stream late, and let the prediction end."""
    async with side.sent(
        of(put(chat(held("events=2&pace_s=3600&thought=hm")), ASYNC), prediction)
    ) as line:
        await line.whole()
    async with side.sent(of(Sent("PUT", JOIN.target, (SSE,)), prediction)) as line:
        await line.head()
        frames = await line.frames_until('"index":0')
        async with side.sent(of(Sent("PUT", JOIN.target, (SSE,)), prediction)) as late:
            await late.head()
            again = await late.frames_until('"index":0')
            await side.end(prediction)
            frames += (await line.rest()).split("\n\n")
            again += (await late.rest()).split("\n\n")
    return {"frames": seen_frames(frames, prediction), "again": seen_frames(again, prediction)}


async def ended_one(side: Side, prediction: str, sent: Sent) -> Outcome:
    """Send a request when the prediction has ended."""
    await ask(side, put(prompt("?events=1")), prediction)
    await side.wait_health("READY")
    return await ask(side, sent, prediction)


def ended(sent: Sent) -> Play:
    """Return the play of a request when the prediction has ended."""

    async def play(side: Side, prediction: str) -> Outcome:
        return await ended_one(side, prediction, sent)

    return play


async def twice(side: Side, prediction: str) -> Outcome:
    """Use the id of one that runs, where another slot is free."""
    await ask(side, put(prompt(held()), ASYNC), prediction)
    await side.wait_begun(prediction)
    outcome = await ask(side, post(prompt(id=ID)), prediction)
    await side.end(prediction)
    return outcome


RUNNING = '{"id":"THE-ID","logs":"hm\\n","metrics":{},"output":["THE-ID0 "],"status":"processing"}'
ENDED = (
    '{"id":"THE-ID","logs":"","metrics":{"predict_time":TIME},"output":["t0 "],'
    '"status":"succeeded"}'
)
REPLAYED = [
    'event: start\ndata: {"id":"THE-ID","status":"processing"}',
    'event: output\ndata: {"chunk":"t0 ","index":0}',
    f"event: completed\ndata: {ENDED}",
]
IN_USE = (
    '{"error":"A prediction with this id exists. Use PUT /predictions/{id} to join it, or another'
    ' id.","status":"failed"}'
)
NOT_FOUND = {
    "content-type": "application/json; charset=utf-8",
    "body": '{"error": {"code": 404, "message": "No prediction with this id runs, or is still '
    'kept.", "type": "not_found_error", "request_id": "MADE"}}',
}

CASES = (
    Case(
        "post_with_the_id_of_a_running_one_while_there_are_slots_is_refused",
        twice,
        (Differs(rows.LOSES_THE_FIRST, {"status": 409, "body": IN_USE}),),
        pair="slots",
    ),
    Case(
        "put_of_a_running_one_is_answered_with_it",
        running(put(prompt())),
        (Differs(rows.INPUT_IN_SNAPSHOT, {"body": RUNNING}),),
    ),
    Case(
        "put_of_a_running_one_that_asks_for_async_is_answered_with_it",
        running(put(prompt(), ASYNC)),
        (Differs(rows.INPUT_IN_SNAPSHOT, {"body": RUNNING}),),
    ),
    Case(
        "put_of_a_running_one_needs_no_body",
        running(JOIN),
        (Differs(rows.INPUT_IN_SNAPSHOT, {"body": RUNNING}),),
    ),
    Case(
        "put_of_a_running_one_does_not_look_at_the_input",
        running(put({"input": {"prompt": 5}})),
        (Differs(rows.INPUT_IN_SNAPSHOT, {"body": RUNNING}),),
    ),
    Case(
        "put_of_a_running_one_with_another_id_in_the_body_is_refused",
        running(put(prompt(id="other"))),
    ),
    Case("put_of_a_running_one_streams_from_the_start_and_live", join_stream),
    Case(
        "put_of_another_one_while_all_slots_are_busy_is_refused",
        running(put(prompt(), target=f"/predictions/{ID}-2")),
        (Differs(rows.NO_RETRY_AFTER, {"retry-after": "5"}),),
    ),
    Case(
        "post_while_all_slots_are_busy_is_refused",
        running(post(prompt())),
        (Differs(rows.NO_RETRY_AFTER, {"retry-after": "5"}),),
    ),
    Case(
        "post_for_async_while_all_slots_are_busy_is_refused",
        running(post(prompt(), ASYNC)),
        (Differs(rows.NO_RETRY_AFTER, {"retry-after": "5"}),),
    ),
    Case(
        "post_for_a_stream_while_all_slots_are_busy_is_refused",
        running(post(prompt(), SSE)),
        (Differs(rows.NO_RETRY_AFTER, {"retry-after": "5"}),),
    ),
    Case(
        "post_that_is_wrong_while_all_slots_are_busy_is_told_what_is_wrong",
        running(post({"input": {"prompt": 5}})),
    ),
    Case(
        "post_with_the_id_of_a_running_one_while_all_slots_are_busy_is_refused",
        running(post(prompt(id=ID))),
        (Differs(rows.LOSES_THE_FIRST, {"body": IN_USE}),),
    ),
    Case(
        "get_of_a_running_one_is_answered_with_it",
        running(Sent("GET", JOIN.target)),
        (
            Differs(
                rows.NO_GET,
                {
                    "status": 200,
                    "allow": ABSENT,
                    "content-type": "application/json",
                    "body": RUNNING,
                },
            ),
        ),
    ),
    Case(
        "put_of_one_that_has_ended_is_answered_with_it",
        ended(put(prompt("?events=2"))),
        (Differs(rows.FORGETS, {"body": ENDED}),),
    ),
    Case(
        "put_of_one_that_has_ended_replays_it",
        ended(put(prompt("?events=2"), SSE)),
        (Differs(rows.FORGETS, {"frames": REPLAYED}),),
    ),
    Case(
        "post_with_the_id_of_one_that_has_ended_is_refused",
        ended(post(prompt("?events=2", id=ID))),
        (Differs(rows.FORGETS, {"status": 409, "body": IN_USE}),),
    ),
    Case(
        "get_of_an_unknown_one_is_refused",
        request(Sent("GET", JOIN.target)),
        (Differs(rows.NO_GET, {"status": 404, "allow": ABSENT, **NOT_FOUND}),),
    ),
)
