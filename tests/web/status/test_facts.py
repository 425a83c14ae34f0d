"""Where the facts come from: the exchanges, the engine, the gates, this process."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy._version import __version__
from proxy.core.causes import EndCause, Phase
from proxy.core.status.timings import Timings
from proxy.runtime.backend import Engine
from proxy.runtime.task_tree import task_tree
from proxy.web.status import facts as facts_module
from tests.fakes.staged_engine import StagedEngine, external_engine
from tests.web.status.staged_hub import followed, staged


async def engine_told(engine: Engine) -> dict[str, Any]:
    """Return what is told of an engine."""
    async with staged(engine) as stage:
        found: dict[str, Any] = stage.snapshot()["engine"]
        return found


# -- exchanges -------------------------------------------------------------------------------------


async def test_waiting_exchanges_have_their_place(autojump_clock: object) -> None:
    """From 1, in the order in which they came; who is through has none."""
    async with staged(slots=1) as stage:
        with stage.exchange("a") as a, stage.exchange("b") as b, stage.exchange("c") as c:
            gate = stage.backend.gate_for(gated=True, model=None)
            a.ticket, b.ticket, c.ticket = gate.enter(), gate.enter(), gate.enter()
            a.enter(Phase.CONNECTING)
            snapshot = stage.snapshot()
            places = [(each["request_id"], each["position"]) for each in snapshot["exchanges"]]
            assert places == [("a", 0), ("b", 1), ("c", 2)]
            assert snapshot["gates"] == [{"model": "", "permits": 1, "admitted": 1, "queued": 2}]
            b.release_permit()
            (_, _, last) = stage.snapshot()["exchanges"]
            assert last["position"] == 1


async def test_times_are_from_the_start_of_the_exchange(autojump_clock: object) -> None:
    """How long it waited, and when its first token came."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            await trio.sleep(1)
            exchange.admitted_at = trio.current_time()
            await trio.sleep(2)
            exchange.first_byte_at = trio.current_time()
            await trio.sleep(4)
            (found,) = stage.snapshot()["exchanges"]
            assert (found["queued_s"], found["first_token_s"], found["elapsed_s"]) == (1, 3, 7)


async def test_tokens_per_second_are_of_the_last_two_seconds(autojump_clock: object) -> None:
    """While somebody watches; nobody counts otherwise."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.enter(Phase.DECODE)
            assert stage.snapshot()["exchanges"][0]["tokens_per_second"] is None
            async with followed(stage) as seen:
                for _ in range(400):
                    exchange.sent.events += 1
                    await trio.sleep(0.01)
                rate = seen.statuses()[-1][1]["exchanges"][0]["tokens_per_second"]
                assert rate == pytest.approx(100, rel=0.02)


async def test_request_that_needs_no_slot_is_no_work(autojump_clock: object) -> None:
    """It is shown, and the model is idle."""
    async with staged() as stage:
        with stage.exchange("r1", route="/props", generates=False) as exchange:
            exchange.enter(Phase.DECODE)
            snapshot = stage.snapshot()
            assert [each["route"] for each in snapshot["exchanges"]] == ["/props"]
            assert (snapshot["phase"], snapshot["current"]) == ("idle", None)
        assert stage.snapshot()["perf_history"] == []
        assert stage.snapshot()["total_requests"] == 1


# -- the history -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", list(EndCause))
async def test_every_end_is_in_the_history(autojump_clock: object, cause: EndCause) -> None:
    """By its cause."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.end(cause)
        (entry,) = stage.snapshot()["perf_history"]
        assert (entry["request_id"], entry["cause"]) == ("r1", cause.value)


async def test_exchange_that_nobody_ended_ended_with_the_server(autojump_clock: object) -> None:
    """It was cancelled from outside."""
    async with staged() as stage:
        with stage.exchange():
            pass
        (entry,) = stage.snapshot()["perf_history"]
        assert entry["cause"] == "shutting_down"


async def test_history_has_the_last_fifty(autojump_clock: object) -> None:
    """Oldest first, whether anybody watches or not."""
    async with staged() as stage:
        for number in range(60):
            with stage.exchange(f"r{number}") as exchange:
                exchange.finish()
        found = [entry["request_id"] for entry in stage.snapshot()["perf_history"]]
        assert found == [f"r{number}" for number in range(10, 60)]


async def test_history_has_what_llama_server_measured(autojump_clock: object) -> None:
    """Rates of what was really prefilled and decoded."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.timings = Timings(10, 90, 100.0, 51, 1000.0, 40, 30)
            exchange.finish()
        (entry,) = stage.snapshot()["perf_history"]
        assert (entry["prefill_tokens"], entry["cached_tokens"]) == (10, 90)
        assert entry["prefill_tokens_per_second"] == 100
        assert (entry["decode_tokens"], entry["acceptance"]) == (51, 0.75)


# -- the engine ------------------------------------------------------------------------------------


async def test_crash_is_told_with_how_it_ended(autojump_clock: object) -> None:
    """The state, and the signal."""
    engine = StagedEngine()
    engine.crash()
    found = await engine_told(engine)
    assert found["state"] == "crashed"
    assert "SIGKILL" in found["last_exit"]
    assert found["uptime_s"] is None


async def test_failure_is_told_with_its_reason(autojump_clock: object) -> None:
    """In words; folders are nobody's business."""
    engine = StagedEngine()
    engine.crash()
    engine.give_up()
    found = await engine_told(engine)
    assert (found["state"], found["failure"]) == ("failed", "It crash-looped.")


async def test_log_is_the_last_twenty_lines_without_folders(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `/proxy/logs` tells them."""
    engine = StagedEngine()
    lines = [f"loading /secret/folder/tiny-{number}.gguf" for number in range(30)]
    monkeypatch.setattr(engine.logs, "tail", lambda count: lines[-count:])
    found = await engine_told(engine)
    assert len(found["log"]) == 20
    assert "tiny-29.gguf" in found["log"][-1]
    assert "secret" not in "".join(found["log"])


async def test_engine_of_somebody_else_has_no_process_and_no_log(autojump_clock: object) -> None:
    """Nothing of it is ours."""
    found = await engine_told(external_engine(slots=3))
    assert (found["managed"], found["pid"], found["log"]) == (False, None, [])
    assert (found["state"], found["slots"]) == ("ready", 3)


# -- this process ----------------------------------------------------------------------------------


async def test_process_is_told(autojump_clock: object) -> None:
    """Its memory is what the kernel says, its tasks those of the tree."""
    async with staged() as stage:
        await trio.sleep(3)
        snapshot = stage.snapshot()
        found = snapshot["proxy"]
        (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found["rss_bytes"] == pytest.approx(int(kib) * 1024, rel=0.2)
        assert found["version"] == __version__
        assert found["uptime_s"] == pytest.approx(3)
        assert found["tasks"] == count(snapshot["tasks"])
        assert "StatusHub.run" in str(snapshot["tasks"])


def count(tree: dict[str, Any]) -> int:
    """Return how many tasks a tree has."""
    return 1 + sum(map(count, tree["children"]))


async def test_memory_that_the_kernel_does_not_tell_is_null(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No error: not every system has that file."""
    strange = tmp_path / "statm"
    strange.write_text("strange")
    for path in (tmp_path / "none", strange):
        monkeypatch.setattr(facts_module, "_STATM", path)
        async with staged() as stage:
            assert stage.snapshot()["proxy"]["rss_bytes"] is None


async def test_task_tree_is_a_second_old_at_most(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs what nobody would see."""
    looks: list[float] = []

    def look() -> Any:
        looks.append(trio.current_time())
        return task_tree()

    monkeypatch.setattr(facts_module, "task_tree", look)
    async with staged() as stage:
        with stage.exchange():
            async with followed(stage) as seen:
                await trio.sleep(10)
                assert len(seen.statuses()) >= 40
        assert 10 <= len(looks) <= 12


async def test_now_and_start_are_unix_times(autojump_clock: object) -> None:
    """So that a page can say since when."""
    async with staged() as stage:
        with stage.exchange():
            await trio.sleep(5)
            snapshot = stage.snapshot()
            born = Path(f"/proc/{os.getpid()}").stat().st_mtime
            assert snapshot["now"] >= born - 1
            assert snapshot["now"] - snapshot["exchanges"][0]["started_at"] == pytest.approx(
                5, abs=0.1
            )


@pytest.mark.parametrize("content", [True, False])
async def test_snapshot_says_whether_texts_are_shown(autojump_clock: object, content: bool) -> None:
    """`full` or `none`."""
    async with staged(content=content) as stage:
        assert stage.snapshot()["content"] == ("full" if content else "none")
