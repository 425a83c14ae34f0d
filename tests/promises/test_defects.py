"""A mistake of ours in one exchange is that exchange's alone: told, logged, and nothing is left.

A mistake is made on purpose: one function raises, when it is called for this exchange.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio

import proxy
from proxy.core.whole_events import EventPassage
from proxy.relay import carriage, connecting
from proxy.relay.answers import PassedOn, PutTogether
from proxy.relay.downstream import Downstream
from proxy.relay.relayed_request import RelayedRequest
from proxy.runtime.gate import Ticket
from proxy.runtime.upstream import UpstreamConnection
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import leaves_nothing, until
from tests.promises.replies import error_told
from tests.promises.wire import Wire

WHOLE = {"messages": [{"role": "user", "content": "Go on."}]}
NAME = "mine"
# In its tokens and not in its prompt: what has it is decoded.
SECOND_TOKEN = b'"mine1 '


class Mistake(RuntimeError):
    """What a defect raises."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A function that raises.

    Attributes:
        owner: Whose it is: a class or a module.
        name: Its name.
        at: Bytes that it is called with when it does; at its first call, if there are none.
        begun: Whether a streaming client has the head of its reply by then; None where that hangs
            on what came with the head, for it goes out with the first bytes.
    """

    owner: object
    name: str
    at: bytes = b""
    begun: bool | None = False

    def make(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the function raise, for the exchange of that name."""
        function: Callable[..., object] = getattr(self.owner, self.name)

        def broken(*args: object, **named: object) -> object:
            if is_its(args) and (not self.at or any(has(arg, self.at) for arg in args)):
                raise Mistake(self.name)
            return function(*args, **named)

        monkeypatch.setattr(self.owner, self.name, broken)


def is_its(args: tuple[object, ...]) -> bool:
    """Return whether a call is for the exchange: in its task, with its request or its bytes."""
    task = trio.lowlevel.current_task().name
    return task.startswith(f"exchange {NAME} ") or any(
        getattr(arg, "request_id", "") == NAME or has(arg, NAME.encode()) for arg in args
    )


def has(arg: object, part: bytes) -> bool:
    """Return whether `arg` is bytes with `part` in them."""
    return isinstance(arg, bytes) and part in arg


EITHER = {
    "reading": Defect(RelayedRequest, "read"),
    "queued": Defect(Ticket, "wait_admitted"),
    "connecting": Defect(connecting, "open_upstream"),
    "uploading": Defect(carriage, "upload"),
    "before the first byte": Defect(UpstreamConnection, "receive_head"),
}
# What fails behind `[DONE]` fails behind the answer: its client has all of it.
STREAMED = {
    "prefill": Defect(PassedOn, "take", begun=None),
    "decode, before the pump": Defect(PassedOn, "take", b'"mine0 ', begun=None),
    "decode": Defect(EventPassage, "feed", SECOND_TOKEN, begun=True),
}
PUT_TOGETHER = {
    "prefill": Defect(PutTogether, "take"),
    "decode": Defect(PutTogether, "take", SECOND_TOKEN),
    "the end": Defect(PutTogether, "prepare"),
    "the last byte": Defect(PutTogether, "finish"),
}
CASES = [
    pytest.param(stream, defect, id=f"{'stream' if stream else 'whole'}, {where}")
    for stream, own in ((True, STREAMED), (False, PUT_TOGETHER))
    for where, defect in {**EITHER, **own}.items()
]


@pytest.mark.parametrize(("stream", "defect"), CASES)
async def test_defect_ends_its_exchange_and_nothing_else(
    listener: Listener,
    stream: bool,
    defect: Defect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """500, or an event without `[DONE]`; a traceback in the log; another stream goes on."""
    caplog.set_level(logging.INFO)
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            leaves_nothing(server),
            listener.wire(server) as other,
            listener.wire(server) as client,
        ):
            await begin_another(listener, other)
            defect.make(monkeypatch)
            query = f"name={NAME}&progress=5&events=20&pace_s=0.01"
            fields = (f"X-Request-Id: {NAME}", "Connection: close")
            await client.post(f"{listener.chat}?{query}", {**WHOLE, "stream": stream}, *fields)
            received = await client.read_to_end()
            error = error_told(received)
            assert (error["code"], error["type"]) == (500, "server_error")
            has_begun = received.startswith(b"HTTP/1.1 200 OK")
            assert defect.begun is None or has_begun == (stream and defect.begun)
            await until(lambda: causes(caplog) == ["internal_error"])
            assert [found.name for found in tracebacks(caplog)] == ["proxy.relay"]
            await goes_on(other)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_defect_behind_the_answer_leaves_it_whole(
    listener: Listener,
    stream: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client has all of it by then; the mistake is in the log."""
    caplog.set_level(logging.INFO)
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            leaves_nothing(server),
            listener.wire(server) as other,
            listener.wire(server) as client,
        ):
            await begin_another(listener, other)
            Defect(PassedOn if stream else PutTogether, "usage").make(monkeypatch)
            fields = (f"X-Request-Id: {NAME}", "Connection: close")
            await client.post(f"{listener.chat}?name={NAME}", {**WHOLE, "stream": stream}, *fields)
            received = await client.read_to_end()
            assert (b"[DONE]" if stream else b'"finish_reason":"stop"') in received
            assert b'"error"' not in received
            await until(lambda: causes(caplog) == ["finished"])
            assert [found.name for found in tracebacks(caplog)] == ["proxy.relay"]
            await goes_on(other)


async def test_defect_while_the_client_is_told_breaks_its_connection_alone(
    listener: Listener, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more can be told then; its answer has no end that could be taken for one."""
    caplog.set_level(logging.INFO)
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            leaves_nothing(server),
            listener.wire(server) as other,
            listener.wire(server) as client,
        ):
            await begin_another(listener, other)
            Defect(Downstream, "fail").make(monkeypatch)
            fields = (f"X-Request-Id: {NAME}", "Connection: close")
            query = f"name={NAME}&events=2&end=cut"
            await client.post(f"{listener.chat}?{query}", {**WHOLE, "stream": True}, *fields)
            received = await client.read_to_end()
            assert b"[DONE]" not in received
            assert not received.endswith(b"0\r\n\r\n")
            await until(lambda: causes(caplog) == ["upstream_error"])
            assert tracebacks(caplog)
            await goes_on(other)


async def begin_another(listener: Listener, other: Wire) -> None:
    """Begin a stream beside."""
    target = f"{listener.chat}?events=100000&pace_s=0.01"
    await other.post(target, {**WHOLE, "stream": True})
    await other.read_until(b'"content"')


async def goes_on(other: Wire) -> None:
    """Read what comes from now on of the stream beside."""
    other.received = b""
    await other.read_until(b'"content"')


def causes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the end causes in the exchange's log lines."""
    exchanges = [found for found in caplog.records if found.name == "proxy.exchange"]
    return [found.cause for found in exchanges if found.request_id == NAME]  # type: ignore[attr-defined]


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the log records that have a traceback; each is of a mistake that was made."""
    found = [record for record in caplog.records if record.exc_info is not None]
    assert all("Mistake" in str(caplog.handler.format(record)) for record in found)
    return found
