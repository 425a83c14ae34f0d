"""The backend: how the engine's state moves the gates and ends the exchanges."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import proxy
from proxy.core.causes import EndCause
from proxy.core.errors import NotFound, QueueFull, Unavailable
from proxy.core.lifecycle import EngineState, ExitStatus
from proxy.runtime import backend as backend_module
from proxy.runtime.backend import LOADING, STOPPING, Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.gate import Gate, GateStatistics, Ticket
from proxy.runtime.outbound import ControlClient
from proxy.runtime.upstream import UpstreamConnection
from proxy.runtime.wires import PlainWire
from tests.fakes.engines import fake_engine
from tests.fakes.engines import running as fake_running
from tests.fakes.scripted_server import answering, read_head, scripted_server
from tests.fakes.staged_engine import StagedEngine, external_engine
from tests.promises.observe import until
from tests.promises.wire import wire

PATIENCE_S = 10.0


def made(engine: StagedEngine, **settings: object) -> Backend:
    """Return a backend with a short queue."""
    options: dict[str, object] = {"max_queue": 4, "drain_s": 0.0, **settings}
    return Backend(engine, **options)  # type: ignore[arg-type]


def slot_gate(backend: Backend, model: str | None = None) -> Gate:
    """Return the gate of a route that uses a slot."""
    return backend.gate_for(gated=True, model=model)


def passage(backend: Backend) -> Gate:
    """Return the gate of every other route."""
    return backend.gate_for(gated=False, model=None)


def on_engine(backend: Backend) -> Exchange:
    """Return an exchange that talks to the current launch; the caller registers it."""
    exchange = Exchange("r", "/x", "POST", trio.current_time())
    exchange.generation = backend.engine.generation
    return exchange


@asynccontextmanager
async def connection() -> AsyncIterator[UpstreamConnection]:
    """Give a connection to nobody."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    found = UpstreamConnection(PlainWire(ours))
    yield found
    found.close()
    theirs.close()


async def admitted(ticket: Ticket) -> None:
    """Wait for a permit that has to come."""
    with trio.fail_after(PATIENCE_S):
        await ticket.wait_admitted()


# -- moods -----------------------------------------------------------------------------------------


def test_ready_engine_opens_the_gate_with_its_slots() -> None:
    """A permit for each; routes that use none pass without a bound."""
    backend = made(StagedEngine(slots=2))
    assert slot_gate(backend).statistics().permits == 2
    assert passage(backend).statistics().permits is None
    assert backend.obstacle() is None


@pytest.mark.parametrize(("slots", "permits"), [(5, 5), (None, None)])
def test_engine_that_tells_no_slots_has_those_of_the_option(
    slots: int | None, permits: int | None
) -> None:
    """Without the option there is no bound."""
    backend = made(StagedEngine(slots=None), slots=slots)
    assert slot_gate(backend).statistics().permits == permits


def test_engine_that_tells_its_slots_is_believed_over_the_option() -> None:
    """It knows."""
    assert slot_gate(made(StagedEngine(slots=2), slots=5)).statistics().permits == 2


@pytest.mark.parametrize("find", [slot_gate, passage])
async def test_first_load_refuses_in_llama_servers_words(find: Callable[[Backend], Gate]) -> None:
    """Nobody waits for a load that may take minutes; when it is done, everybody is let in."""
    engine = StagedEngine(ready=False)
    backend = made(engine)
    with pytest.raises(Unavailable, match=LOADING) as refused:
        find(backend).enter()
    assert refused.value.retry_after_s is not None
    assert not backend.first_ready.is_set()
    engine.load()
    assert backend.first_ready.is_set()
    await admitted(find(backend).enter())


@pytest.mark.parametrize("find", [slot_gate, passage])
async def test_crash_lets_everybody_wait_for_the_next_launch(
    find: Callable[[Backend], Gate],
) -> None:
    """Who comes in between is served by it."""
    engine = StagedEngine()
    backend = made(engine)
    engine.crash()
    ticket = find(backend).enter()
    engine.launch()
    assert ticket.position == 1
    engine.load()
    await admitted(ticket)


async def test_crash_ends_the_exchanges_on_that_launch_alone() -> None:
    """Each is told how it died; who is queued stays."""
    engine = StagedEngine()
    backend = made(engine)
    served, queued = on_engine(backend), on_engine(backend)
    queued.generation = None
    with backend.exchanges.open(served), backend.exchanges.open(queued):
        engine.crash(-11)
        assert served.cause is EndCause.UPSTREAM_CRASHED
        assert "signal 11 (SIGSEGV)" in str(served.reply())
        assert queued.cause is None


async def test_failed_engine_refuses_with_the_reason_and_the_log() -> None:
    """Without the folders in it; who waits is told too; a restart opens the gates again."""
    engine = StagedEngine()
    backend = made(engine)
    engine.crash()
    waiting = slot_gate(backend).enter()
    engine.give_up()
    with pytest.raises(Unavailable, match="has failed: It crash-looped") as refused:
        await admitted(waiting)
    assert refused.value.log_tail == ("loading tiny.gguf",)
    with pytest.raises(Unavailable):
        passage(backend).enter()
    await engine.restart()
    ticket = slot_gate(backend).enter()
    engine.load()
    await admitted(ticket)


def test_failed_engine_tells_its_last_lines_alone() -> None:
    """Clients get ten; the operator has the rest."""
    engine = StagedEngine()
    backend = made(engine)
    engine.crash()
    engine.give_up(proxy.EngineFailed("x", tuple(str(n) for n in range(50))))
    found = backend.unavailable()
    assert isinstance(found, Unavailable)
    assert found.log_tail == tuple(str(n) for n in range(40, 50))


async def test_stopping_engine_lets_wait() -> None:
    """It may be a restart."""
    engine = StagedEngine()
    backend = made(engine)
    engine.begin_stop()
    assert slot_gate(backend).enter().position == 1
    assert "restarting" in str(backend.obstacle())


async def test_shut_down_refuses_who_comes_and_who_waits() -> None:
    """Who holds a permit goes on; a crash meanwhile changes no word of it."""
    engine = StagedEngine(slots=1)
    backend = made(engine)
    served, waiting = slot_gate(backend).enter(), slot_gate(backend).enter()
    backend.shut_down()
    engine.crash()
    with pytest.raises(Unavailable, match=STOPPING):
        await admitted(waiting)
    with pytest.raises(Unavailable, match=STOPPING):
        passage(backend).enter()
    await admitted(served)


def test_slot_gate_that_is_full_says_when_to_come_again() -> None:
    """From the counts of the moment."""
    backend = made(StagedEngine(slots=1), max_queue=1)
    gate = slot_gate(backend)
    gate.enter()
    gate.enter()
    with pytest.raises(QueueFull) as refused:
        gate.enter()
    assert refused.value.status == 429
    assert refused.value.retry_after_s == 10


async def test_backend_that_has_ended_leaves_the_engine_alone() -> None:
    """It watches no more: the engine may serve another."""
    engine = StagedEngine()
    backend = made(engine)
    gate = slot_gate(backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    engine.crash()
    assert gate.enter().position == 0


# -- router ----------------------------------------------------------------------------------------


def test_without_a_router_all_models_share_one_gate() -> None:
    """The name in the body means nothing then."""
    backend = made(StagedEngine())
    assert slot_gate(backend, "a") is slot_gate(backend, "b") is slot_gate(backend, None)
    assert list(backend.gates) == [""]
    assert backend.knows_slots("a")


def test_router_has_a_gate_for_each_model_with_one_permit_at_first() -> None:
    """The first request loads the model, and nothing is known before."""
    backend = made(StagedEngine(slots=8), router=True)
    assert slot_gate(backend, "a") is slot_gate(backend, "a")
    assert slot_gate(backend, "a") is not slot_gate(backend, "b")
    assert slot_gate(backend, "a").statistics().permits == 1
    assert not backend.knows_slots("a")


async def test_router_model_gets_its_slots_once_they_are_learned() -> None:
    """Who waited is let in; another model's gate stays."""
    backend = made(StagedEngine(), router=True)
    slot_gate(backend, "a").enter()
    waiting = slot_gate(backend, "a").enter()
    slot_gate(backend, "b")
    backend.learn_slots("a", 3)
    await admitted(waiting)
    assert backend.knows_slots("a")
    assert {name: gate.statistics().permits for name, gate in backend.gates.items()} == {
        "a": 3,
        "b": 1,
    }


def test_router_restart_keeps_what_was_learned() -> None:
    """A model has the same slots in the next launch."""
    engine = StagedEngine()
    backend = made(engine, router=True)
    slot_gate(backend, "a")
    backend.learn_slots("a", 3)
    engine.crash()
    assert slot_gate(backend, "a").statistics().permits == 0
    engine.launch()
    engine.load()
    assert slot_gate(backend, "a").statistics().permits == 3


def test_router_forgets_models_that_nobody_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any name may be asked for: their number is bounded, and who is served keeps the gate."""
    monkeypatch.setattr(backend_module, "MAX_MODEL_GATES", 3)
    backend = made(StagedEngine(), router=True)
    used = slot_gate(backend, "used")
    used.enter()
    for number in range(20):
        slot_gate(backend, str(number))
        backend.learn_slots(str(number), 2)
        assert len(backend.gates) <= 3
    assert slot_gate(backend, "used") is used
    assert not backend.knows_slots("0")


@pytest.mark.parametrize(
    ("props", "permits"),
    [({"total_slots": 3}, 3), ({"total_slots": 0}, 1), ({}, 1), ([], 1)],
    ids=["told", "none", "silent", "strange"],
)
async def test_ask_slots_believes_a_number_alone(props: object, permits: int) -> None:
    """Anything else leaves one permit, and is asked for again."""
    body = json.dumps(props).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    engine = StagedEngine()
    backend = made(engine, router=True)
    with trio.fail_after(PATIENCE_S):
        async with scripted_server(answering(reply)) as engine.told_address:
            slot_gate(backend, "a b")
            await backend.ask_slots("a b")
    assert slot_gate(backend, "a b").statistics().permits == permits
    assert backend.knows_slots("a b") == (permits == 3)


async def test_ask_slots_asks_for_the_model_by_its_name() -> None:
    """The name is the client's, so it is encoded."""
    arrived = list[bytes]()

    async def keep(stream: trio.abc.Stream) -> None:
        arrived.append(await read_head(stream))

    engine = StagedEngine()
    with trio.fail_after(PATIENCE_S):
        async with scripted_server(keep) as engine.told_address:
            await made(engine, router=True).ask_slots("a&b/c d")
    assert arrived[0].startswith(b"GET /props?model=a%26b%2Fc+d HTTP/1.1\r\n")


async def test_ask_slots_without_an_answer_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's request fails for it: nobody there, or one that does not answer in time."""
    monkeypatch.setattr(backend_module, "_QUESTION_S", 0.05)
    engine = StagedEngine()
    backend = made(engine, router=True)
    with trio.fail_after(PATIENCE_S):
        await backend.ask_slots("a")
        async with scripted_server(answering(stay=True)) as engine.told_address:
            await backend.ask_slots("a")
    assert not backend.knows_slots("a")


# -- restart ---------------------------------------------------------------------------------------


async def test_restart_waits_for_the_drain_and_lets_nobody_in() -> None:
    """Who is served finishes; who comes meanwhile waits for the next launch."""
    engine = StagedEngine()
    backend = made(engine, drain_s=PATIENCE_S)
    served = on_engine(backend)
    async with connection() as served.upstream, trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        with backend.exchanges.open(served):
            backend.request_restart()
            backend.request_restart()
            await trio.testing.wait_all_tasks_blocked()
            assert engine.restarts_asked == 0
            ticket = slot_gate(backend).enter()
            assert ticket.position == 1
        await trio.testing.wait_all_tasks_blocked()
        assert (engine.restarts_asked, served.cause) == (1, None)
        engine.load()
        await admitted(ticket)
        nursery.cancel_scope.cancel()


async def test_restart_ends_what_outlasts_the_drain() -> None:
    """It is told that an administrator asked for it; who is queued stays."""
    engine = StagedEngine()
    backend = made(engine)
    served, queued = on_engine(backend), on_engine(backend)
    queued.generation = None
    async with connection() as served.upstream, trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        with backend.exchanges.open(queued):
            with backend.exchanges.open(served), served.scope:
                backend.request_restart()
                await trio.sleep_forever()
            await trio.testing.wait_all_tasks_blocked()
            assert served.cause is EndCause.UPSTREAM_ERROR
            assert "administrator" in str(served.reply())
            assert (queued.cause, engine.restarts_asked) == (None, 1)
        nursery.cancel_scope.cancel()


async def test_restart_can_be_asked_for_again() -> None:
    """Each time it is carried out once."""
    engine = StagedEngine()
    backend = made(engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        for count in (1, 2):
            backend.request_restart()
            await trio.testing.wait_all_tasks_blocked()
            assert engine.restarts_asked == count
            engine.load()
        nursery.cancel_scope.cancel()


async def test_restart_of_an_engine_that_is_stopping_is_not_begun() -> None:
    """Its owner ends it."""
    engine = StagedEngine()
    backend = made(engine)
    engine.begin_stop()
    backend.request_restart()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert engine.restarts_asked == 0


async def test_restart_of_an_engine_that_has_ended_is_refused() -> None:
    """Its owner has stopped it for good."""
    engine = StagedEngine()
    backend = made(engine)
    engine.finish()
    with pytest.raises(Unavailable, match="stopped"):
        backend.request_restart()


async def test_engine_that_ends_before_its_restart_does_not_end_the_proxy() -> None:
    """An administrator's request brings nothing down."""
    engine = StagedEngine()
    backend = made(engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        backend.request_restart()
        engine.finish()
        await trio.testing.wait_all_tasks_blocked()
        assert (engine.restarts_asked, engine.state) == (1, EngineState.STOPPED)
        nursery.cancel_scope.cancel()


async def test_engine_of_somebody_else_is_not_managed() -> None:
    """Its log and its restart are not ours."""
    backend = Backend(external_engine(slots=3), max_queue=1)
    assert slot_gate(backend).statistics() == GateStatistics(permits=3, admitted=0, queued=0)
    with pytest.raises(NotFound, match="somebody else"):
        backend.request_restart()


# -- crash or not ----------------------------------------------------------------------------------


async def test_crashed_says_yes_for_a_launch_that_has_ended() -> None:
    """At once, whether another one runs already or not."""
    engine = StagedEngine()
    backend = made(engine)
    engine.crash()
    with trio.fail_after(PATIENCE_S):
        assert await backend.crashed(1)
        engine.launch()
        assert await backend.crashed(1)


async def test_crashed_waits_a_moment_for_the_report() -> None:
    """The sockets of a dying process are closed before its end is reported."""
    engine = StagedEngine()
    backend = made(engine)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            assert await backend.crashed(1)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        # The moment before it is reported; the engine tells of it within `crash`.
        engine.crash()


async def test_crashed_says_no_when_no_report_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then only the connection broke."""
    monkeypatch.setattr(backend_module, "_EXIT_REPORT_S", 0.01)
    assert not await made(StagedEngine()).crashed(1)
    assert not await Backend(external_engine(), max_queue=0).crashed(1)


def test_crash_error_without_an_exit_names_none() -> None:
    """The end of somebody else's process is not seen."""
    engine = StagedEngine()
    assert str(made(engine).crash_error()) == "llama-server crashed during the exchange."
    engine.last_exit = ExitStatus(1)
    assert "(exit code 1)" in str(made(engine).crash_error())


# -- conversations ---------------------------------------------------------------------------------

CHAT = "/v1/chat/completions"
STREAM = {"messages": [{"role": "user", "content": "Go on."}], "stream": True}


async def requests_at(engine: proxy.LlamaServer, key: str) -> list[list[str]]:
    """Return the requests that the fake got."""
    control = ControlClient(engine.address, key)
    found = await control.get_json("/fake/state")
    assert isinstance(found, dict)
    return found["requests"]


@pytest.mark.parametrize("forward", [True, False], ids=["forwarded", "not forwarded"])
async def test_conversation_that_a_deadline_ends_is_ended_at_llama_server_too(
    forward: bool,
) -> None:
    """It would go on generating; without the option it was never told of a conversation."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(
            engine, port=0, request_timeout_s=0.1, forward_conversation_id=forward
        ) as server,
        wire(server.port) as client,
    ):
        fields = ("X-Conversation-Id: a b/c", "Connection: close")
        await client.post(f"{CHAT}?first_s=600", STREAM, *fields)
        assert (await client.read_to_end()).startswith(b"HTTP/1.1 504")
        deleted = ["DELETE", "/v1/stream?conv_id=a+b%2Fc"]
        assert (deleted in await requests_at(engine, engine.api_key)) == forward


async def test_conversation_whose_client_leaves_goes_on() -> None:
    """That is what it is for: the client will come back."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, forward_conversation_id=True) as server,
        wire(server.port) as client,
    ):
        await client.post(f"{CHAT}?events=2&end=hang", STREAM, "X-Conversation-Id: a")
        await client.read_until(b'"content"')
        client.fin()
        await until(lambda: server.in_flight == 0)
        asked = await requests_at(engine, engine.api_key)
        assert "DELETE" not in [method for method, _ in asked]


async def test_end_conversation_at_nobody_is_silent() -> None:
    """The engine may have gone with it."""
    await made(StagedEngine()).end_conversation("a")
