"""The routes of predictions, as plain ASGI: Cog's HTTP API.

Owns which request does what, and the shape of each reply that is no stream. What a request may be
is `core.predictions`'s, what there is `book`'s, and a stream `event_stream`'s.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from functools import partial

import trio

from proxy._version import __version__
from proxy.core.causes import EndCause
from proxy.core.errors import NotFound
from proxy.core.keyring import ApiKey
from proxy.core.predictions.event_log import Cursor
from proxy.core.predictions.event_log import TooManySubscribers as LogIsFull
from proxy.core.predictions.inputs import upstream_request
from proxy.core.predictions.modes import Mode, last_event_id, mode_of
from proxy.core.predictions.openapi import openapi_document
from proxy.core.predictions.prediction import Prediction
from proxy.core.predictions.refusals import NothingToCancel, TooManySubscribers
from proxy.core.predictions.requests import PredictionRequest, read_request
from proxy.core.predictions.shapes import to_json
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ClientConnection
from proxy.predictions.book import Place, PredictionBook
from proxy.predictions.event_stream import EventStream
from proxy.predictions.health_check import tell_health
from proxy.predictions.line import AT_ONCE_BYTES
from proxy.predictions.live import LivePrediction, MadeFor
from proxy.relay.relayed_request import read_body
from proxy.runtime.backend import Backend

PATHS = frozenset({"/predictions", "/health-check", "/openapi.json"})
PREFIX = "/predictions/"

_ONE = re.compile(r"/predictions/(?P<id>[^/]+)(?P<cancel>/cancel)?")
# From here on parsing JSON would hold up every other stream for longer than 10 ms.
_PARSE_IN_THREAD_BYTES = 1024 * 1024
_MADE_FOR = {
    Mode.BLOCKING: MadeFor.CALLER,
    Mode.STREAM: MadeFor.FOLLOWERS,
    Mode.ASYNC: MadeFor.ITSELF,
}
_TRACE = ("traceparent", "tracestate")
_NO_METHOD = "This path does not answer this method."


def make_prediction_id() -> str:
    """Return a new id: 128 random bits, for it is all that tells predictions apart."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, with what each of its answers needs."""

    scope: Message
    receive: Receive
    send: Send

    @property
    def connection(self) -> ClientConnection:
        connection: ClientConnection = self.scope["state"]["connection"]
        return connection

    @property
    def mode(self) -> Mode:
        return mode_of(self.scope["headers"])

    @property
    def trace(self) -> dict[str, str]:
        """Its trace context (W3C), for the requests that follow from it."""
        found = {name: self.header(name.encode()) for name in _TRACE}
        return {name: value for name, value in found.items() if value is not None}

    def place_of(self, prediction_id: str) -> Place:
        key: ApiKey | None = self.scope["state"]["principal"]
        return (None if key is None else key.name), prediction_id

    def header(self, name: bytes) -> str | None:
        found = (value for key, value in self.scope["headers"] if key.lower() == name)
        value = next(found, None)
        return None if value is None else value.decode("latin1")

    async def answer(self, status: int, value: object) -> None:
        await self.answer_json(status, to_json(value))

    async def answer_json(self, status: int, body: bytes | memoryview) -> None:
        headers = [
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        # In pieces: what is framed is a copy, and a slow client would hold one.
        for start in range(0, len(body), AT_ONCE_BYTES):
            piece = bytes(body[start : start + AT_ONCE_BYTES])
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


class PredictionRoutes:
    """Answers `/predictions`, what is below it, `/health-check` and `/openapi.json`.

    Args:
        book: The predictions.
        backend: Whose health is told.
        allow_remote_media: Let llama-server fetch the URLs that an input names.
    """

    def __init__(
        self, book: PredictionBook, backend: Backend, *, allow_remote_media: bool = False
    ) -> None:
        self._allow_remote_media = allow_remote_media
        self._book = book
        self._backend = backend

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            HttpError: It is not to be had.
        """
        call = _Call(scope, receive, send)
        method, path = scope["method"], scope["path"]
        if path == "/predictions" and method == "POST":
            await self._post(call)
        elif path == "/health-check" and method in ("GET", "HEAD"):
            # In the order in which Cog has its members, which is not the alphabet's.
            told = json.dumps(tell_health(self._backend), separators=(",", ":"))
            await call.answer_json(200, told.encode())
        elif path == "/openapi.json" and method in ("GET", "HEAD"):
            await call.answer(200, openapi_document(__version__))
        elif (found := _ONE.fullmatch(path)) is not None:
            await self._one(call, found["id"], cancel=found["cancel"] is not None)
        else:
            raise NotFound(_NO_METHOD)

    async def _one(self, call: _Call, prediction_id: str, *, cancel: bool) -> None:
        method, place = call.scope["method"], call.place_of(prediction_id)
        if cancel and method == "POST":
            await self._cancel(call, place)
        elif not cancel and method == "PUT":
            await self._put(call, place)
        elif not cancel and method in ("GET", "HEAD"):
            await self._get(call, place)
        else:
            raise NotFound(_NO_METHOD)

    async def _post(self, call: _Call) -> None:
        request = await self._read(call, None)
        if request is not None:
            place = call.place_of(request.id or make_prediction_id())
            await self._create(call, place, request)

    async def _put(self, call: _Call, place: Place) -> None:
        request = await self._read(call, place[1])
        if request is None:
            return
        live, finished = self._book.live(place), self._book.finished(place)
        if live is not None and call.mode is Mode.STREAM:
            await self._follow(call, live)
        elif live is not None:
            await call.answer_json(202, live.prediction.snapshot_json())
        elif finished is not None and call.mode is Mode.STREAM:
            await self._replay(call, finished)
        elif finished is not None:
            await call.answer_json(200, finished.answer_json())
        else:
            await self._create(call, place, request)

    async def _read(self, call: _Call, path_id: str | None) -> PredictionRequest | None:
        """Read the request; None when its client left first.

        Raises:
            HttpError: It cannot be understood, or the guard refused its body.
        """
        body = await read_body(call.receive)
        if body is None:
            return None
        understand = partial(
            read_request,
            body,
            call.header(b"content-type"),
            path_id,
            allow_private_webhooks=self._book.settings.reports.allow_private,
        )
        if len(body) < _PARSE_IN_THREAD_BYTES:
            return understand()
        return await trio.to_thread.run_sync(understand)

    async def _create(self, call: _Call, place: Place, request: PredictionRequest) -> None:
        mode = call.mode
        live = self._book.create(
            place,
            request,
            upstream_request(request.input, allow_remote_media=self._allow_remote_media),
            _MADE_FOR[mode],
            request_id=call.scope["state"]["request_id"],
            trace=call.trace,
        )
        if mode is Mode.STREAM:
            await self._follow(call, live)
        elif mode is Mode.ASYNC:
            await call.answer(202, {"id": place[1], "status": "starting"})
        else:
            await self._wait(call, live)

    async def _wait(self, call: _Call, live: LivePrediction) -> None:
        forget = call.connection.on_gone(lambda _: live.caller_left())
        try:
            await live.wait_ended()
        finally:
            forget()
        await call.answer_json(200, live.prediction.answer_json())

    async def _follow(self, call: _Call, live: LivePrediction) -> None:
        await EventStream(_subscribe(call, live.prediction), live, call.send).run(call.connection)

    async def _replay(self, call: _Call, prediction: Prediction) -> None:
        await EventStream(_subscribe(call, prediction), None, call.send).run(call.connection)

    async def _get(self, call: _Call, place: Place) -> None:
        live = self._book.live(place)
        prediction = self._book.finished(place) if live is None else live.prediction
        if prediction is None:
            raise NotFound("No prediction with this id runs, or is still kept.")
        await call.answer_json(200, prediction.snapshot_json())

    async def _cancel(self, call: _Call, place: Place) -> None:
        live = self._book.live(place)
        if live is None or live.ending:
            raise NothingToCancel
        live.end(EndCause.CANCELLED_BY_CLIENT)
        await call.answer(200, {})


def _subscribe(call: _Call, prediction: Prediction) -> Cursor:
    try:
        return prediction.log.subscribe(last_event_id(call.scope["headers"]))
    except LogIsFull as error:
        raise TooManySubscribers from error
