"""The operator's routes under `/proxy/`, as Quart-Trio views: exchanges, the log, a restart.

Owns the shapes of these replies. Everything they show is the backend's; the access decision is the
front door's. The framework is imported here and nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import cast

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from proxy.core.causes import EndCause
from proxy.core.errors import HttpError, NotFound
from proxy.core.loglines import LogBatch
from proxy.core.sse import comment, encode
from proxy.http1.asgi import AsgiApp
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.supervisor import LlamaServer
from proxy.runtime.task_tree import task_tree
from proxy.web.metrics import METRICS_TYPE, make_exporter

# The same as the log ring keeps.
_ALL_LINES = 500
# Proxies between give up a silent stream after 30 to 60 s.
_HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class ExchangeView:
    """An exchange in flight as `/proxy/exchanges` shows it; seconds are since it was accepted.

    Attributes:
        request_id: Its `X-Request-Id`; what `DELETE` takes.
        method: The request's method.
        route: The bounded route label.
        phase: How far it has come.
        position: Its place in the queue from 1; 0 once admitted.
        elapsed_s: How long it is under way.
        bytes: Bytes of body sent to the client.
        cause: Why it ends, while its client is still being told; None as long as it goes on.
    """

    request_id: str
    method: str
    route: str
    phase: str
    position: int
    elapsed_s: float
    bytes: int
    cause: str | None

    @classmethod
    def of(cls, exchange: Exchange, now: float) -> ExchangeView:
        """Look at an exchange at Trio time `now`."""
        return cls(
            request_id=exchange.request_id,
            method=exchange.method,
            route=exchange.route,
            phase=exchange.phase.value,
            position=exchange.ticket.position if exchange.ticket is not None else 0,
            elapsed_s=round(now - exchange.started_at, 3),
            bytes=exchange.sent.bytes,
            cause=exchange.cause.value if exchange.cause is not None else None,
        )


def make_operator_app(backend: Backend) -> AsgiApp:
    """Build the application that answers `/proxy/...`."""
    app = QuartTrio("proxy.web.operator")
    _add_exchanges(app, backend)
    _add_engine(app, backend)
    _add_insight(app, backend)

    @app.errorhandler(HTTPException)
    async def _not_ours(_: HTTPException) -> Response:
        # Into our own shape, whatever it is called: the framework's pages are HTML.
        return _refusal(NotFound("There is no such route under /proxy/."))

    @app.errorhandler(HttpError)
    async def _ours(error: HttpError) -> Response:
        return _refusal(error)

    return cast(AsgiApp, app)


def _add_exchanges(app: QuartTrio, backend: Backend) -> None:
    @app.get("/proxy/exchanges")
    async def list_exchanges() -> Response:
        now = trio.current_time()
        found = [asdict(ExchangeView.of(exchange, now)) for exchange in backend.exchanges]
        return _json({"exchanges": found})

    @app.delete("/proxy/exchanges/<path:request_id>")
    async def cancel_exchange(request_id: str) -> Response:
        chosen = [found for found in backend.exchanges if found.request_id == request_id]
        if not chosen:
            raise NotFound("No exchange with this request id is in flight.")
        for exchange in chosen:
            exchange.end(EndCause.CANCELLED_BY_ADMIN)
        # An empty body has to be named: without one Quart iterates in a way that needs asyncio.
        return Response(b"", status=204)


def _add_engine(app: QuartTrio, backend: Backend) -> None:
    @app.post("/proxy/restart")
    async def restart() -> Response:
        backend.request_restart()
        return _json({"state": backend.engine.state.value, "restarting": True}, 202)

    @app.get("/proxy/logs")
    async def logs() -> Response:
        engine = backend.managed
        if "text/event-stream" in request.headers.get("Accept", ""):
            response = Response(_LogFollower(engine), content_type="text/event-stream")
            response.headers["Cache-Control"] = "no-store"
            # The framework's default of 60 s would cut the stream without a word.
            response.timeout = None
            return response
        return _json({"lines": engine.logs.tail(_ALL_LINES)})


def _add_insight(app: QuartTrio, backend: Backend) -> None:
    metrics = make_exporter(backend)

    @app.get("/proxy/metrics")
    async def show_metrics() -> Response:
        return Response(metrics(), content_type=METRICS_TYPE)

    @app.get("/proxy/tasks")
    async def show_tasks() -> Response:
        tree = task_tree()
        if "text/plain" in request.headers.get("Accept", ""):
            text = "\n".join(tree.as_lines()) + "\n"
            return Response(text, content_type="text/plain; charset=utf-8")
        return _json(tree.as_object())


class _LogFollower:
    """The kept log lines and then each new one, numbered, as events, until the client leaves."""

    def __init__(self, engine: LlamaServer) -> None:
        self._engine = engine
        self._number = 0
        self._begun = False

    def __aiter__(self) -> _LogFollower:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            # The head goes out with the first bytes, and the first line may be long in coming.
            self._begun = True
            return comment("following")
        with trio.move_on_after(_HEARTBEAT_S):
            return self._as_events(await self._engine.next_lines(self._number))
        return comment("heartbeat")

    def _as_events(self, batch: LogBatch) -> bytes:
        self._number = batch.next_number
        first = batch.next_number - len(batch.lines)
        skipped = [comment(f"{batch.skipped} lines skipped")] if batch.skipped else []
        events = (
            encode(json.dumps({"line": line}), event="log", id=str(number))
            for number, line in enumerate(batch.lines, first)
        )
        return b"".join([*skipped, *events])


def _refusal(error: HttpError) -> Response:
    request_id = request.scope["state"]["request_id"]
    return _json({"error": error.as_object(request_id)}, error.status)


def _json(value: object, status: int = 200) -> Response:
    response = Response(json.dumps(value), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
