"""The oracle runs: what the conformance tests compare with is Cog, and does what a prompt says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.conformance.oracle.server import Oracle, running_oracle

PATIENCE_S = 20.0
SSE = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}


async def create(oracle: Oracle, body: dict[str, Any], **headers: str) -> httpx.Response:
    """Create a prediction and read the whole answer."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return await client.post(f"{oracle.url}/predictions", json=body, headers=headers)


async def snapshot(oracle: Oracle, prediction: str) -> httpx.Response:
    """Ask for a running prediction; Cog would run it again if it had ended."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return await client.put(f"{oracle.url}/predictions/{prediction}")


async def wait_begun(oracle: Oracle, name: str) -> None:
    """Wait until the runner plays this prompt."""
    with trio.fail_after(PATIENCE_S):
        while not oracle.has_begun(name):
            # A file is the only sign that the worker, another process, gives.
            await trio.sleep(0.005)


async def wait_idle(oracle: Oracle) -> None:
    """Wait until the slot is free again: Cog frees it after the answer."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        with trio.fail_after(PATIENCE_S):
            while (await client.get(f"{oracle.url}/health-check")).json()["status"] != "READY":
                await trio.sleep(0.005)


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a terminal object without the one value that always differs."""
    assert answer["metrics"].pop("predict_time") > 0
    return answer


@pytest.fixture
async def idle(oracle: Oracle) -> Oracle:
    """The oracle, free."""
    await wait_idle(oracle)
    return oracle


async def test_health_check_once_started_is_ready_in_the_pinned_version(idle: Oracle) -> None:
    """It is ready when the fixture says so, and the version that the tests are written for."""
    async with httpx.AsyncClient() as client:
        told = (await client.get(f"{idle.url}/health-check")).json()
    assert (told["status"], told["version"]["coglet"]) == ("READY", "0.23.1")


async def test_blocking_request_with_any_prompt_gets_the_chunks_of_the_fake(idle: Oracle) -> None:
    """A plain prompt is answered with the fake llama-server's five tokens."""
    answer = await create(idle, {"id": "blocking", "input": {"prompt": "hello"}})
    assert answer.status_code == 200
    assert without_time(answer.json()) == {
        "id": "blocking",
        "status": "succeeded",
        "output": ["t0 ", "t1 ", "t2 ", "t3 ", "t4 "],
        "logs": "",
        "metrics": {},
    }


async def test_async_request_is_answered_at_once_and_runs_until_told_to_end(idle: Oracle) -> None:
    """`respond-async` answers 202; the prediction is there under its id as long as it runs."""
    prompt = "?name=held&events=2&pace_s=3600"
    answer = await create(idle, {"id": "async", "input": {"prompt": prompt}}, **ASYNC)
    assert (answer.status_code, answer.json()) == (202, {"id": "async", "status": "starting"})
    await wait_begun(idle, "held")
    running = await snapshot(idle, "async")
    assert (running.status_code, running.json()["status"]) == (202, "processing")
    idle.end("held")


async def test_sse_request_gets_what_the_prompt_says_as_events(idle: Oracle) -> None:
    """Logs, metrics and tokens of a prompt come as Cog's events, in order."""
    prompt = "?events=2&log=hi&error_log=oh&metric=a.b:incr:2"
    answer = await create(idle, {"id": "sse", "input": {"prompt": prompt}}, **SSE)
    assert answer.headers["content-type"] == "text/event-stream"
    *frames, rest = answer.text.split("\n\n")
    assert rest == ""
    assert frames[:-1] == [
        'event: start\ndata: {"id":"sse","status":"processing"}',
        'event: log\ndata: {"data":"hi\\n","source":"stdout"}',
        'event: log\ndata: {"data":"oh\\n","source":"stderr"}',
        'event: metric\ndata: {"mode":"increment","name":"a.b","value":2}',
        'event: output\ndata: {"chunk":"t0 ","index":0}',
        'event: output\ndata: {"chunk":"t1 ","index":1}',
    ]
    event, data = frames[-1].split("\ndata: ")
    assert event == "event: completed"
    assert without_time(json.loads(data)) == {
        "id": "sse",
        "status": "succeeded",
        "output": ["t0 ", "t1 "],
        "logs": "hi\noh\n",
        "metrics": {"a": {"b": 2}},
    }


async def test_prompt_that_ends_badly_fails_the_prediction(idle: Oracle) -> None:
    """What cuts the fake's reply short makes the oracle's prediction fail."""
    answer = await create(idle, {"input": {"prompt": "?end=cut"}})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")


async def test_server_with_slots_runs_predictions_side_by_side(oracle_with_slots: Oracle) -> None:
    """With several slots one prediction is answered while another is held."""
    held = {"id": "held", "input": {"prompt": "?name=side&events=2&pace_s=3600"}}
    assert (await create(oracle_with_slots, held, **ASYNC)).status_code == 202
    await wait_begun(oracle_with_slots, "side")
    assert (await create(oracle_with_slots, {"input": {"prompt": "hello"}})).status_code == 200
    oracle_with_slots.end("side")


async def test_environment_is_that_of_the_server(tmp_path: Path) -> None:
    """Coglet's variables are set per server: without a history a late subscriber gets no past."""
    with running_oracle(tmp_path, COG_STREAM_HISTORY_CAPACITY="0") as oracle:
        held = {"id": "held", "input": {"prompt": "?name=late&events=2&pace_s=3600"}}
        assert (await create(oracle, held, **ASYNC)).status_code == 202
        with trio.fail_after(PATIENCE_S):
            while "output" not in (await snapshot(oracle, "held")).json():
                await trio.sleep(0.005)
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S) as client,
            client.stream("PUT", f"{oracle.url}/predictions/held", headers=SSE) as late,
        ):
            oracle.end("late")
            events = [line async for line in late.aiter_lines() if line.startswith("event:")]
    assert events == ["event: completed"]


def test_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A server that ends instead of serving is an error with its log, not a long wait."""
    with (
        pytest.raises(RuntimeError, match="did not start"),
        running_oracle(tmp_path, PYTHONPATH=str(tmp_path / "nowhere"), PYTHONHOME="/nowhere"),
    ):
        pass
