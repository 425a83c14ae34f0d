"""How a prediction's text is had from llama-server, before small servers of the test's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from proxy.core.causes import Phase
from proxy.core.errors import UpstreamFailed
from proxy.core.predictions.inputs import UpstreamRequest, upstream_request
from proxy.core.predictions.requests import read_request
from proxy.predictions.generation import model_of
from proxy.predictions.live import LivePrediction, MadeFor
from proxy.relay.answers import CUT_SHORT
from proxy.runtime.address import Address
from proxy.runtime.upstream import BROKEN, MALFORMED, UpstreamConnection
from tests.fakes.scripted_server import Handler, answering, read_head
from tests.fakes.staged_engine import StagedEngine
from tests.left_behind import Leftovers
from tests.predictions.predicted import (
    END,
    HEAD,
    TIMINGS,
    Played,
    Predicted,
    before,
    event,
    piece,
    refusing,
    saying,
    until,
)

LAST_CHUNK = b"0\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n" + LAST_CHUNK
CHAT = {"input": {"messages": [{"role": "user", "content": "a"}]}}


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


def delta(**said: str) -> bytes:
    """Return an event of a chat's answer."""
    return event({"choices": [{"index": 0, "delta": said}]})


async def result(server: Predicted, **body: Any) -> dict[str, object]:
    """Make a prediction and wait for it; return the object."""
    answer = await server.ask("/predictions", **body)
    assert answer.status == 200
    found: dict[str, object] = json.loads(answer.body)
    return found


def create(server: Predicted, asked: UpstreamRequest) -> LivePrediction:
    """Make one without a client."""
    request = read_request(b"", None, "p")
    return server.book.create((None, "p"), request, asked, MadeFor.ITSELF, request_id="r")


# -- what llama-server is asked --------------------------------------------------------------------


async def test_llama_server_is_asked_with_its_own_key_and_our_request_id() -> None:
    """On a connection that ends with the answer; nothing of the client's header goes there."""
    played = Played()
    async with before(played) as server:
        live = create(server, upstream_request({"prompt": "a", "top_k": 3}))
        await played.say(HEAD)
        await played.finish()
        await server.kept("p")
        head, _, body = played.requests[0].received.partition(b"\r\n\r\n")
        assert live.prediction.snapshot()["status"] == "succeeded"
    line, *fields = head.decode().split("\r\n")
    assert line == "POST /completion HTTP/1.1"
    assert {"Authorization: Bearer staged-key", "X-Request-Id: r", "Connection: close"} <= {*fields}
    assert f"Content-Length: {len(body)}" in fields
    assert json.loads(body).items() >= {"prompt": "a", "top_k": 3, "stream": True}.items()


async def test_messages_are_a_chat() -> None:
    """Another route of llama-server's, for the model's template."""
    asked = list[bytes]()

    async def upstream(stream: trio.abc.Stream) -> None:
        asked.append(await read_head(stream))
        await stream.send_all(HEAD + delta(content="b") + DONE)

    async with before(upstream) as server:
        await result(server, **CHAT)
    assert asked[0].startswith(b"POST /v1/chat/completions ")


@pytest.mark.parametrize(
    ("fields", "model"), [({"model": "m"}, "m"), ({}, None), ({"model": 1}, None)]
)
def test_model_is_what_the_input_names(fields: dict[str, object], model: str | None) -> None:
    """Anything but a text is none."""
    assert model_of(UpstreamRequest("/completion", fields)) == model


# -- what it says ----------------------------------------------------------------------------------


async def test_what_a_model_thinks_is_the_log() -> None:
    """And what it answers the output."""
    upstream = answering(HEAD, delta(reasoning_content="hm"), delta(content="b"), DONE)
    async with before(upstream) as server:
        found = await result(server, **CHAT)
    assert (found["status"], found["logs"], found["output"]) == ("succeeded", "hm", ["b"])


async def test_metrics_are_llama_servers() -> None:
    """Counts and speed; the counts are the exchange's too."""
    async with before(saying("b", "c")) as server:
        metrics = (await result(server))["metrics"]
        tokens = server.backend.exchanges.measures.tokens
    assert isinstance(metrics, dict)
    assert (
        metrics.items()
        >= {
            "prompt_tokens": 4,
            "completion_tokens": 2,
            "tokens_per_second": TIMINGS["predicted_per_second"],
        }.items()
    )
    assert (tokens["prompt"], tokens["completion"]) == (4, 2)


async def test_answer_without_measures_has_none() -> None:
    """It is whole all the same."""
    upstream = answering(HEAD, event({"content": "b", "stop": True}), LAST_CHUNK)
    async with before(upstream) as server:
        found = await result(server)
    assert (found["status"], found["output"]) == ("succeeded", ["b"])
    assert [*found["metrics"]] == ["predict_time"]  # type: ignore[misc]


async def test_exchange_goes_through_the_phases() -> None:
    """Prefill once it is sent, decode from its first text on."""
    played = Played()
    async with before(played) as server:
        live = create(server, upstream_request({"prompt": "a"}))
        await played.say(HEAD, event({"prompt_progress": {}, "content": "", "stop": False}))
        phases = [live.exchange.phase]
        await played.say(piece("b"))
        await until(lambda: live.exchange.phase is not phases[-1])
        phases.append(live.exchange.phase)
        await played.finish()
        await server.kept("p")
        phases.append(live.exchange.phase)
    assert phases == [Phase.PREFILL, Phase.DECODE, Phase.ENDED]


async def test_first_byte_is_that_of_the_first_text() -> None:
    """Neither progress before nor text after it changes when that was."""
    played = Played()
    async with before(played) as server:
        live = create(server, upstream_request({"prompt": "a"}))
        await played.say(HEAD, event({"prompt_progress": {}, "content": "", "stop": False}))
        times = [live.exchange.first_byte_at]
        for number in (2, 3):
            await played.say(piece("b"))
            await until(lambda number=number: live.prediction.log.last_number == number)
            times.append(live.exchange.first_byte_at)
        await played.finish()
    assert times[0] is None
    assert times[1] is not None
    assert times[1] == times[2]


async def test_prediction_begins_when_it_has_its_slot() -> None:
    """While it waits for one, it is `starting` and has no event."""
    played = Played()
    async with before(played, slots=1) as server:
        ticket = server.backend.gate_for(gated=True, model=None).enter()
        live = create(server, upstream_request({"prompt": "a"}))
        await trio.testing.wait_all_tasks_blocked()
        assert (live.prediction.status, live.prediction.log.last_number) == ("starting", 0)
        ticket.leave()
        await played.say(HEAD)
        assert live.prediction.status == "processing"
        await played.finish()


# -- what goes wrong -------------------------------------------------------------------------------


async def test_error_event_is_why_it_failed() -> None:
    """A head that said 200 came before it."""
    error = event({"error": {"code": 500, "message": "out of cache", "type": "server_error"}})
    async with before(answering(HEAD, piece("b"), error, LAST_CHUNK)) as server:
        found = await result(server)
        assert server.causes == ["finished"]
    assert (found["status"], found["error"]) == ("failed", "out of cache")


async def test_refusal_is_why_it_failed() -> None:
    """In llama-server's own words."""
    async with before(refusing(400, "bad grammar")) as server:
        found = await result(server)
    assert (found["status"], found["error"]) == ("failed", "bad grammar")


async def test_refusal_without_words_is_told_by_its_status() -> None:
    """Somebody between us and llama-server may answer anything."""
    async with before(answering(b"HTTP/1.1 502 No\r\nContent-Length: 4\r\n\r\noops")) as server:
        found = await result(server)
    assert found["error"] == "llama-server answered 502."


@pytest.mark.parametrize(
    ("upstream", "error"),
    [
        (answering(HEAD, piece("b"), LAST_CHUNK), CUT_SHORT),
        (answering(HEAD, piece("b")), BROKEN),
        (answering(HEAD, piece("b"), reset=True), BROKEN),
        (answering(), BROKEN),
        (answering(b"nonsense\r\n\r\n"), MALFORMED),
        (
            answering(HEAD, event({"content": 5, "stop": False})),
            "llama-server sent an event that is not understood.",
        ),
    ],
    ids=["no end", "cut", "reset", "no answer", "no http", "no event"],
)
async def test_broken_answer_is_a_failure(upstream: Handler, error: str) -> None:
    """Never a clean end: what there was of it is kept, and why it ended is said."""
    async with before(upstream) as server:
        found = await result(server)
        assert server.causes == ["upstream_error"]
    assert (found["status"], found["error"]) == ("failed", error)


@pytest.mark.parametrize("stay", [True, False], ids=["waits", "closes"])
async def test_answer_counts_though_the_request_was_not_read(stay: bool) -> None:
    """llama-server may refuse a body that is too large for it before it has read all of it."""
    told = json.dumps({"error": {"message": "too long", "type": "x"}}).encode()
    answer = b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)
    async with before(answering(answer, stay=stay)) as server:
        live = create(server, upstream_request({"prompt": "x" * 32 * 1024 * 1024}))
        with trio.fail_after(10):
            await live.wait_ended()
        assert live.prediction.snapshot()["error"] == "too long"


async def test_answer_counts_though_the_request_could_not_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever of the two is noticed first."""

    async def broken(*_: object) -> None:
        raise UpstreamFailed(BROKEN)

    async def at_once(stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + piece("b") + END)
        await stream.receive_some()

    monkeypatch.setattr(UpstreamConnection, "send_whole", broken)
    async with before(at_once) as server:
        found = await result(server)
    assert (found["status"], found["output"]) == ("succeeded", ["b"])


async def test_nobody_at_the_address_is_a_failure() -> None:
    """llama-server runs, they say, and cannot be reached."""
    async with before(saying()) as server:
        engine = server.backend.engine
        assert isinstance(engine, StagedEngine)
        engine.told_address = Address(host="127.0.0.1", port=1)
        found = await result(server)
    assert (found["status"], found["error"]) == ("failed", "llama-server could not be reached.")


async def test_what_follows_the_end_is_not_read() -> None:
    """One answer is one answer."""
    async with before(answering(HEAD, END[: -len(LAST_CHUNK)], piece("c"), LAST_CHUNK)) as server:
        found = await result(server)
    assert (found["status"], found["output"]) == ("succeeded", [])
