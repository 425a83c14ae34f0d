"""Cog's routes: which request does what, and each reply that is no stream, over real sockets."""

from __future__ import annotations

import json
import threading

import pytest
import trio

from proxy._version import __version__
from proxy.core.access import ApiKey
from proxy.core.causes import EndCause
from proxy.core.predictions import event_log
from proxy.core.predictions.inputs import upstream_request
from proxy.core.predictions.refusals import NothingToCancel
from proxy.core.predictions.requests import read_request
from proxy.http1.asgi import Message
from proxy.predictions import routes as routes_module
from proxy.predictions.live import MadeFor
from proxy.predictions.routes import PredictionRoutes, make_prediction_id
from tests.fakes.staged_engine import StagedEngine
from tests.http1.asgi_client import ask, scope_of
from tests.left_behind import Leftovers
from tests.predictions.predicted import (
    ASYNC,
    HEAD,
    STREAM,
    Played,
    Predicted,
    before,
    follow,
    frames,
    piece,
    predicting,
    refusing,
    saying,
    until,
)
from tests.promises.wire import wire
from tests.web.wire import Answer, Sent, ask_port

ALICE, BOB = (ApiKey.from_text(f"{name}-key", name=name) for name in ("alice", "bob"))


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


def bearer(name: str) -> str:
    """Return the header line of a person's key."""
    return f"Authorization: Bearer {name}-key"


def told(answer: Answer) -> tuple[int, dict[str, object]]:
    """Return the status and the object of an answer."""
    return answer.status, json.loads(answer.body)


async def start_one(server: Predicted, *fields: str, name: str = "p") -> None:
    """Make a prediction that runs on its own."""
    answer = await server.ask(f"/predictions/{name}", ASYNC, *fields, method="PUT")
    assert answer.status == 202


# -- the three modes -------------------------------------------------------------------------------


async def test_blocking_request_is_answered_with_the_whole_prediction() -> None:
    """200 with its output, its metrics and no more than Cog has."""
    async with before(saying("b", "c")) as server:
        answer = await server.ask("/predictions", id="p")
    status, found = told(answer)
    assert status == 200
    assert found.pop("metrics").keys() == {  # type: ignore[attr-defined]
        "completion_tokens",
        "predict_time",
        "prompt_tokens",
        "tokens_per_second",
    }
    assert found == {"id": "p", "logs": "", "output": ["b", "c"], "status": "succeeded"}
    assert answer.one("Content-Type") == "application/json"
    assert answer.one("Cache-Control") == "no-store"


async def test_request_without_an_id_gets_one() -> None:
    """Another one each time, of 128 bits."""
    async with before(saying("b")) as server:
        ids = [told(await server.ask("/predictions"))[1]["id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert all(len(str(each)) == 32 for each in ids)


def test_made_ids_are_hexadecimal() -> None:
    """So they are valid wherever an id is."""
    assert int(make_prediction_id(), 16) >= 0


async def test_async_request_is_answered_at_once() -> None:
    """202 with what Cog says then, while nothing has come of it; it runs on without its client."""
    async with before(saying("b")) as server:
        answer = await server.ask("/predictions", ASYNC, id="p")
        assert told(answer) == (202, {"id": "p", "status": "starting"})
        await server.kept("p")
        assert server.book.counts == {"succeeded": 1}


async def test_stream_request_is_answered_with_events() -> None:
    """From the first to the last one."""
    async with before(saying("b")) as server:
        answer = await server.ask("/predictions", STREAM)
    assert (answer.status, answer.one("Content-Type")) == (200, "text/event-stream")
    assert [frame.name for frame in frames(answer.body)] == [
        *("start", "output", "metric", "metric", "metric", "completed"),
    ]


async def test_stream_beats_async() -> None:
    """Where both are asked for there is a stream."""
    async with before(saying("b")) as server:
        answer = await server.ask("/predictions", ASYNC, STREAM)
    assert answer.one("Content-Type") == "text/event-stream"


# -- ids in use ------------------------------------------------------------------------------------


async def test_post_with_the_id_of_a_running_one_is_refused() -> None:
    """409: POST makes a new one or nothing."""
    played = Played()
    async with before(played) as server:
        await start_one(server)
        answer = await server.ask("/predictions", id="p")
        assert told(answer)[0] == 409
        await played.say(HEAD)
        await played.finish()


async def test_post_with_the_id_of_a_kept_one_is_refused() -> None:
    """409, in a shape like Cog's, which says what to do."""
    async with before(saying("b")) as server:
        await server.ask("/predictions", id="p")
        status, found = told(await server.ask("/predictions", id="p"))
    assert (status, found["status"]) == (409, "failed")
    assert "PUT /predictions/{id}" in str(found["error"])


async def test_id_of_another_key_is_free() -> None:
    """Both run under the same id, each with its own output."""
    played = Played()
    async with before(played, keys=(ALICE, BOB)) as server:
        for number, name in enumerate(("alice", "bob")):
            await start_one(server, bearer(name))
            await played.say(HEAD, piece(name), number=number)
            await played.finish(number)
            await server.kept("p", owner=name)
        answers = [await server.get("/predictions/p", bearer(name)) for name in ("alice", "bob")]
    assert [told(each)[1]["output"] for each in answers] == [["alice"], ["bob"]]


@pytest.mark.parametrize("ended", [False, True], ids=["running", "kept"])
async def test_prediction_of_another_key_is_not_seen(ended: bool) -> None:
    """Neither by GET nor by cancel, running or kept."""
    played = Played()
    async with before(played, keys=(ALICE, BOB)) as server:
        await start_one(server, bearer("alice"))
        await played.say(HEAD)
        if ended:
            await played.finish()
            await server.kept("p", owner="alice")
        seen = await server.get("/predictions/p", bearer("bob"))
        cancelled = await server.get("/predictions/p/cancel", bearer("bob"), method="POST")
        assert (seen.status, cancelled.status) == (404, 404)
        if not ended:
            await played.finish()


# -- PUT -------------------------------------------------------------------------------------------


async def test_put_makes_what_is_not_there() -> None:
    """As POST does, with the id of the path."""
    async with before(saying("b")) as server:
        status, found = told(await server.ask("/predictions/p", method="PUT"))
    assert (status, found["id"], found["status"]) == (200, "p", "succeeded")


@pytest.mark.parametrize("fields", [(), (ASYNC,)], ids=["blocking", "async"])
async def test_put_of_a_running_one_answers_its_snapshot(fields: tuple[str, ...]) -> None:
    """202 with what it has made so far, at once, and nothing more runs."""
    played = Played()
    async with before(played) as server:
        await start_one(server)
        await played.say(HEAD, piece("b"))
        await until(lambda: server.book.live((None, "p")).prediction.log.last_number == 2)  # type: ignore[union-attr]
        status, found = told(await server.ask("/predictions/p", *fields, method="PUT"))
        assert (status, found["status"], found["output"]) == (202, "processing", ["b"])
        await played.finish()
    assert len(played.requests) == 1


async def test_put_of_a_running_one_as_a_stream_joins_it() -> None:
    """What was before comes first, and the rest as it is made."""
    played = Played()
    async with before(played) as server, wire(server.port) as client:
        await start_one(server)
        await played.say(HEAD, piece("b"))
        await follow(client)
        await client.read_until(b'{"chunk":"b","index":0}')
        await played.say(piece("c"))
        await client.read_until(b'{"chunk":"c","index":1}')
        await played.finish()
        assert b"event: completed" in await client.read_to_end()
    assert len(played.requests) == 1


async def test_put_of_a_kept_one_answers_its_result() -> None:
    """200, the same object, and llama-server is not asked again."""
    played = Played()
    async with before(played) as server:
        await start_one(server)
        await played.say(HEAD, piece("b"))
        await played.finish()
        await server.kept("p")
        status, found = told(await server.ask("/predictions/p", method="PUT"))
    assert (status, found["output"], found["status"]) == (200, ["b"], "succeeded")
    assert len(played.requests) == 1


async def test_put_of_a_kept_one_as_a_stream_replays_it() -> None:
    """All of its events, numbered from 1."""
    async with before(saying("b", "c")) as server:
        first = await server.ask("/predictions/p", STREAM, method="PUT")
        again = await server.ask("/predictions/p", STREAM, method="PUT")
    assert frames(again.body) == frames(first.body)
    assert [frame.number for frame in frames(again.body)] == list(range(1, 8))


async def test_put_of_a_kept_one_resumes_after_the_last_event() -> None:
    """`Last-Event-ID` leaves out what the client has."""
    async with before(saying("b", "c")) as server:
        await server.ask("/predictions/p", STREAM, method="PUT")
        answer = await server.ask("/predictions/p", STREAM, "Last-Event-ID: 5", method="PUT")
    assert [frame.number for frame in frames(answer.body)] == [6, 7]


async def test_put_whose_body_names_another_id_is_refused() -> None:
    """422 in Cog's words."""
    async with before(saying("b")) as server:
        status, found = told(await server.ask("/predictions/p", method="PUT", id="q"))
    assert status == 422
    assert found["detail"][0]["loc"] == ["body", "id"]  # type: ignore[index]


# -- GET and cancel --------------------------------------------------------------------------------


async def test_get_of_a_running_one_is_its_snapshot() -> None:
    """200 while it runs."""
    played = Played()
    async with before(played) as server:
        await start_one(server)
        status, found = told(await server.get("/predictions/p"))
        assert status == 200
        assert found["status"] in {"starting", "processing"}
        await played.say(HEAD)
        await played.finish()


async def test_get_of_an_unknown_one_is_not_found() -> None:
    """404 in the shape of our errors."""
    async with before(saying()) as server:
        answer = await server.get("/predictions/p")
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


async def test_head_of_a_prediction_has_no_body() -> None:
    """Status and length are those of GET."""
    async with before(saying("b")) as server:
        await server.ask("/predictions", id="p")
        got = await server.get("/predictions/p")
        answer = await server.get("/predictions/p", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.one("Content-Length") == str(len(got.body))


async def test_large_answer_is_sent_in_pieces() -> None:
    """What is framed is copied: a slow client costs no more than a piece, however large it is."""
    pieces = list[bytes]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pieces.append(message.get("body", b""))

    async with before(saying(*["b" * 50_000] * 5)) as server:
        await server.ask("/predictions", id="p")
        routes = PredictionRoutes(server.book, server.backend)
        await routes(scope_of("PUT", "/predictions/p", principal=None), receive, send)
    assert max(map(len, pieces)) == 64 * 1024
    assert json.loads(b"".join(pieces))["output"] == ["b" * 50_000] * 5


async def test_cancel_of_a_running_one_ends_it() -> None:
    """200 `{}`, and it is `canceled` and not failed."""
    async with before(Played()) as server:
        await start_one(server)
        answer = await server.get("/predictions/p/cancel", method="POST")
        await server.kept("p")
        assert told(answer) == (200, {})
        assert server.book.counts == {"canceled": 1}
        assert server.causes == ["cancelled_by_client"]


async def test_cancel_of_one_that_waits_for_a_slot_ends_it() -> None:
    """It never began, and llama-server was never asked for it."""
    played = Played()
    async with before(played, slots=1) as server:
        await start_one(server)
        await start_one(server, name="q")
        await server.get("/predictions/q/cancel", method="POST")
        await server.kept("q")
        found = server.book.finished((None, "q"))
        assert found is not None
        assert found.log.last_number == 1
        await played.say(HEAD)
        await played.finish()
    assert len(played.requests) == 1


@pytest.mark.parametrize("made", [False, True], ids=["unknown", "ended"])
async def test_cancel_of_one_that_does_not_run_is_not_found(made: bool) -> None:
    """404 `{}`, as Cog says."""
    async with before(saying("b")) as server:
        if made:
            await server.ask("/predictions", id="p")
        answer = await server.get("/predictions/p/cancel", method="POST")
    assert told(answer) == (404, {})


async def test_second_cancel_is_not_found() -> None:
    """How it ends is decided already, though it has not ended."""
    async with before(Played()) as server:
        live = server.book.create(
            (None, "p"),
            read_request(b"", None, "p"),
            upstream_request({"prompt": "a"}),
            MadeFor.ITSELF,
            request_id="r",
        )
        live.end(EndCause.CANCELLED_BY_CLIENT)
        routes = PredictionRoutes(server.book, server.backend)
        with pytest.raises(NothingToCancel):
            await ask(routes, scope_of("POST", "/predictions/p/cancel", principal=None))


# -- refusals --------------------------------------------------------------------------------------


async def test_full_queue_is_told_in_cogs_words() -> None:
    """409, and when it may be worth to ask again."""
    async with before(Played(), slots=1, max_queue=0) as server:
        await start_one(server)
        answer = await server.ask("/predictions")
        assert told(answer) == (
            409,
            {"error": "At capacity - all prediction slots busy", "status": "failed"},
        )
        assert int(answer.one("Retry-After")) >= 1
        await server.get("/predictions/p/cancel", method="POST")


SETUP = "Setup has not finished yet. Wait until it has finished, or GET /health-check for status."


async def test_prediction_before_the_model_is_loaded_is_refused_in_cogs_words() -> None:
    """503, and nothing waits for it."""
    async with predicting(StagedEngine(ready=False)) as server:
        answer = await server.ask("/predictions", id="p")
        assert server.book.counts == {}
    assert told(answer) == (503, {"error": SETUP, "status": "failed"})


async def test_prediction_after_the_engine_has_failed_is_refused_in_cogs_words() -> None:
    """503 also then, as Cog; why is in `/health-check`."""
    engine = StagedEngine()
    async with predicting(engine) as server:
        engine.crash()
        engine.give_up()
        answer = await server.ask("/predictions")
    assert told(answer) == (503, {"error": SETUP, "status": "failed"})


async def test_prediction_while_shutting_down_is_refused_as_everything_else() -> None:
    """503 that says so: nobody waits for a setup that does not come."""
    async with before(saying()) as server:
        server.backend.shut_down()
        answer = await server.ask("/predictions")
    assert answer.status == 503
    assert "shutting down" in str(answer.error["message"])


async def test_what_llama_server_refuses_is_a_failed_prediction() -> None:
    """200 with its words, as Cog answers whatever went wrong in a prediction."""
    async with before(refusing(400, "no such grammar")) as server:
        status, found = told(await server.ask("/predictions"))
    assert (status, found["status"], found["error"]) == (200, "failed", "no such grammar")


async def test_too_many_subscribers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 to the one who is too many; the others stay."""
    monkeypatch.setattr(event_log, "MAX_SUBSCRIBERS", 1)
    played = Played()
    async with before(played) as server, wire(server.port) as client:
        await follow(client)
        await client.read_until(b"event: start")
        answer = await server.ask("/predictions/p", STREAM, method="PUT")
        assert told(answer) == (429, {"error": "Too many stream subscribers"})
        await played.say(HEAD)
        await played.finish()
        assert b"event: completed" in await client.read_to_end()


async def test_malformed_body_is_told_as_plain_text() -> None:
    """400, as Cog's parser says it."""
    async with before(saying()) as server:
        answer = await ask_port(server.port, Sent.json("/predictions", b"{"))
    assert answer.status == 400
    assert answer.one("Content-Type").startswith("text/plain")


async def test_body_that_is_too_large_is_refused() -> None:
    """413 by the guard, before anything is parsed."""
    async with before(saying()) as server:
        answer = await server.ask("/predictions", padding="x" * 5 * 1024 * 1024)
    assert answer.status == 413


@pytest.mark.parametrize("size", [0, 2 * 1024 * 1024], ids=["small", "large"])
async def test_large_body_is_parsed_beside_the_streams(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a megabyte on in a thread of its own."""
    threads = list[bool]()

    def noting(*given: object, **more: object) -> object:
        threads.append(threading.current_thread() is threading.main_thread())
        return read_request(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(routes_module, "read_request", noting)
    async with before(saying("b")) as server:
        status, _ = told(await server.ask("/predictions", padding="x" * size))
    assert (status, threads) == (200, [not size])


@pytest.mark.parametrize(("method", "target"), [("POST", ""), ("PUT", "/p")])
async def test_client_that_leaves_in_its_body_makes_nothing(method: str, target: str) -> None:
    """No prediction, and no error in the log."""
    async with before(Played()) as server:
        async with wire(server.port) as client:
            sent = Sent.json(f"/predictions{target}", {}, method=method)
            await client.send(sent.head("Content-Length: 100", "Expect: 100-continue"))
            await client.read_until(b"100 Continue")
            client.fin()
        assert server.book.counts == {}


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/predictions"),
        ("DELETE", "/predictions/p"),
        ("GET", "/predictions/p/cancel"),
        ("PUT", "/predictions/p/cancel"),
        ("GET", "/predictions/p/q"),
        ("GET", "/predictions/"),
        ("POST", "/health-check"),
        ("POST", "/openapi.json"),
    ],
)
async def test_other_methods_and_paths_are_not_found(method: str, target: str) -> None:
    """404 in the shape of our errors."""
    async with before(saying()) as server:
        answer = await server.get(target, method=method)
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


async def test_openapi_document_says_that_there_are_streams() -> None:
    """Cog's clients look for it there."""
    async with before(saying()) as server:
        status, found = told(await server.get("/openapi.json"))
    assert status == 200
    assert found["paths"]["/predictions"]["post"]["x-cog-streaming"] is True  # type: ignore[index]
    assert found["info"]["version"] == __version__  # type: ignore[index]


async def test_health_check_answers_head_too() -> None:
    """Probes ask so: the same status, and no body."""
    async with before(saying()) as server:
        answer = await server.get("/health-check", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.one("Content-Length")) > 100


async def test_caller_that_leaves_cancels_its_prediction() -> None:
    """And nobody is answered."""
    played = Played()
    async with before(played) as server:
        async with wire(server.port) as client:
            await client.post("/predictions", {"id": "p", "input": {"prompt": "a"}})
            await played.say(HEAD)
            client.fin()
            await server.kept("p")
        assert server.book.counts == {"canceled": 1}
        assert server.causes == ["client_disconnected"]
        with trio.fail_after(5):
            await played.requests[0].closed.wait()
