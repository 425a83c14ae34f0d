"""Large requests and answers, and a model that dies."""

from __future__ import annotations

import trio

from tests.conformance import rows
from tests.conformance.case import (
    ID,
    SSE,
    Case,
    Differs,
    Outcome,
    ask,
    held,
    of,
    post,
    prompt,
    put,
    request,
    seen_frames,
)
from tests.conformance.line import PATIENCE_S
from tests.conformance.sides import LOOK_AGAIN_S, Side

MIB = 1024 * 1024
OUT = f"?events=1&padding={9 * MIB}"
# One byte more than Cog takes.
TOO_LARGE = b" " * (100 * MIB + 1)


async def settle(side: Side, prediction: str) -> tuple[str, object]:
    """Wait until a server has seen that its model died; return its health and its next status.

    For a moment each may look as if nothing had happened, and then be on its way to another state.
    """
    with trio.fail_after(PATIENCE_S):
        while True:
            health = await side.health()
            answer = await ask(side, post(prompt("?events=1")), prediction)
            if health == "UNHEALTHY" or (health == "READY" and '"succeeded"' in str(answer)):
                return health, answer["status"]
            await trio.sleep(LOOK_AGAIN_S)


async def crash_in_stream(side: Side, prediction: str) -> Outcome:
    """Follow a prediction in which the model dies, and see what becomes of the server."""
    async with side.sent(of(put(prompt(held()), SSE), prediction)) as line:
        await line.head()
        await line.frames_until('"index":0')
        await side.end(prediction, "crash")
        (last,) = seen_frames((await line.rest()).split("\n\n"), prediction)
    health, status = await settle(side, prediction)
    name, _, end = last.partition("\ndata: ")
    end = end.replace('"output":["THE-ID0 "],', "")
    return {"last": name, "end": end, "health": health, "next": status}


REFUSED = {
    "content-type": "application/json; charset=utf-8",
    "body": '{"error": {"code": 413, "message": "The request body is larger than this server '
    'accepts; send less.", "type": "invalid_request_error", "request_id": "MADE"}}',
}
CRASHED = (
    '{"error":"llama-server crashed (exit code 139) during the exchange.","id":"THE-ID","logs":"",'
    '"metrics":{"predict_time":TIME},"status":"failed"}'
)

CASES = (
    Case("prompt_of_7_mib_is_taken", request(post(prompt("a" * (7 * MIB), id=ID)))),
    Case("output_of_9_mib_is_answered_whole", request(post(prompt(OUT, id=ID)))),
    Case("output_of_9_mib_streams", request(post(prompt(OUT, id=ID), SSE))),
    Case(
        "body_that_is_too_large_is_refused",
        request(post(TOO_LARGE)),
        (Differs(rows.TOO_LARGE, REFUSED),),
    ),
    Case(
        "request_in_which_the_model_dies_fails",
        request(post(prompt("?end=crash", id=ID))),
        (Differs(rows.EXCEPTION, {"body": CRASHED}),),
        pair="crashing",
    ),
    Case(
        "stream_in_which_the_model_dies_fails",
        crash_in_stream,
        (
            Differs(rows.EXCEPTION, {"end": CRASHED}),
            Differs(rows.CRASHED, {"health": "READY", "next": 200}),
        ),
        pair="crashing",
    ),
)
