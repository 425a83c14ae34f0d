"""A hub before an engine without a process, and exchanges that a test plays by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from proxy.core.causes import Phase
from proxy.core.sse import EventDecoder
from proxy.core.stream_tokens import TokenPolicy
from proxy.predictions.book import PredictionBook
from proxy.runtime.backend import Backend, Engine
from proxy.runtime.exchange import Exchange
from proxy.runtime.stream_tokens import StreamTokens
from proxy.web.status.facts import Facts
from proxy.web.status.hub import StatusHub, Viewer
from tests.fakes.staged_engine import StagedEngine

CHAT = "/v1/chat/completions"


def event(text: str, kind: str = "content") -> bytes:
    """Return an event of a chat's stream, as llama-server writes it."""
    told = {"choices": [{"index": 0, "delta": {kind: text}}]}
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """Return bytes as one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Stage:
    """A hub that runs.

    Attributes:
        backend: The engine with its gates.
        facts: Finds what is told.
        hub: Tells it.
    """

    backend: Backend
    facts: Facts
    hub: StatusHub

    @contextmanager
    def exchange(
        self, name: str = "r1", *, route: str | None = CHAT, generates: bool = True
    ) -> Iterator[Exchange]:
        """Have an exchange in flight while the block runs."""
        made = Exchange(name, route or "/", "POST", trio.current_time())
        with self.backend.exchanges.open(made):
            if generates:
                made.upstream_route, made.uses_slot = route, True
            yield made

    def viewer(self) -> Seen:
        """Attach a viewer."""
        return Seen(self.hub.attach())

    def snapshot(self) -> dict[str, Any]:
        """Return what `/status/json` answers."""
        return self.hub.snapshot()


@dataclass
class Seen:
    """What a viewer was told so far: each event with its time.

    Attributes:
        viewer: Whose queue it is.
        events: Time, type and data of each.
    """

    viewer: Viewer
    events: list[tuple[float, str, Any]] = field(default_factory=list)
    _decoder: EventDecoder = field(default_factory=EventDecoder)

    def read(self) -> list[tuple[float, str, Any]]:
        """Take what waits; return it."""
        return self.take(self.viewer.queue.take())

    def take(self, data: bytes) -> list[tuple[float, str, Any]]:
        """Take what was in the queue; return it."""
        now = trio.current_time()
        found = self._decoder.feed(data)
        new = [(now, each.event, json.loads(each.data)) for each in found]
        self.events += new
        return new

    async def follow(self) -> None:
        """Read for ever."""
        while True:  # noqa: ASYNC913 - it waits once nothing is left to read
            if not self.read():
                await self.viewer.wait_news()

    def statuses(self) -> list[tuple[float, Any]]:
        """Return the snapshots, each with its time."""
        return [(at, data) for at, kind, data in self.events if kind == "status"]

    def tokens(self, name: str = "r1", kind: str = "text") -> str:
        """Return the text of the tokens of an exchange."""
        return "".join(
            data["text"]
            for _, event, data in self.events
            if event == "token" and (data["request_id"], data["kind"]) == (name, kind)
        )

    def phases(self, name: str = "r1") -> list[tuple[float, str]]:
        """Return the phases of an exchange, with the time at which each was told first."""
        found: list[tuple[float, str]] = []
        for at, snapshot in self.statuses():
            for each in snapshot["exchanges"]:
                if each["request_id"] == name and (not found or found[-1][1] != each["phase"]):
                    found.append((at, each["phase"]))
        return found


@asynccontextmanager
async def staged(
    engine: Engine | None = None, *, content: bool = True, slots: int = 2
) -> AsyncIterator[Stage]:
    """Run a hub before an engine, one of ours that is ready if none is given."""
    engine = engine or StagedEngine(slots=slots)
    backend = Backend(engine, max_queue=8)
    facts = Facts(
        backend, PredictionBook(backend), StreamTokens(engine, TokenPolicy()), content=content
    )
    hub = StatusHub(backend, facts, content=content)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        nursery.start_soon(hub.run)
        yield Stage(backend, facts, hub)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def followed(stage: Stage) -> AsyncIterator[Seen]:
    """Attach a viewer that reads at once what it is told."""
    seen = stage.viewer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen.follow)
        yield seen
        nursery.cancel_scope.cancel()
    stage.hub.detach(seen.viewer)


def is_watched(exchange: Exchange) -> bool:
    """Return whether somebody is told what passes."""
    return exchange.passing.watch is not None


async def settle() -> None:
    """Let the hub tell what has happened."""
    await trio.sleep(0.1)


def finish(exchange: Exchange) -> None:
    """Go through all phases to a proper end."""
    for phase in (Phase.CONNECTING, Phase.PREFILL, Phase.DECODE):
        exchange.enter(phase)
    exchange.finish()
