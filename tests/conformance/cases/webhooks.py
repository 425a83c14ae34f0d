"""Webhooks, to receivers that are well, fail, are slow or dead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from proxy._version import __version__
from tests.conformance import rows
from tests.conformance.case import (
    ID,
    SSE,
    Case,
    Differs,
    Outcome,
    ask,
    chat,
    held,
    of,
    prompt,
    put,
    told,
)
from tests.conformance.line import PATIENCE_S
from tests.conformance.sides import Side
from tests.fakes.webhook_receiver import (
    Reply,
    WebhookReceiver,
    after,
    hang_up,
    reset,
    status,
    webhook_receiver,
)
from tests.web.wire import Sent

TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVERYTHING = "?events=2&thought=hm&timings=3,2,50.5"


def telling_of(receiver: WebhookReceiver, events: Sequence[str]) -> dict[str, object]:
    """Return the members of a request that has a receiver told of events."""
    return {"webhook": receiver.url, "webhook_events_filter": list(events)}


def bodies(receiver: WebhookReceiver, prediction: str) -> list[str]:
    """Return what a receiver got."""
    return [told(each.body.decode(), prediction) for each in receiver.deliveries]


def telling(
    text: str, events: Sequence[str], *replies: Reply, expected: int
) -> Callable[[Side, str], Awaitable[Outcome]]:
    """Return the play of one prediction whose receiver wants to be told of these events."""

    async def play(side: Side, prediction: str) -> Outcome:
        async with webhook_receiver() as receiver:
            receiver.replies = list(replies)
            hook = telling_of(receiver, events)
            answer = await ask(side, put(chat(text, **hook)), prediction)
            await side.wait_health("READY")
            await receiver.wait_deliveries(expected)
            got = bodies(receiver, prediction)
        # Cog sends each by itself: their order is luck.
        return {"answer": answer["status"], "told": sorted(got)}

    return play


async def head(side: Side, prediction: str) -> Outcome:
    """Look at a whole request."""
    async with webhook_receiver() as receiver:
        hook = telling_of(receiver, ["completed"])
        await ask(side, put(prompt(**hook), TRACE), prediction)
        await receiver.wait_deliveries(1)
        (delivery,) = receiver.deliveries
    fields = delivery.fields
    assert fields.pop("host") == f"127.0.0.1:{receiver.port}"
    assert fields.pop("content-length") == str(len(delivery.body))
    return {"line": delivery.line, **fields}


async def canceled(side: Side, prediction: str) -> Outcome:
    """Cancel a prediction: its receiver is told what it had made."""
    async with webhook_receiver() as receiver:
        hook = telling_of(receiver, ["completed"])
        sent = put(chat(held("events=2&pace_s=3600&thought=hm"), **hook), SSE)
        async with side.sent(of(sent, prediction)) as line:
            await line.head()
            await line.frames_until('"index":0')
            await ask(side, Sent("POST", f"/predictions/{ID}/cancel"), prediction)
            await line.rest()
        await receiver.wait_deliveries(1)
        return {"told": bodies(receiver, prediction)}


async def output(side: Side, prediction: str) -> Outcome:
    """Wait for the webhook that has all output, while the prediction still runs."""
    async with webhook_receiver() as receiver:
        hook = telling_of(receiver, ["output"])
        async with side.sent(
            of(put(prompt(held("events=3&end=stall"), **hook), SSE), prediction)
        ) as line:
            await line.head()
            await line.frames_until('"index":2')
            count = 0
            with trio.fail_after(PATIENCE_S):
                while not any(f"{prediction}2 " in str(each) for each in receiver.told):
                    count += 1
                    await receiver.wait_deliveries(count)
            fullest = max(bodies(receiver, prediction), key=len)
            await side.end(prediction)
            await line.rest()
    return {"told": fullest}


async def dead(side: Side, prediction: str) -> Outcome:
    """Have a receiver that does not answer: the caller and the next one do not wait for it."""
    answered = trio.Event()
    async with webhook_receiver() as receiver:
        receiver.replies = [after(answered)] * 2
        hook = telling_of(receiver, ["start", "completed"])
        first = await ask(side, put(prompt(**hook)), prediction)
        await side.wait_health("READY")
        second = await ask(side, put(prompt()), f"{prediction}-2")
        answered.set()
        await receiver.wait_deliveries(2)
    return {"first": first, "second": second}


CUT_SHORT = (
    '{"error":"llama-server closed the connection before its answer was complete.",'
    '"id":"THE-ID","logs":"hm\\n","metrics":{"predict_time":TIME},"output":["t0 ","t1 "],'
    '"status":"failed"}'
)

CASES = (
    Case(
        "webhook_is_a_post_of_json_with_the_token",
        head,
        (Differs(rows.USER_AGENT, {"user-agent": f"trio-llama-proxy/{__version__}"}),),
    ),
    Case(
        "receiver_of_start_and_end_is_told_both",
        telling(EVERYTHING, ["start", "completed"], expected=2),
    ),
    Case(
        "receiver_of_the_end_of_one_that_fails_is_told_its_output",
        telling("?events=2&thought=hm&end=cut", ["completed"], expected=1),
        (Differs(rows.EXCEPTION, {"told": [CUT_SHORT]}),),
    ),
    Case("receiver_of_the_end_of_one_that_is_canceled_is_told_its_output", canceled),
    Case("receiver_of_output_is_told_the_last_of_it", output),
    Case("receiver_of_nothing_is_told_nothing", telling(EVERYTHING, [], expected=0)),
    *(
        Case(
            f"receiver_that_{how}_is_told_the_end_again",
            telling("?events=1", ["completed"], *replies, expected=3),
        )
        for how, replies in {
            "answers_503_twice": (status(503), status(503)),
            "answers_429_and_500": (status(429), status(500)),
            "hangs_up_and_resets": (hang_up, reset),
        }.items()
    ),
    Case(
        "receiver_that_answers_404_is_not_told_again",
        telling("?events=1", ["completed"], status(404), expected=1),
    ),
    Case("receiver_that_is_slow_holds_nobody_up", dead),
)
