"""The predictions there are: their ids, how long they are kept, and what of them is still to do."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from proxy.core.causes import EndCause
from proxy.core.predictions.inputs import upstream_request
from proxy.core.predictions.refusals import AtCapacity, IdInUse, NotSetUp
from proxy.core.predictions.requests import PredictionRequest, read_request
from proxy.core.predictions.retention import KEEP_S
from proxy.core.predictions.webhooks import ALL_EVENTS, check_url
from proxy.predictions import book as book_module
from proxy.predictions.book import Place, PredictionBook, PredictionSettings
from proxy.predictions.live import LivePrediction, MadeFor
from proxy.predictions.reporting import ReportSettings
from proxy.runtime.backend import Backend
from proxy.runtime.task_tree import task_tree
from tests.fakes.scripted_server import read_head
from tests.fakes.staged_engine import StagedEngine
from tests.fakes.webhook_receiver import WebhookReceiver, after, stall, webhook_receiver
from tests.predictions.predicted import (
    END,
    HEAD,
    STREAM,
    Played,
    Predicted,
    before,
    follow,
    frames,
    piece,
    saying,
    until,
)
from tests.promises.wire import wire

OURS = PredictionSettings(reports=ReportSettings(allow_private=True))
MINE = (None, "p")


def create(
    book: PredictionBook, place: Place = MINE, receiver: WebhookReceiver | None = None
) -> LivePrediction:
    """Make a prediction that runs on its own."""
    request = read_request(b"", None, place[1])
    if receiver is not None:
        url = check_url(receiver.url, allow_private=True)
        request = PredictionRequest(place[1], {}, url, ALL_EVENTS)
    asked = upstream_request({"prompt": "a"})
    return book.create(place, request, asked, MadeFor.ITSELF, request_id="r")


async def end(book: PredictionBook, place: Place = MINE) -> None:
    """End one at once, and wait until it is kept."""
    live = book.live(place)
    assert live is not None
    live.end(EndCause.CANCELLED_BY_CLIENT)
    await trio.testing.wait_all_tasks_blocked()
    assert book.live(place) is None


@asynccontextmanager
async def waiting(**options: int) -> AsyncIterator[PredictionBook]:
    """Run a book all of whose predictions wait for the only slot: nothing here needs a socket."""
    backend = Backend(StagedEngine(slots=1), max_queue=options.get("max_queue", 4))
    ticket = backend.gate_for(gated=True, model=None).enter()
    book = PredictionBook(backend)
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        yield book
        nursery.cancel_scope.cancel()
    ticket.leave()
    found = backend.gate_for(gated=True, model=None).statistics()
    assert (found.admitted, found.queued, len(backend.exchanges)) == (0, 0, 0)


# -- ids -------------------------------------------------------------------------------------------


async def test_id_of_a_running_prediction_is_in_use() -> None:
    """Nothing else can have it, and nothing is held for who wanted it."""
    async with waiting() as book:
        create(book)
        with pytest.raises(IdInUse):
            create(book)
        assert book.counts == {"starting": 1}


async def test_id_of_a_kept_prediction_is_in_use() -> None:
    """Whoever asks with it gets that one."""
    async with waiting() as book:
        create(book)
        await end(book)
        with pytest.raises(IdInUse):
            create(book)


async def test_id_belongs_to_a_key() -> None:
    """The same id of another key is another prediction."""
    async with waiting() as book:
        mine, yours = create(book, ("a", "p")), create(book, ("b", "p"))
        assert (book.live(("a", "p")), book.live(("b", "p"))) == (mine, yours)
        assert book.live(MINE) is None
        await end(book, ("a", "p"))
        assert book.finished(("a", "p")) is mine.prediction
        assert book.finished(("b", "p")) is None


async def test_nothing_can_be_made_before_the_book_runs() -> None:
    """A mistake of ours is seen as one: a prediction without a task would never end."""
    book = PredictionBook(Backend(StagedEngine(), max_queue=4))
    with pytest.raises(RuntimeError, match="not running"):
        create(book)


# -- refusals --------------------------------------------------------------------------------------


async def test_full_queue_refuses_and_keeps_nothing() -> None:
    """The id is free again."""
    async with waiting(max_queue=1) as book:
        create(book)
        with pytest.raises(AtCapacity) as refused:
            create(book, (None, "q"))
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s >= 1
        assert book.live((None, "q")) is None


async def test_engine_that_loads_refuses_and_keeps_nothing() -> None:
    """Predictions wait for a slot, not for a model."""
    book = PredictionBook(Backend(StagedEngine(ready=False), max_queue=4))
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        with pytest.raises(NotSetUp):
            create(book)
        assert book.counts == {}
        nursery.cancel_scope.cancel()


async def test_defect_in_the_making_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be lost until the next start."""

    def defect(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(book_module, "describe_request", defect)
    async with waiting() as book:
        with pytest.raises(ZeroDivisionError):
            create(book)


async def test_engine_that_crashed_lets_predictions_wait() -> None:
    """It comes back: the next one runs on it."""
    engine = StagedEngine()
    async with trio.open_nursery() as nursery:
        book = PredictionBook(Backend(engine, max_queue=4))
        await nursery.start(book.run)
        engine.crash()
        create(book)
        assert book.counts == {"starting": 1}
        nursery.cancel_scope.cancel()


# -- keeping ---------------------------------------------------------------------------------------


async def test_ended_prediction_is_kept_for_ten_minutes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Then it is let go, without anybody asking for it."""
    async with waiting() as book:
        create(book)
        await end(book)
        await trio.sleep(KEEP_S - 1)
        assert book.finished(MINE) is not None
        await trio.sleep(2)
        assert book.finished(MINE) is None
        assert book.counts == {}


async def test_later_predictions_expire_each_at_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Those that ended while another one was kept, and those after all were gone."""
    async with waiting() as book:
        create(book, (None, "a"))
        await end(book, (None, "a"))
        await trio.sleep(100)
        create(book, (None, "b"))
        await end(book, (None, "b"))
        await trio.sleep(KEEP_S - 50)
        assert book.counts == {"canceled": 1}
        await trio.sleep(100)
        create(book, (None, "c"))
        await end(book, (None, "c"))
        assert book.counts == {"canceled": 1}
        await trio.sleep(KEEP_S + 1)
        assert book.counts == {}


async def test_id_of_an_expired_prediction_is_free(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It runs again."""
    async with waiting() as book:
        create(book)
        await end(book)
        await trio.sleep(KEEP_S)
        assert create(book) is book.live(MINE)


async def test_prediction_is_kept_in_the_step_in_which_it_ends() -> None:
    """There is no moment at which its id is free: a PUT then would run it again."""
    async with waiting() as book:
        live = create(book)
        seen = list[bool]()

        async def look() -> None:
            await live.wait_ended()
            seen.append(book.live(MINE) is None and book.finished(MINE) is live.prediction)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            live.end(EndCause.CANCELLED_BY_CLIENT)
        assert seen == [True]


async def test_counts_are_by_status() -> None:
    """Of those that run and of those that are kept."""
    async with waiting() as book:
        for name in "abc":
            create(book, (None, name))
        await end(book, (None, "a"))
        assert book.counts == {"starting": 2, "canceled": 1}


# -- history ---------------------------------------------------------------------------------------


async def test_history_bounds_what_who_comes_late_is_sent() -> None:
    """They are told how much they have missed."""
    settings = PredictionSettings(history=2)
    async with before(saying("b", "c"), settings) as server:
        await server.ask("/predictions", id="p")
        (found,) = frames((await server.ask("/predictions/p", STREAM, method="PUT")).body)
    assert (found.name, found.data["skipped"]) == ("error", 5)


async def test_without_history_nothing_is_replayed() -> None:
    """Who joins gets what is yet to come; the first subscriber gets everything."""
    played = Played()
    async with (
        before(played, PredictionSettings(history=0)) as server,
        wire(server.port) as first,
        wire(server.port) as late,
    ):
        await follow(first)
        await played.say(HEAD, piece("b"))
        await first.read_until(b"event: output")
        await follow(late)
        await until(lambda: server.subscribers("p") == 2)
        await played.finish()
        assert b"event: start" in await first.read_to_end()
        received = await late.read_to_end()
    assert b"event: completed" in received
    assert b"event: output" not in received


# -- the end of all --------------------------------------------------------------------------------


async def test_wait_none_left_returns_at_once_where_there_is_none() -> None:
    """An idle proxy stops at once."""
    async with waiting() as book:
        with trio.fail_after(1):
            await book.wait_none_left()


async def test_wait_none_left_waits_for_the_last_one() -> None:
    """However many wait, and again when there was one since."""
    async with waiting() as book:
        for _ in range(2):
            for name in "ab":
                create(book, (None, name + str(trio.current_time()).replace(".", "-")))
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(book.wait_none_left)
                await trio.testing.wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 2
                for place in list(book._live):
                    await end(book, place)


async def test_wait_none_left_waits_for_the_webhook() -> None:
    """What has ended may still be told to its receiver."""
    async with webhook_receiver() as receiver, before(saying("b"), OURS) as server:
        answer = trio.Event()
        receiver.replies = [after(answer)] * 3
        create(server.book, receiver=receiver)
        await server.kept("p")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.book.wait_none_left)
            await receiver.wait_deliveries(1)
            assert len(nursery.child_tasks) == 1
            answer.set()
    assert receiver.told[-1]["status"] == "succeeded"


async def test_predictions_fail_with_the_book() -> None:
    """Cancelled, it leaves nothing that runs, waits, or holds a place in the queue."""
    async with waiting() as book:
        live = create(book)
    assert live.prediction.snapshot()["error"] == "The server is shutting down."
    assert book.counts == {"failed": 1}


async def test_prediction_with_a_webhook_fails_with_the_book_too() -> None:
    """Also where it is cancelled before its receiver could be told of anything."""
    async with webhook_receiver() as receiver:
        async with waiting() as book:
            live = create(book, receiver=receiver)
        assert live.prediction.terminal
        assert book.live(MINE) is None


async def test_prediction_is_in_the_task_tree_by_its_id() -> None:
    """The operator sees which one it is."""
    async with waiting() as book:
        create(book)
        assert "prediction p" in str(task_tree())


# -- webhooks --------------------------------------------------------------------------------------


def given_up(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is logged of webhooks that are too many."""
    return [text for text in caplog.messages if text.startswith("too many webhooks")]


async def tell_nobody(server: Predicted, receiver: WebhookReceiver, name: str) -> None:
    """Let a prediction end whose receiver answers nothing."""
    receiver.replies = [stall] * 3
    create(server.book, (None, name), receiver)
    await server.kept(name)


async def test_webhook_that_is_one_too_many_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one line in the log: a dead receiver takes no more memory than so many predictions."""
    monkeypatch.setattr(book_module, "_MAX_ONLY_TELLING", 2)
    async with webhook_receiver() as receiver, before(saying("b"), OURS) as server:
        for name in "ab":
            await tell_nobody(server, receiver, name)
        assert given_up(caplog) == []
        await tell_nobody(server, receiver, "c")
        await until(lambda: server.book._tasks == 2)
        assert len(given_up(caplog)) == 1
        # Those that are left are given up, for the end of the test.
        assert server.book._nursery is not None
        server.book._nursery.cancel_scope.cancel()


async def test_webhooks_that_hold_too_much_are_one_too_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the bytes of those that wait; one that is alone may have any size."""
    monkeypatch.setattr(book_module, "_MAX_TELLING_BYTES", 1000)
    async with webhook_receiver() as receiver, before(saying("b" * 2000), OURS) as server:
        await tell_nobody(server, receiver, "a")
        assert given_up(caplog) == []
        await tell_nobody(server, receiver, "b")
        await until(lambda: server.book._tasks == 1)
        assert len(given_up(caplog)) == 1
        assert server.book._nursery is not None
        server.book._nursery.cancel_scope.cancel()


async def test_webhooks_that_were_told_make_room(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was delivered is held no more."""
    monkeypatch.setattr(book_module, "_MAX_ONLY_TELLING", 1)
    async with webhook_receiver() as receiver, before(saying("b"), OURS) as server:
        for name in "abc":
            create(server.book, (None, name), receiver)
            await server.kept(name)
            await server.book.wait_none_left()
    assert given_up(caplog) == []


async def test_prediction_without_a_webhook_gives_none_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many others wait for their receivers."""
    monkeypatch.setattr(book_module, "_MAX_ONLY_TELLING", 0)
    async with before(saying("b"), OURS) as server:
        assert (await server.ask("/predictions")).status == 200
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


# -- a router's slots ------------------------------------------------------------------------------


async def test_slots_of_a_routers_model_are_learned_from_its_first_prediction() -> None:
    """Else its predictions would run one at a time for ever."""
    asked = list[bytes]()
    props = b'{"total_slots":3}'

    async def router(stream: trio.abc.Stream) -> None:
        head = await read_head(stream)
        asked.append(head.split(b"\r\n")[0])
        if head.startswith(b"GET"):
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(props), props)
            )
        else:
            await stream.send_all(HEAD + piece("b") + END)

    async with before(router, router=True) as server:
        for _ in range(2):
            await server.ask("/predictions", input={"prompt": "a", "model": "m"})
            await server.book.wait_none_left()
        assert server.backend.gates["m"].statistics().permits == 3
    assert [line.split(b" ")[1] for line in asked] == [
        *(b"/completion", b"/props?model=m", b"/completion"),
    ]
