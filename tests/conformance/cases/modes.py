"""How a prediction is answered: whole, at once, as a stream; and what one request chooses."""

from __future__ import annotations

import json
import re

from tests.conformance import rows
from tests.conformance.case import (
    ABSENT,
    ASYNC,
    ID,
    SSE,
    Case,
    Differs,
    Outcome,
    chat,
    of,
    post,
    prompt,
    put,
    request,
)
from tests.conformance.sides import Side

EVERYTHING = "?events=2&thought=hm&timings=3,2,50.5"
CUT = "?events=2&end=cut"


async def raw(side: Side, prediction: str) -> Outcome:
    """Look at what other cases leave out, as it differs everywhere."""
    async with side.sent(of(put(prompt("?events=1"), SSE), prediction)) as line:
        ids = re.findall("^id: ([0-9]+)$", await line.whole(), re.MULTILINE)
    await side.wait_health("READY")
    async with side.sent(post(prompt())) as line:
        fields = dict((await line.head()).headers)
        made = json.loads(await line.rest())["id"]
    return {
        "event ids": ids,
        "cache-control": fields.get(b"cache-control"),
        "made id": re.sub("[0-9a-f]", "0", made.removeprefix("pred_")),
    }


def streamed(output: int, end: str) -> dict[str, object]:
    """Say that there is a stream with so many pieces of output and this end."""
    frames = [
        'event: start\ndata: {"id":"THE-ID","status":"processing"}',
        *(f'event: output\ndata: {{"chunk":"t{n} ","index":{n}}}' for n in range(output)),
        f"event: completed\ndata: {end}",
    ]
    head = {"content-type": "text/event-stream", "cache-control": "no-cache"}
    return {**head, "frames": frames, "body": ABSENT}


STARTING = {"status": 202, "body": '{"id":"THE-ID","status":"starting"}'}
WHOLE = (
    '{"id":"THE-ID","logs":"","metrics":{"predict_time":TIME},'
    '"output":["t0 ","t1 ","t2 ","t3 ","t4 "],"status":"succeeded"}'
)
CUT_SHORT = (
    '{"error":"llama-server closed the connection before its answer was complete.",'
    '"id":"THE-ID","logs":"","metrics":{"predict_time":TIME},"status":"failed"}'
)
CUT_SHORT_WITH_OUTPUT = (
    '{"error":"llama-server closed the connection before its answer was complete.",'
    '"id":"THE-ID","logs":"","metrics":{"predict_time":TIME},"output":["t0 ","t1 "],'
    '"status":"failed"}'
)

CASES = (
    Case(
        "answers_have_ids_and_are_not_to_be_kept",
        raw,
        (
            Differs(rows.EVENT_IDS, {"event ids": ["1", "2", "3"]}),
            Differs(rows.NOT_KEPT, {"cache-control": b"no-store"}),
            Differs(rows.MADE_IDS, {"made id": "0" * 32}),
        ),
    ),
    Case("blocking_request_gets_the_whole", request(post(prompt(id=ID)))),
    Case("blocking_request_without_an_id_gets_one_made", request(post(prompt()))),
    Case("blocking_request_gets_logs_and_metrics", request(post(chat(EVERYTHING, id=ID)))),
    Case("answer_without_output_is_an_empty_list", request(post(prompt("?events=0", id=ID)))),
    Case(
        "blocking_request_that_fails_is_answered_without_output",
        request(post(prompt(CUT, id=ID))),
        (Differs(rows.EXCEPTION, {"body": CUT_SHORT}),),
    ),
    Case("async_request_is_answered_at_once", request(post(prompt(id=ID), ASYNC))),
    Case("stream_has_each_kind_of_event", request(post(chat(EVERYTHING, id=ID), SSE))),
    Case(
        "stream_of_one_that_fails_ends_with_its_output",
        request(post(prompt(CUT, id=ID), SSE)),
        (Differs(rows.EXCEPTION, {"frames": streamed(2, CUT_SHORT_WITH_OUTPUT)["frames"]}),),
    ),
    Case("stream_without_output_has_start_and_end", request(post(prompt("?events=0", id=ID), SSE))),
    Case("put_of_a_new_one_gets_the_whole", request(put(prompt()))),
    Case("put_of_a_new_one_is_answered_at_once", request(put(prompt(), ASYNC))),
    Case("put_of_a_new_one_streams", request(put(prompt(), SSE))),
    Case("stream_beats_async", request(post(prompt(id=ID), ASYNC, SSE))),
    Case(
        "stream_as_a_later_member_of_accept_streams",
        request(post(prompt(id=ID), "Accept: application/json, text/event-stream")),
    ),
    Case(
        "stream_with_parameters_streams",
        request(post(prompt(id=ID), "Accept: text/event-stream; charset=utf-8;q=0.5, */*")),
    ),
    Case("anything_is_no_stream", request(post(prompt(id=ID), "Accept: text/*, */*"))),
    Case(
        "stream_in_capitals_streams",
        request(post(prompt(id=ID), "Accept: TEXT/Event-Stream")),
        (Differs(rows.FIRST_LINE, streamed(5, WHOLE)),),
    ),
    Case(
        "stream_on_a_second_line_streams",
        request(post(prompt(id=ID), "Accept: application/json", SSE)),
        (Differs(rows.FIRST_LINE, streamed(5, WHOLE)),),
    ),
    Case(
        "async_with_another_preference_is_answered_at_once",
        request(post(prompt(id=ID), "Prefer: respond-async, wait=5")),
        (Differs(rows.FIRST_LINE, STARTING),),
    ),
    Case(
        "async_in_capitals_is_answered_at_once",
        request(post(prompt(id=ID), "Prefer: Respond-Async")),
        (Differs(rows.FIRST_LINE, STARTING),),
    ),
    Case("another_preference_is_none", request(post(prompt(id=ID), "Prefer: wait=5"))),
    Case("refusal_of_a_stream_is_no_stream", request(post({"input": {"prompt": 5}}, SSE))),
)
