"""A prediction that runs: what it ends by, what it is then, and in which order that is told."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from proxy.core.causes import EndCause
from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.inputs import upstream_request
from proxy.core.predictions.prediction import Prediction
from proxy.core.predictions.requests import read_request
from proxy.core.predictions.webhooks import WebhookEvent
from proxy.predictions import live as live_module
from proxy.predictions.book import PredictionSettings
from proxy.predictions.line import Line
from proxy.predictions.live import LivePrediction, MadeFor
from proxy.runtime.exchange import Exchange
from tests.fakes.staged_engine import StagedEngine
from tests.left_behind import Leftovers
from tests.predictions.predicted import HEAD, Played, Predicted, before, piece, saying, until

START, OUTPUT, LOGS, COMPLETED = WebhookEvent


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


def create(server: Predicted, name: str = "p") -> LivePrediction:
    """Make one without a client."""
    request, asked = read_request(b"", None, name), upstream_request({"prompt": "a"})
    return server.book.create((None, name), request, asked, MadeFor.ITSELF, request_id="r7")


def lonely(made_for: MadeFor = MadeFor.ITSELF, *, max_output: int = 1000) -> LivePrediction:
    """Return one that runs nowhere."""
    exchange = Exchange("r", "/predictions", "POST", 0.0)
    return LivePrediction(Prediction("p", 0.0, EventLog(), max_output), exchange, made_for)


async def outcome(live: LivePrediction) -> tuple[object, object]:
    """Wait for its end; return status and error."""
    with trio.fail_after(10):
        await live.wait_ended()
    found = live.prediction.snapshot()
    return found["status"], found.get("error")


# -- what it ends by -------------------------------------------------------------------------------


async def test_whole_answer_is_a_success() -> None:
    """Its exchange is `finished`."""
    async with before(saying("b")) as server:
        assert await outcome(create(server)) == ("succeeded", None)
        assert server.causes == ["finished"]


@pytest.mark.parametrize(
    "cause",
    [EndCause.CLIENT_DISCONNECTED, EndCause.CANCELLED_BY_CLIENT, EndCause.CANCELLED_BY_ADMIN],
)
async def test_what_somebody_wanted_is_no_failure(cause: EndCause) -> None:
    """It is canceled, without an error, and llama-server's connection is closed."""
    played = Played()
    async with before(played) as server:
        live = create(server)
        await played.say(HEAD)
        live.end(cause)
        assert await outcome(live) == ("canceled", None)
        with trio.fail_after(5):
            await played.requests[0].closed.wait()
        assert server.causes == [cause.value]


async def test_first_cause_stays() -> None:
    """Who cancels what ends already changes nothing."""
    live = lonely()
    live.end(EndCause.CANCELLED_BY_ADMIN)
    live.end(EndCause.CANCELLED_BY_CLIENT)
    assert live.exchange.cause is EndCause.CANCELLED_BY_ADMIN


async def test_deadline_fails_it() -> None:
    """Whatever it is doing then."""
    async with before(Played(), PredictionSettings(request_timeout_s=0.05)) as server:
        status, error = await outcome(create(server))
        assert (status, server.causes) == ("failed", ["deadline_exceeded"])
    assert "longer than this server allows" in str(error)


async def test_queue_that_is_too_slow_fails_it() -> None:
    """It never began."""
    async with before(Played(), PredictionSettings(queue_timeout_s=0.05), slots=1) as server:
        ticket = server.backend.gate_for(gated=True, model=None).enter()
        status, error = await outcome(create(server))
        assert (status, server.causes) == ("failed", ["queue_timeout"])
        ticket.leave()
    assert "No slot became free in time" in str(error)


async def test_crash_fails_it_with_the_crash() -> None:
    """And the next one runs on the restarted engine."""
    played = Played()
    async with before(played) as server:
        engine = server.backend.engine
        assert isinstance(engine, StagedEngine)
        live = create(server)
        await played.say(HEAD, piece("b"))
        engine.crash()
        status, error = await outcome(live)
        assert (status, server.causes) == ("failed", ["upstream_crashed"])
        assert "llama-server crashed" in str(error)
        engine.launch()
        engine.load()
        second = create(server, name="q")
        await played.say(HEAD, number=1)
        await played.finish(1)
        assert await outcome(second) == ("succeeded", None)


async def test_shutdown_fails_one_that_waits() -> None:
    """What is in flight goes on."""
    played = Played()
    async with before(played, slots=1) as server:
        ticket = server.backend.gate_for(gated=True, model=None).enter()
        live = create(server)
        await trio.testing.wait_all_tasks_blocked()
        server.backend.shut_down()
        assert await outcome(live) == ("failed", "The server is shutting down.")
        ticket.leave()


async def test_shutdown_fails_one_whose_task_has_not_begun() -> None:
    """It is in no registry yet: the gate tells it."""
    async with before(Played(), slots=1) as server:
        ticket = server.backend.gate_for(gated=True, model=None).enter()
        live = create(server)
        server.backend.shut_down()
        assert await outcome(live) == ("failed", "The server is shutting down.")
        ticket.leave()


async def test_cancel_before_its_task_has_begun_is_remembered() -> None:
    """llama-server is never asked."""
    played = Played()
    async with before(played) as server:
        live = create(server)
        live.end(EndCause.CANCELLED_BY_CLIENT)
        assert await outcome(live) == ("canceled", None)
    assert played.requests == []


async def test_defect_fails_it_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of ours to its client; the log has the request's id and the traceback."""

    async def generate(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(live_module, "generate", generate)
    async with before(saying("b")) as server:
        assert await outcome(create(server)) == ("failed", "The proxy made a mistake.")
        assert server.causes == ["internal_error"]
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.__dict__["request_id"] == "r7"
    assert record.exc_info is not None


async def test_output_over_the_limit_fails_it() -> None:
    """With the limit, without the piece; llama-server is not read any further."""
    live = lonely(max_output=100)
    played = Played()
    async with before(played) as server:
        gate = server.backend.gate_for(gated=True, model=None)
        live.exchange.ticket = gate.enter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, live, server)
            await played.say(HEAD, piece("b"), piece("x" * 100))
        found = live.prediction.snapshot()
        assert (found["status"], found["output"]) == ("failed", ["b"])
        assert "over the limit of 100 bytes" in str(found["error"])
        with trio.fail_after(5):
            await played.requests[0].closed.wait()


async def _run(live: LivePrediction, server: Predicted) -> None:
    asked = upstream_request({"prompt": "a"})
    await live.run(server.backend, asked, queue_timeout_s=10, request_timeout_s=0)


async def test_how_it_ends_is_decided_before_it_has_ended() -> None:
    """Who cancels it in between finds nothing to cancel."""
    undecided, decided = lonely(), lonely()
    decided.end(EndCause.CANCELLED_BY_CLIENT)
    assert [undecided.ending, decided.ending] == [False, True]
    assert not decided.prediction.terminal


# -- the order of its end --------------------------------------------------------------------------


async def test_permit_is_back_before_anybody_is_told() -> None:
    """Who then asks for the next one finds the slot free: never a false 409."""
    async with before(saying("b"), slots=1) as server:
        live = create(server)
        admitted = list[int]()

        def note(event: WebhookEvent) -> None:
            if event is COMPLETED:
                gate = server.backend.gate_for(gated=True, model=None)
                admitted.append(gate.statistics().admitted)
                assert live.exchange.upstream is None

        live.on_event = note
        await outcome(live)
        await until(lambda: server.book.live((None, "p")) is None)
    assert admitted == [0]


async def test_webhooks_are_told_of_each_kind_in_order() -> None:
    """The last one is `completed`, once."""
    async with before(saying("b", "c")) as server:
        live, events = create(server), list[WebhookEvent]()
        live.on_event = events.append
        await outcome(live)
    assert events == [START, OUTPUT, OUTPUT, COMPLETED]


async def test_thoughts_are_told_as_logs() -> None:
    """They have a kind of their own."""
    live, events = lonely(), list[WebhookEvent]()
    live.began()
    live.on_event = events.append
    live.thought("hm")
    assert events == [LOGS]
    assert live.prediction.snapshot()["logs"] == "hm"


# -- who waits for it ------------------------------------------------------------------------------


class Noting(Line):
    """A line that only notes what reaches it."""

    def __init__(self) -> None:
        super().__init__(EventLog().subscribe(), None)
        self.heard: list[str] = []

    def deliver(self) -> None:
        """Take that there is news."""
        self.heard.append("news")

    def wake(self) -> None:
        """Take that it has ended."""
        self.heard.append("end")


async def test_news_reaches_everybody_once_for_all_that_came_together() -> None:
    """The beginning and the metrics by themselves; output when it is said that this was all."""
    live, lines = lonely(), [Noting(), Noting()]
    with live.heard_on(lines[0]), live.heard_on(lines[1]):
        live.began()
        live.said("b")
        live.thought("c")
        assert [line.heard for line in lines] == [["news"]] * 2
        live.flush()
        live.measured({"a": 1})
    live.flush()
    assert [line.heard for line in lines] == [["news"] * 3] * 2


async def test_end_wakes_everybody() -> None:
    """Who follows it, whose task has the rest to do, and who only waits."""
    line = Noting()
    async with before(Played()) as server:
        live = create(server)
        with live.heard_on(line):
            live.end(EndCause.CANCELLED_BY_CLIENT)
            await outcome(live)
            with trio.fail_after(1):
                await live.wait_ended()
    assert line.heard[-1] == "end"


@pytest.mark.parametrize(
    ("made_for", "cause"),
    [
        (MadeFor.CALLER, EndCause.CLIENT_DISCONNECTED),
        (MadeFor.FOLLOWERS, None),
        (MadeFor.ITSELF, None),
    ],
)
async def test_caller_that_leaves_ends_what_was_made_for_it(
    made_for: MadeFor, cause: EndCause | None
) -> None:
    """And nothing else."""
    live = lonely(made_for)
    live.caller_left()
    assert live.exchange.cause is cause


@pytest.mark.parametrize(
    ("made_for", "left", "cause"),
    [
        (MadeFor.FOLLOWERS, True, EndCause.CLIENT_DISCONNECTED),
        (MadeFor.FOLLOWERS, False, None),
        (MadeFor.CALLER, True, None),
        (MadeFor.ITSELF, True, None),
    ],
)
async def test_last_follower_that_leaves_ends_what_was_made_for_them(
    made_for: MadeFor, left: bool, cause: EndCause | None
) -> None:
    """If it went by itself; unfollowing again changes nothing."""
    live = lonely(made_for)
    cursor = live.prediction.log.subscribe()
    live.unfollow(cursor, left=left)
    live.unfollow(cursor, left=left)
    assert live.exchange.cause is cause
    assert live.prediction.log.subscribers == 0
