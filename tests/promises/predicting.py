"""A client of predictions over raw sockets: how it asks, and what it reads.

Owns the words of requests (`STREAM`, `ASYNC`), the reading of a chunked stream of events, and the
judgement whether a stream has ended as it has to: with exactly one last event, and its proper end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import trio

from proxy import LlamaServer, Phase, ProxyServer
from proxy.core.predictions.prediction import Prediction
from proxy.runtime.outbound import ControlClient
from tests.promises.observe import exchange_of, until
from tests.promises.wire import PATIENCE_S, Wire, wire

STREAM = "Accept: text/event-stream"
ASYNC = "Prefer: respond-async"
LAST = "Connection: close"
# The id of the prediction that a test is about, and of the request that makes it.
NAME = "mine"
TERMINAL = ("completed", "error")


# --- asking ---


async def ask(client: Wire, prompt: str, *fields: str, name: str = NAME, **more: Any) -> None:
    """Make a prediction, on a connection that closes behind the answer.

    Args:
        client: Who asks.
        prompt: The prompt; the fake llama-server takes its orders from it.
        fields: Header lines, which choose the mode.
        name: The prediction's id, and the request's.
        more: Other members of the input.
    """
    body = {"input": {"prompt": prompt, **more}}
    request_id = f"X-Request-Id: {name}"
    await client.send(put_head(name, json.dumps(body).encode(), request_id, LAST, *fields))


async def follow(client: Wire, after: int | None = None, *, name: str = NAME) -> None:
    """Ask for the events of a prediction that is there; those after a number, if one is given."""
    resumed = () if after is None else (f"Last-Event-ID: {after}",)
    await client.send(put_head(name, b"", STREAM, LAST, *resumed))


async def cancel(server: ProxyServer, name: str = NAME) -> int:
    """Cancel a prediction; return the status of the answer."""
    async with wire(server.port) as client:
        await client.post(f"/predictions/{name}/cancel", b"", LAST)
        return status_of(await client.read_to_end())


async def snapshot(server: ProxyServer, name: str = NAME) -> dict[str, Any]:
    """Return what a prediction is at this moment."""
    async with wire(server.port) as client:
        await client.get(f"/predictions/{name}", LAST)
        return answered(await client.read_to_end())


async def end_reply(engine: LlamaServer, how: str, name: str = NAME) -> None:
    """Let the fake llama-server end the reply of this name so."""
    await ControlClient(engine.address, engine.api_key).ask(f"/fake/end?name={name}&end={how}", {})


def put_head(name: str, body: bytes, *fields: str) -> bytes:
    """Return a whole `PUT` of a prediction."""
    content = ("Content-Type: application/json", f"Content-Length: {len(body)}") if body else ()
    lines = [f"PUT /predictions/{name} HTTP/1.1", "Host: localhost", *content, *fields, "", ""]
    return "\r\n".join(lines).encode() + body


# --- waiting ---


async def in_phase(server: ProxyServer, phase: Phase, name: str = NAME) -> None:
    """Wait until a prediction's exchange has come so far."""

    def has_come() -> bool:
        found = exchange_of(server, name)
        return found is not None and found.phase is phase

    await until(has_come)


async def ended(server: ProxyServer, name: str = NAME) -> Prediction:
    """Wait until a prediction has ended, and return it."""
    book = server._predictions
    await until(lambda: book.finished((None, name)) is not None)
    found = book.finished((None, name))
    assert found is not None
    return found


def followers(server: ProxyServer, name: str = NAME) -> int:
    """Return how many follow a prediction that runs; 0 where there is none."""
    live = server._predictions.live((None, name))
    return 0 if live is None else live.prediction.log.subscribers


# --- reading ---


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream.

    Attributes:
        number: Its id; None without one.
        name: Its type.
        data: Its data.
    """

    number: int | None
    name: str
    data: dict[str, Any]


def status_of(received: bytes) -> int:
    """Return the status of an answer."""
    assert received.startswith(b"HTTP/1.1 "), received[:200]
    return int(received[9:12])


def answered(received: bytes) -> dict[str, Any]:
    """Return the object of a whole JSON answer."""
    found: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
    return found


def frames(received: bytes) -> list[Frame]:
    """Return the whole events that have come of a stream; comments are left out."""
    text, _ = unchunked(received)
    whole = text.split(b"\n\n")[:-1]
    return [frame_of(block) for block in whole if not block.startswith(b":")]


def unchunked(received: bytes) -> tuple[bytes, bool]:
    """Return what has come of a chunked body, and whether it has its proper end."""
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head.lower(), head
    pieces: list[bytes] = []
    start = 0
    while (line_end := rest.find(b"\r\n", start)) >= 0:
        size = int(rest[start:line_end], 16)
        if size == 0:
            return b"".join(pieces), rest[line_end:] == b"\r\n\r\n"
        pieces.append(rest[line_end + 2 : line_end + 2 + size])
        start = line_end + 4 + size
    return b"".join(pieces), False


def whole_stream(received: bytes) -> list[Frame]:
    """Return the events of a stream that has ended as it has to.

    Raises:
        AssertionError: When it has not its proper end, or not exactly one last event, as the last.
    """
    assert status_of(received) == 200
    _, has_end = unchunked(received)
    found = frames(received)
    last = [frame.name for frame in found if frame.name in TERMINAL]
    assert has_end, f"no proper end: {received[-500:]!r}"
    assert len(last) == 1, last
    assert found[-1].name in TERMINAL
    return found


async def read_events(client: Wire, count: int) -> list[Frame]:
    """Read until so many whole events have come, or the last one; return those that have."""
    with trio.fail_after(PATIENCE_S):
        await client.read_until(b"\r\n\r\n")
        while len(found := frames(client.received)) < count:
            if found and found[-1].name in TERMINAL:
                break
            data = await client._stream.receive_some(65536)
            assert data, f"the stream ended after {client.received[-500:]!r}"
            client.received += data
    return found


def numbers(found: Sequence[Frame]) -> list[int]:
    """Return the ids of events; an `error` has none."""
    return [frame.number for frame in found if frame.number is not None]


def said(found: Sequence[Frame]) -> list[str]:
    """Return the output that events tell."""
    return [frame.data["chunk"] for frame in found if frame.name == "output"]


def frame_of(block: bytes) -> Frame:
    """Return the event of a block of lines."""
    fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
    number = fields.get("id")
    return Frame(
        None if number is None else int(number), fields["event"], json.loads(fields["data"])
    )
