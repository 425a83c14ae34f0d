"""The operator's routes, over real sockets: exchanges, the log, a restart, the task tree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio

from proxy.core.access import AccessPolicy
from proxy.core.causes import EndCause, Phase
from proxy.core.keyring import Keyring
from proxy.core.whole_events import SentCounts
from proxy.http1.asgi import AsgiApp
from proxy.relay.front_door import FrontDoor
from proxy.runtime.backend import Backend, Engine
from proxy.runtime.exchange import Exchange
from proxy.web import operator as operator_module
from proxy.web.main_routes import MainRoutes
from proxy.web.operator import make_operator_app
from proxy.web.vitals import Vitals
from tests.fakes.staged_engine import StagedEngine, external_engine
from tests.http1.guarded import Guarded, echo, guarded
from tests.promises.wire import wire
from tests.web.wire import Answer, Sent, ask_port


@asynccontextmanager
async def operated(
    engine: Engine, *, response_timeout_s: float | None = None
) -> AsyncIterator[tuple[Guarded, Backend]]:
    """Serve the operator's routes of a backend, behind the front door."""
    backend = Backend(engine, max_queue=4, drain_s=0)
    app = make_operator_app(backend)
    assert isinstance(app, QuartTrio)
    if response_timeout_s is not None:
        app.config["RESPONSE_TIMEOUT"] = response_timeout_s
    routes = MainRoutes(
        vitals=Vitals(backend),
        operator=cast(AsgiApp, app),
        tokens=echo,
        predictions=echo,
        status=echo,
        files=echo,
        relay=echo,
    )
    door = FrontDoor(AccessPolicy(keyring=Keyring(())), routes.choose)
    async with guarded(door) as server, trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        yield server, backend
        nursery.cancel_scope.cancel()


async def ask(server: Guarded, method: str, path: str, *fields: str) -> Answer:
    """Ask for a route."""
    return await ask_port(server.port, Sent(method, path, fields))


def told(answer: Answer) -> Any:
    """Return the JSON of an answer that must not be cached."""
    assert answer.one("Content-Type") == "application/json"
    assert answer.one("Cache-Control") == "no-store"
    return json.loads(answer.body)


# -- exchanges -------------------------------------------------------------------------------------


async def test_exchanges_shows_each_with_its_place() -> None:
    """Phase, place in the queue, time and bytes."""
    async with operated(StagedEngine(slots=1)) as (server, backend):
        now, gate = trio.current_time(), backend.gate_for(gated=True, model=None)
        served = Exchange(
            "a", "/completion", "POST", now, phase=Phase.DECODE, sent=SentCounts(bytes=7)
        )
        queued = Exchange("b", "/v1/messages", "POST", now)
        served.ticket, queued.ticket = gate.enter(), gate.enter()
        beside = Exchange("c", "/tokenize", "POST", now)
        registry = backend.exchanges
        with registry.open(served), registry.open(queued), registry.open(beside):
            found = told(await ask(server, "GET", "/proxy/exchanges"))["exchanges"]
    assert [each.pop("elapsed_s") >= 0 for each in found] == [True] * 3
    assert found == [
        _view("a", "/completion", "decode", 0, 7),
        _view("b", "/v1/messages", "queued", 1, 0),
        _view("c", "/tokenize", "queued", 0, 0),
    ]


def _view(request_id: str, route: str, phase: str, position: int, sent: int) -> dict[str, object]:
    return {
        "request_id": request_id,
        "method": "POST",
        "route": route,
        "phase": phase,
        "position": position,
        "bytes": sent,
        "cause": None,
    }


async def test_delete_exchange_ends_all_with_that_id_alone() -> None:
    """Clients choose the ids: there may be several, and with any character in them."""
    async with operated(StagedEngine()) as (server, backend):
        now = trio.current_time()
        one, two, other = (Exchange(name, "/x", "GET", now) for name in ("a/b?", "a/b?", "c"))
        registry = backend.exchanges
        with registry.open(one), registry.open(two), registry.open(other):
            answer = await ask(server, "DELETE", "/proxy/exchanges/a%2Fb%3F")
            assert (answer.status, answer.body) == (204, b"")
            causes = [each.cause for each in (one, two, other)]
    assert causes == [EndCause.CANCELLED_BY_ADMIN, EndCause.CANCELLED_BY_ADMIN, None]


async def test_delete_exchange_that_is_not_in_flight_is_404() -> None:
    """It may just have ended."""
    async with operated(StagedEngine()) as (server, _):
        answer = await ask(server, "DELETE", "/proxy/exchanges/a")
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


# -- the engine ------------------------------------------------------------------------------------


async def test_restart_is_accepted_and_carried_out() -> None:
    """202 at once; it takes its time."""
    engine = StagedEngine()
    async with operated(engine) as (server, _):
        answer = await ask(server, "POST", "/proxy/restart")
        await trio.testing.wait_all_tasks_blocked()
    assert (answer.status, told(answer)) == (202, {"state": "ready", "restarting": True})
    assert engine.restarts_asked == 1


async def test_logs_are_the_kept_lines() -> None:
    """Oldest first."""
    engine = StagedEngine()
    for number in range(3):
        engine.logs.append(f"line {number}".encode())
    async with operated(engine) as (server, _):
        found = told(await ask(server, "GET", "/proxy/logs"))
    assert found == {"lines": ["line 0", "line 1", "line 2"]}


@pytest.mark.parametrize(("method", "path"), [("POST", "/proxy/restart"), ("GET", "/proxy/logs")])
async def test_engine_of_somebody_else_has_neither_restart_nor_log(method: str, path: str) -> None:
    """404 with the reason; for the stream too."""
    async with operated(external_engine()) as (server, _):
        for fields in ((), ("Accept: text/event-stream",)):
            answer = await ask(server, method, path, *fields)
            assert (answer.status, answer.error["type"]) == (404, "not_found_error")
            assert "somebody else" in str(answer.error["message"])


# -- following the log -----------------------------------------------------------------------------

FOLLOW = b"GET /proxy/logs HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


def say(engine: StagedEngine, text: str) -> None:
    """Log a line, and tell who follows."""
    engine.logs.append(text.encode())
    engine._heard()


async def test_log_is_followed_from_its_kept_lines_on() -> None:
    """Each line is an event with its number, sent when it is logged."""
    engine = StagedEngine()
    say(engine, "before")
    async with operated(engine) as (server, _), wire(server.port) as client:
        await client.send(FOLLOW)
        received = await client.read_until(b"before")
        assert b"text/event-stream" in received
        assert b"no-store" in received
        say(engine, "after \u00e9\n")
        events = (await client.read_until(b"after")).decode()
        assert 'id: 1\nevent: log\ndata: {"line": "after' in events


async def test_log_without_a_line_sends_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing between gives the stream up; the lines go on after them."""
    monkeypatch.setattr(operator_module, "_HEARTBEAT_S", 0.01)
    engine = StagedEngine()
    async with operated(engine) as (server, _), wire(server.port) as client:
        await client.send(FOLLOW)
        await client.read_until(b": heartbeat\n\n")
        say(engine, "at last")
        await client.read_until(b"at last")


async def test_log_is_followed_for_longer_than_the_framework_would_have_it() -> None:
    """Its time limit for responses cuts a stream without a word."""
    engine = StagedEngine()
    opened = operated(engine, response_timeout_s=0.02)
    async with opened as (server, _), wire(server.port) as client:
        say(engine, "before")
        await client.send(FOLLOW)
        await client.read_until(b"before")
        await trio.sleep(0.1)
        say(engine, "after")
        await client.read_until(b"after")


async def test_log_says_how_many_lines_were_lost() -> None:
    """The ring keeps the last ones; who comes late or is slow is told what is missing."""
    engine = StagedEngine()
    for number in range(600):
        engine.logs.append(f"line {number}".encode())
    async with operated(engine) as (server, _), wire(server.port) as client:
        await client.send(FOLLOW)
        received = await client.read_until(b'"line 599"')
    assert b": 100 lines skipped\n\n" in received
    assert b"\nid: 100\n" in received
    assert b'"line 99"' not in received


async def test_log_that_is_followed_ends_with_its_client() -> None:
    """Nothing of it is left."""
    async with operated(StagedEngine()) as (server, _), wire(server.port) as client:
        await client.send(FOLLOW)
        await client.read_until(b"\r\n\r\n")
        client.fin()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.guard.connections == 0


# -- insight ---------------------------------------------------------------------------------------


async def test_tasks_are_shown_as_json_and_as_text() -> None:
    """By what is asked for."""
    async with operated(StagedEngine()) as (server, _):
        tree = told(await ask(server, "GET", "/proxy/tasks"))
        assert set(tree) == {"name", "children"}
        text = await ask(server, "GET", "/proxy/tasks", "Accept: text/plain")
        assert text.one("Content-Type").startswith("text/plain")
        assert "\n      " in text.body.decode()
        assert "client connection" in text.body.decode()


async def test_metrics_are_in_prometheus_format() -> None:
    """With its own media type."""
    async with operated(StagedEngine()) as (server, _):
        answer = await ask(server, "GET", "/proxy/metrics")
    assert answer.one("Content-Type").startswith("text/plain; version=")
    assert b'llama_proxy_engine_state{state="ready"} 1.0' in answer.body


# -- what there is not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/proxy/nothing"),
        ("GET", "/proxy/"),
        ("GET", "/proxy/restart"),
        ("PATCH", "/proxy/logs"),
    ],
)
async def test_route_that_is_none_is_404_in_our_shape(method: str, path: str) -> None:
    """Also a known one with another method; the framework's pages are HTML."""
    async with operated(StagedEngine()) as (server, _):
        answer = await ask(server, method, path)
    assert answer.status == 404
    assert answer.error["code"] == 404
    assert answer.error["request_id"] == answer.one("X-Request-Id")
    assert "/proxy/" in str(answer.error["message"])
