"""A relay of a test's own, before a server that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from proxy.core.access import AccessPolicy
from proxy.core.framing import Limits
from proxy.core.keyring import Keyring
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ConnectionLimits
from proxy.relay.carriage import Authorize
from proxy.relay.front_door import FrontDoor
from proxy.relay.relay import Relay
from proxy.relay.relayed_request import RelayedRequest
from proxy.relay.settings import RelaySettings
from proxy.runtime.backend import Backend, Engine
from proxy.runtime.pump import Pump
from tests.fakes.scripted_server import Handler, scripted_server
from tests.fakes.staged_engine import StagedEngine
from tests.http1.guarded import PATIENCE_S, guarded


@dataclass(slots=True)
class Relayed:
    """A relay that runs."""

    backend: Backend
    port: int


@asynccontextmanager
async def relayed(
    engine: Engine,
    settings: RelaySettings | None = None,
    *,
    router: bool = False,
    body_stall_s: float = 10.0,
    send_timeout_s: float = PATIENCE_S,
    authorize: Authorize | None = None,
    pump: type[Pump] = Pump,
) -> AsyncIterator[Relayed]:
    """Serve a relay; at its end no exchange, no permit and no flow may be left."""
    backend = Backend(engine, max_queue=4, router=router)
    backend.pump = pump(engine.note_activity)
    relay = Relay(backend, settings or RelaySettings())

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await relay.carry(RelayedRequest.of(scope), scope, receive, send, authorize)

    door = FrontDoor(AccessPolicy(keyring=Keyring(())), lambda _: app)
    limits = ConnectionLimits(Limits(max_body=1000), body_stall_s=body_stall_s)
    serving = guarded(door, limits, send_timeout_s=send_timeout_s)
    async with trio.open_nursery() as nursery, serving as server:
        nursery.start_soon(backend.run)
        yield Relayed(backend, server.port)
        with trio.fail_after(5):
            await server.guard.drain()
        nursery.cancel_scope.cancel()
        assert len(backend.exchanges) == 0
        assert len(backend.pump) == 0
        assert [gate.statistics().admitted for gate in backend.gates.values()] in ([], [0])


@asynccontextmanager
async def before(
    handler: Handler, settings: RelaySettings | None = None, **options: Any
) -> AsyncIterator[tuple[Relayed, StagedEngine]]:
    """Serve a relay before a server that does what `handler` says."""
    engine = StagedEngine()
    async with (
        scripted_server(handler) as engine.told_address,
        relayed(engine, settings, **options) as server,
    ):
        yield server, engine


def ends(server: Relayed) -> list[str]:
    """Return the causes of the exchanges that ended, once each."""
    return sorted(cause for _, cause in server.backend.exchanges.measures.exchanges)


async def ended(server: Relayed) -> None:
    """Wait until no exchange is in flight."""
    with trio.fail_after(5):
        while len(server.backend.exchanges):
            await trio.sleep(0.002)
