"""One proxied request from its head to its end, before small servers of the test's own."""

from __future__ import annotations

import json
import logging
from typing import cast

import pytest
import trio
import trio.testing

from proxy.relay import connecting as connecting_module
from proxy.relay.settings import RelaySettings
from proxy.runtime import backend as backend_module
from proxy.runtime.address import Address
from tests.fakes.scripted_server import answering, read_head, scripted_server
from tests.fakes.staged_engine import StagedEngine, external_engine
from tests.left_behind import Leftovers
from tests.promises.wire import Wire, wire
from tests.relay.relayed import Relayed, before, ended, ends, relayed
from tests.web.wire import Sent, ask_port

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"b\r\ndata: one\n\n\r\n"
)
COMPLETION = "/completion"
PROMPT = {"prompt": "a"}
UPLOAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


# -- defects ---------------------------------------------------------------------------------------


async def test_unexpected_exception_ends_its_own_exchange_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500 in our shape and a traceback in the log; an exchange beside it goes on to its end."""
    go_on = trio.Event()

    async def upstream(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(EVENTS)
        await go_on.wait()
        await stream.send_all(b'15\r\ndata: {"stop":true}\n\n\r\n0\r\n\r\n')

    async with before(upstream) as (server, engine), wire(server.port) as other:
        await other.post(COMPLETION, {**PROMPT, "stream": True})
        await other.read_until(b"data: one")
        good, engine.told_address = engine.told_address, cast(Address, None)
        answer = await ask_port(server.port, Sent.json(COMPLETION, PROMPT, "X-Request-Id: r7"))
        assert (answer.status, answer.error["type"]) == (500, "server_error")
        assert "None" not in str(answer.error["message"])
        engine.told_address = good
        go_on.set()
        await other.read_until(b'{"stop":true}\n\n\r\n0\r\n\r\n')
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.__dict__["request_id"] == "r7"
    assert record.exc_info is not None


async def test_unexpected_exception_after_the_answer_changes_nothing_for_the_client() -> None:
    """It has everything: here asking for a model's slots goes wrong."""
    engines = list[StagedEngine]()

    async def upstream(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        engines[0].told_address = cast(Address, None)
        await stream.send_all(OK)

    async with before(upstream, router=True) as (server, engine):
        engines.append(engine)
        answer = await ask_port(server.port, Sent.json(COMPLETION, {**PROMPT, "model": "a"}))
        assert (answer.status, answer.body) == (200, b"{}")
        await ended(server)
        assert ends(server) == ["finished"]


# -- connecting ------------------------------------------------------------------------------------


async def test_launch_that_dies_before_the_connect_is_waited_out() -> None:
    """The request has not begun anywhere: it is served by the next launch."""
    engine = StagedEngine()
    async with scripted_server(answering(OK)) as good:
        async with relayed(engine) as server, trio.open_nursery() as nursery:

            async def ask() -> None:
                answer = await ask_port(server.port, Sent.json(COMPLETION, PROMPT))
                assert answer.status == 200

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.02)
            engine.crash()
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert server.backend.gates[""].statistics().queued == 1
            engine.told_address = good
            engine.launch()
            engine.load()
        assert ends(server) == ["finished"]


@pytest.mark.parametrize("timeout_s", [10, 0], ids=["refused", "too slow"])
async def test_upstream_that_cannot_be_reached_gives_502(
    timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no crash explains it."""
    monkeypatch.setattr(connecting_module, "CONNECT_TIMEOUT_S", timeout_s)
    monkeypatch.setattr(backend_module, "_EXIT_REPORT_S", 0.01)
    async with relayed(external_engine()) as server:
        answer = await ask_port(server.port, Sent.json(COMPLETION, PROMPT))
        assert (answer.status, answer.error["type"]) == (502, "upstream_error")
        assert ends(server) == ["upstream_error"]


async def test_crash_during_the_exchange_names_it() -> None:
    """The connection broke because the process died: that is what the client is told."""
    engines = list[StagedEngine]()

    async def upstream(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        engines[0].crash(-9)

    async with before(upstream) as (server, engine):
        engines.append(engine)
        answer = await ask_port(server.port, Sent.json(COMPLETION, PROMPT))
        assert answer.status == 502
        assert "signal 9 (SIGKILL)" in str(answer.error["message"])
        assert ends(server) == ["upstream_crashed"]


async def test_connection_that_breaks_before_the_crash_is_reported_is_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel closes the sockets first."""
    monkeypatch.setattr(backend_module, "_EXIT_REPORT_S", 10)
    async with before(answering()) as (server, engine), trio.open_nursery() as nursery:

        async def report() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            engine.crash(-9)

        nursery.start_soon(report)
        answer = await ask_port(server.port, Sent.json("/tokenize", PROMPT))
        assert "signal 9 (SIGKILL)" in str(answer.error["message"])


# -- the request's body ----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{", b"[]"], ids=["no JSON", "no object"])
async def test_body_that_llama_server_could_not_read_is_refused_here(body: bytes) -> None:
    """Before it queues; llama-server is not even connected to."""
    async with relayed(StagedEngine()) as server:
        answer = await ask_port(server.port, Sent.json(COMPLETION, body))
        assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
        assert ends(server) == ["finished"]


REMOTE = {
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}
    ]
}


@pytest.mark.parametrize(("allow", "status"), [(False, 400), (True, 200)])
async def test_remote_media_pass_by_option_only(allow: bool, status: int) -> None:
    """llama-server would fetch any address."""
    settings = RelaySettings(allow_remote_media=allow)
    async with before(answering(OK), settings) as (server, _):
        answer = await ask_port(server.port, Sent.json("/v1/chat/completions", REMOTE))
        assert answer.status == status


async def test_upload_beside_the_slots_is_streamed() -> None:
    """llama-server has its first bytes before the client has sent the last."""
    first, received = trio.Event(), bytearray()

    async def upstream(stream: trio.abc.Stream) -> None:
        received.extend(await read_head(stream))
        while not received.endswith(b"0\r\n\r\n"):
            if b"first" in received:
                first.set()
            received.extend(await stream.receive_some())
        await stream.send_all(OK)

    async with before(upstream) as (server, _), wire(server.port) as client:
        await client.send(UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        with trio.fail_after(5):
            await first.wait()
        await client.send(b"4\r\nlast\r\n0\r\n\r\n")
        await client.read_until(b"{}")
    assert bytes(received).endswith(b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n")


BROKEN_UPLOADS = {
    "too large": (b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + bytes(1001), 413),
    "malformed": (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "stalled": (b"Content-Length: 9\r\n\r\nabc", 408),
}


@pytest.mark.parametrize(("rest", "status"), BROKEN_UPLOADS.values(), ids=BROKEN_UPLOADS.keys())
@pytest.mark.parametrize("path", [b"/tokenize", b"/completion"], ids=["streamed", "read whole"])
async def test_upload_that_breaks_is_answered_with_why(
    path: bytes, rest: bytes, status: int
) -> None:
    """And llama-server's connection, if there is one, is closed before its request is whole."""
    closed = trio.Event()

    async def upstream(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        while await stream.receive_some():
            pass
        closed.set()

    stall_s = 0.1 if status == 408 else 10.0
    opened = before(upstream, body_stall_s=stall_s)
    async with opened as (server, _), wire(server.port) as client:
        await client.send(UPLOAD.replace(b"/tokenize", path) + rest)
        received = await client.read_until(b"}}")
        assert received.startswith(b"HTTP/1.1 %d " % status)
        if path == b"/tokenize":
            with trio.fail_after(5):
                await closed.wait()


@pytest.mark.parametrize("path", [b"/tokenize", b"/completion"], ids=["streamed", "read whole"])
async def test_client_that_leaves_in_its_upload_ends_the_exchange(path: bytes) -> None:
    """Nothing is sent to llama-server that looks like a whole request."""
    async with before(answering(stay=True)) as (server, _), wire(server.port) as client:
        await client.send(UPLOAD.replace(b"/tokenize", path) + b"Content-Length: 9\r\n\r\nabc")
        await trio.testing.wait_all_tasks_blocked(0.02)
        client.fin()
        await ended(server)
        assert ends(server) == ["client_disconnected"]


async def test_answer_before_the_upload_is_whole_counts() -> None:
    """llama-server may refuse from the head alone, and close."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\n"

    async with before(answering(refusal)) as (server, _), wire(server.port) as client:
        await client.send(UPLOAD + b"Content-Length: 900\r\n\r\nabc")
        received = await client.read_until(b"no\n")
        assert received.startswith(b"HTTP/1.1 413 Too Large")
        assert b"\r\nconnection: close" in received.lower()


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        (b"Content-Length: 3\r\n\r\nabc", b"Content-Length: 3"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
        (b"\r\n", None),
    ],
    ids=["length", "chunked", "no body"],
)
async def test_framing_of_a_streamed_upload_is_the_clients(
    fields: bytes, framing: bytes | None
) -> None:
    """A request without a body stays without one."""
    heads = list[bytes]()

    async def upstream(stream: trio.abc.Stream) -> None:
        heads.append((await read_head(stream)).partition(b"\r\n\r\n")[0])
        await stream.send_all(OK)

    async with before(upstream) as (server, _), wire(server.port) as client:
        await client.send(UPLOAD + fields)
        await client.read_until(b"{}")
    names = (b"Content-Length", b"Transfer-Encoding")
    found = [line for line in heads[0].split(b"\r\n") if line.startswith(names)]
    assert found == ([] if framing is None else [framing])


# -- the response ----------------------------------------------------------------------------------


async def start_behind_another(client: Wire, server: Relayed) -> None:
    """Let a streaming request wait behind two held slots until its first comment has come."""
    gate = server.backend.gate_for(gated=True, model=None)
    tickets = [gate.enter(), gate.enter()]
    await client.post(COMPLETION, {**PROMPT, "stream": True}, "Connection: close")
    await client.read_until(b": queued, position 1")
    for ticket in tickets:
        ticket.leave()


ERRORS = {
    "llama-server's": (
        b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}',
        (400, "exceed_context_size_error", "too long"),
    ),
    "somebody else's": (b"<html>", (400, "upstream_error", "llama-server answered 400.")),
    "of another shape": (b'{"error":"x"}', (400, "upstream_error", "llama-server answered 400.")),
}


@pytest.mark.parametrize(("body", "error"), ERRORS.values(), ids=ERRORS.keys())
async def test_error_status_after_comments_becomes_an_event(
    body: bytes, error: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their status said 200 already."""
    monkeypatch.setattr(connecting_module, "QUEUE_COMMENT_S", 0.02)
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with before(answering(head, body)) as (server, _), wire(server.port) as client:
        await start_behind_another(client, server)
        received = await client.read_to_end()
        event = json.loads(received.rsplit(b"data: ", 1)[1].split(b"\n\n")[0])["error"]
        assert (event["code"], event["type"], event["message"]) == error


async def test_stream_after_comments_goes_on_in_the_same_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The events of llama-server follow the comments."""
    monkeypatch.setattr(connecting_module, "QUEUE_COMMENT_S", 0.02)
    stream = answering(EVENTS + b"0\r\n\r\n")
    async with before(stream) as (server, _), wire(server.port) as client:
        await start_behind_another(client, server)
        received = await client.read_to_end()
        assert received.count(b"HTTP/1.1 200 OK") == 1
        assert received.index(b": queued") < received.index(b"data: one")
        assert received.endswith(b"0\r\n\r\n")


async def test_head_of_the_answer_leaves_at_once() -> None:
    """Whoever waits for it does not wait for the first event."""
    head = EVENTS.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with before(answering(head, stay=True)) as (server, _), wire(server.port) as client:
        await client.post(COMPLETION, {**PROMPT, "stream": True})
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


# -- router ----------------------------------------------------------------------------------------


async def test_router_model_has_its_slots_after_its_first_answer() -> None:
    """Asked once; from then on as many are let in as it has slots."""
    asked = list[str]()

    async def upstream(stream: trio.abc.Stream) -> None:
        line = (await read_head(stream)).split(b"\r\n")[0].decode()
        asked.append(line)
        props = b'{"total_slots": 3}'
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(props), props)
        await stream.send_all(answer if "/props" in line else OK)

    async with before(upstream, router=True) as (server, _):
        for _ in range(2):
            await ask_port(server.port, Sent.json(COMPLETION, {**PROMPT, "model": "a"}))
            await ended(server)
        assert server.backend.gates["a"].statistics().permits == 3
    assert [line.split(" ")[1] for line in asked] == [COMPLETION, "/props?model=a", COMPLETION]
