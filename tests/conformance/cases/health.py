"""What is told of the server itself, and of its paths."""

from __future__ import annotations

import json

import trio

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
    held,
    of,
    post,
    prompt,
    put,
    request,
    seen_head,
)
from tests.conformance.sides import Side
from tests.web.wire import Sent

HEALTH_CHECKS = 50
AWAY = ("starting", "not_started")


def health() -> Play:
    """Return the play of asking for the health."""

    async def play(side: Side, prediction: str) -> Outcome:
        async with side.sent(Sent("GET", "/health-check")) as line:
            head = seen_head(await line.head())
            body = json.loads(await line.rest())
        setup = body["setup"]
        return {
            **head,
            "members": list(body),
            "health": body["status"],
            "setup": {name: type(value).__name__ for name, value in setup.items()},
            "setup.status": setup["status"],
            "version": {name: value for name, value in body["version"].items() if name in SAME},
            "versions": list(body["version"]),
        }

    return play


SAME = ("coglet", "python")


async def busy(side: Side, prediction: str) -> Outcome:
    """Ask often, all at once, while a prediction makes events as fast as it can."""
    found: list[object] = []

    async def ask_one() -> None:
        found.append(await side.health())

    async with side.sent(of(put(prompt(held("events=20000"))), prediction)):
        await side.wait_begun(prediction)
        async with trio.open_nursery() as nursery:
            for _ in range(HEALTH_CHECKS):
                nursery.start_soon(ask_one)
    await side.wait_health("READY")
    return {"health": found}


async def slots(side: Side, prediction: str) -> Outcome:
    """Take one slot after the other."""
    found = []
    for number in range(4):
        name = f"{prediction}-{number}"
        await ask(side, put(prompt(held()), ASYNC), name)
        await side.wait_begun(name)
        found.append(await side.health())
    refused = await ask(side, put(prompt()), prediction)
    for number in range(4):
        await side.end(f"{prediction}-{number}")
    return {"health": found, "refused": refused["status"]}


async def schema(side: Side, prediction: str) -> Outcome:
    """Read the schema: what Cog's clients look for in it."""
    async with side.sent(Sent("GET", "/openapi.json")) as line:
        head = seen_head(await line.head())
        body = json.loads(await line.rest())
    model = body["components"]["schemas"]
    return {
        **head,
        "openapi": body["openapi"],
        "streams": body["paths"]["/predictions"]["post"]["x-cog-streaming"],
        "input": model["Input"]["properties"],
        "output": {name: model["Output"][name] for name in ("type", "items", "x-cog-array-type")},
        "schemas": sorted(model),
        "paths": sorted(body["paths"]),
    }


PATHS = [
    "/health-check",
    "/predictions",
    "/predictions/{prediction_id}",
    "/predictions/{prediction_id}/cancel",
]
NOT_SET_UP = (
    '{"error":"Setup has not finished yet. Wait until it has finished, or GET /health-check for'
    ' status.","status":"failed"}'
)
LLAMA_SERVERS = "application/json; charset=utf-8"
PROXIED = {
    "content-type": LLAMA_SERVERS,
    "body": '{"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}',
}
NO_ANSWER = {
    "content-type": LLAMA_SERVERS,
    "body": '{"error": {"code": 404, "message": "This path does not answer this method.", '
    '"type": "not_found_error", "request_id": "MADE"}}',
}

CASES = (
    Case(
        "health_of_one_that_is_ready_says_so",
        health(),
        (Differs(rows.BUILD, {"versions": ["coglet", "proxy", "python"]}),),
    ),
    Case(
        "health_while_it_starts_says_so",
        health(),
        (Differs(rows.BUILD, {"versions": ["coglet", "proxy", "python"]}),),
        pair="starting",
        idle=False,
    ),
    Case(
        "health_when_it_could_not_start_says_so",
        health(),
        (Differs(rows.BUILD, {"versions": ["coglet", "proxy", "python"]}),),
        pair="not_started",
        idle=False,
    ),
    Case("health_asked_for_its_head_has_no_body", request(Sent("HEAD", "/health-check"))),
    Case("health_under_load_is_told_each_time", busy),
    Case("health_is_busy_when_all_slots_are_taken", slots, pair="slots"),
    Case(
        "schema_tells_what_clients_look_for",
        schema,
        (Differs(rows.SCHEMA, {"paths": PATHS}),),
    ),
    *(
        Case(f"{name}_while_{pair}_is_refused", request(sent), differs, pair=pair, idle=False)
        for pair in AWAY
        for name, sent, differs in (
            ("blocking_request", post(prompt()), ()),
            ("async_put", put(prompt(), ASYNC), ()),
            (
                "stream",
                post(prompt(), SSE),
                (Differs(rows.NO_STREAM, {"status": 503, "body": NOT_SET_UP}),),
            ),
            ("cancel", Sent("POST", f"/predictions/{ID}/cancel"), ()),
        )
    ),
    Case(
        "root_lists_the_routes",
        request(Sent("GET", "/")),
        (Differs(rows.ROOT, {"status": 404, **PROXIED}),),
    ),
    Case(
        "path_that_is_unknown_is_refused",
        request(Sent("GET", "/nowhere")),
        (Differs(rows.UNKNOWN_PATH, PROXIED),),
    ),
    Case(
        "training_is_refused",
        request(post(prompt(), target="/trainings")),
        (Differs(rows.TRAININGS, {"status": 404, **PROXIED}),),
    ),
    Case(
        "get_of_all_predictions_is_refused",
        request(Sent("GET", "/predictions")),
        (Differs(rows.NO_METHOD, {"status": 404, "allow": ABSENT, **NO_ANSWER}),),
    ),
    Case(
        "get_of_a_cancel_is_refused",
        request(Sent("GET", f"/predictions/{ID}/cancel")),
        (Differs(rows.NO_METHOD, {"status": 404, "allow": ABSENT, **NO_ANSWER}),),
    ),
    Case(
        "post_of_the_health_is_refused",
        request(Sent("POST", "/health-check")),
        (Differs(rows.NO_METHOD, {"status": 404, "allow": ABSENT, **NO_ANSWER}),),
    ),
)
