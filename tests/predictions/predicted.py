"""Predictions of a test's own, before an upstream that does what the test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from proxy.core.access import AccessPolicy, ApiKey
from proxy.core.framing import Limits
from proxy.core.keyring import Keyring
from proxy.http1.connection import ConnectionLimits
from proxy.predictions.book import PredictionBook, PredictionSettings
from proxy.predictions.routes import PredictionRoutes
from proxy.relay.front_door import FrontDoor
from proxy.runtime.backend import Backend, Engine
from tests.fakes.played_upstream import PlayedUpstream
from tests.fakes.scripted_server import Handler, answering, scripted_server
from tests.fakes.staged_engine import StagedEngine
from tests.http1.guarded import PATIENCE_S, guarded
from tests.promises.wire import Wire
from tests.web.wire import Answer, Sent, ask_port

MAX_BODY = 4 * 1024 * 1024
STREAM = "Accept: text/event-stream"
ASYNC = "Prefer: respond-async"
PROMPT = {"input": {"prompt": "a"}}

# -- what llama-server says ------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TIMINGS = {"prompt_n": 3, "cache_n": 1, "predicted_n": 2, "predicted_per_second": 50.0}


def event(value: object) -> bytes:
    """Return one event in a chunk of its own."""
    data = b"data: %b\n\n" % json.dumps(value).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def piece(text: str) -> bytes:
    """Return a piece of the answer."""
    return event({"content": text, "stop": False})


END = event({"content": "", "stop": True, "timings": TIMINGS}) + b"0\r\n\r\n"


def saying(*texts: str) -> Handler:
    """Make a llama-server that answers each request with these pieces."""
    return answering(HEAD, *map(piece, texts), END)


def refusing(status: int, message: str) -> Handler:
    """Make a llama-server that answers each request with an error."""
    told = {"error": {"code": status, "message": message, "type": "invalid_request_error"}}
    body = json.dumps(told).encode()
    return answering(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


class Played:
    """A llama-server of which each request is played by the test.

    Attributes:
        requests: One for each, in the order in which they came.
    """

    def __init__(self) -> None:
        self.requests: list[PlayedUpstream] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        upstream = PlayedUpstream()
        self.requests.append(upstream)
        await upstream(stream)

    async def request(self, number: int = 0) -> PlayedUpstream:
        """Wait for the request of this number, from 0."""
        await until(lambda: len(self.requests) > number)
        return self.requests[number]

    async def say(self, *data: bytes, number: int = 0) -> None:
        """Answer the request of this number with bytes."""
        await (await self.request(number)).send(b"".join(data))

    async def finish(self, number: int = 0) -> None:
        """End the answer to the request of this number in order."""
        await self.say(END, number=number)
        self.requests[number].end()


async def until(holds: Any) -> None:
    """Wait until what another task does has come so far."""
    with trio.fail_after(PATIENCE_S):
        while not holds():
            await trio.sleep(0.002)


# -- the proxy -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Predicted:
    """Predictions that can be asked for."""

    backend: Backend
    book: PredictionBook
    port: int

    async def ask(self, target: str, *fields: str, method: str = "POST", **body: Any) -> Answer:
        """Ask with a JSON body, a prompt at least, on a connection of its own."""
        return await ask_port(
            self.port, Sent.json(target, {**PROMPT, **body}, *fields, method=method)
        )

    async def get(self, target: str, *fields: str, method: str = "GET") -> Answer:
        """Ask without a body."""
        return await ask_port(self.port, Sent(method, target, fields))

    async def kept(self, name: str, *, owner: str | None = None) -> None:
        """Wait until a prediction has ended and is kept."""
        await until(lambda: self.book.finished((owner, name)) is not None)

    def subscribers(self, name: str) -> int:
        """Return how many follow a prediction that runs."""
        live = self.book.live((None, name))
        return 0 if live is None else live.prediction.log.subscribers

    @property
    def causes(self) -> list[str]:
        """The causes of the exchanges that ended, once each."""
        return sorted(cause for _, cause in self.backend.exchanges.measures.exchanges)


@asynccontextmanager
async def predicting(
    engine: Engine,
    settings: PredictionSettings | None = None,
    *,
    keys: Sequence[ApiKey] = (),
    max_queue: int = 4,
    router: bool = False,
    send_timeout_s: float = PATIENCE_S,
) -> AsyncIterator[Predicted]:
    """Serve predictions; at its end none may run, and no exchange, permit or client be left."""
    backend = Backend(engine, max_queue=max_queue, router=router)
    book = PredictionBook(backend, settings)
    routes = PredictionRoutes(book, backend)
    door = FrontDoor(AccessPolicy(keyring=Keyring(keys)), lambda _: routes)
    limits = ConnectionLimits(Limits(max_body=MAX_BODY))
    serving = guarded(door, limits, send_timeout_s=send_timeout_s)
    async with trio.open_nursery() as nursery, serving as server:
        nursery.start_soon(backend.run)
        await nursery.start(book.run)
        yield Predicted(backend, book, server.port)
        with trio.fail_after(5):
            await server.guard.drain()
            await book.wait_none_left()
        nursery.cancel_scope.cancel()
        assert len(backend.exchanges) == 0
        assert book.counts.keys() <= {"succeeded", "failed", "canceled"}
        found = [gate.statistics() for gate in backend.gates.values()]
        assert [gate.admitted + gate.queued for gate in found] == [0] * len(found)


@asynccontextmanager
async def before(
    handler: Handler,
    settings: PredictionSettings | None = None,
    *,
    slots: int = 2,
    **options: Any,
) -> AsyncIterator[Predicted]:
    """Serve predictions before a server that does what `handler` says."""
    engine = StagedEngine(slots=slots)
    async with (
        scripted_server(handler) as engine.told_address,
        predicting(engine, settings, **options) as server,
    ):
        yield server


# -- what a client sees ----------------------------------------------------------------------------


async def follow(client: Wire, target: str = "/predictions/p", *fields: str) -> None:
    """Ask for a prediction's events with a prompt; the answer stays to be read."""
    body = json.dumps(PROMPT).encode()
    method = "POST" if target == "/predictions" else "PUT"
    sent = Sent.json(target, body, STREAM, "Connection: close", *fields, method=method)
    await client.send(sent.raw())


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream; a comment has neither name nor data."""

    number: int | None
    name: str
    data: Any


def frames(body: bytes) -> list[Frame]:
    """Return the events of a stream's body, which has to have its end."""
    assert body.endswith(b"\n\n") or not body, body
    return [_frame(block) for block in body.decode().split("\n\n")[:-1]]


def _frame(block: str) -> Frame:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    number, data = fields.get("id"), fields.get("data")
    return Frame(
        None if number is None else int(number),
        fields.get("event", ""),
        None if data is None else json.loads(data),
    )
