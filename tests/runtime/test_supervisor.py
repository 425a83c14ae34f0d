"""Tests of `proxy.runtime.supervisor`: the real supervisor, a fake llama-server, real signals."""

from __future__ import annotations

import logging
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from proxy.core.errors import (
    ConfigError,
    EngineError,
    EngineFailed,
    EngineLoadFailed,
    EngineNotFound,
)
from proxy.core.lifecycle import EngineState, ExitStatus, RestartPolicy
from proxy.runtime.discovery import Discovered, find_engine
from proxy.runtime.outbound import ControlClient
from proxy.runtime.plan import DEMO_MODEL
from proxy.runtime.process import start_process
from proxy.runtime.supervisor import LlamaServer
from tests.fakes.engines import (
    FAKE,
    PATIENCE_S,
    fake_engine,
    nothing_left,
    running,
    wait_file,
    wait_gone,
    wait_state,
)

# The first question after the load makes it ready, the second one kills it.
CRASHES = ("--fake-exit-health", "2")


@pytest.fixture(autouse=True)
def base(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Give a temporary folder of our own; assert that no child, descriptor or folder is left."""
    tmp_path_factory.getbasetemp()  # Made now, that of pytest does not come to lie in ours.
    with nothing_left(), tempfile.TemporaryDirectory(prefix="t-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).glob("llama-proxy-*")) == []


def states_of(engine: LlamaServer) -> list[str]:
    """Return a list that grows with each state that an observer is told."""
    seen: list[str] = []
    engine.watch(lambda: seen.append(str(engine.state)))
    return seen


async def failure_of(engine: LlamaServer) -> EngineError:
    """Run an engine whose first load fails; return what `run` raised."""
    with pytest.raises(EngineError) as caught, trio.fail_after(PATIENCE_S):
        await engine.run()
    assert engine.state is EngineState.FAILED
    assert engine.failure is not None
    assert engine.failure.reason == caught.value.reason
    return caught.value


async def crash(engine: LlamaServer, how: str = "code=3") -> None:
    """Have the fake die at once."""
    with pytest.raises(Exception, match="closed the connection"):
        await ControlClient(engine.address, engine.api_key).get_json(f"/fake/crash?{how}")


# --- launch


async def test_run_states_are_told_once_each_in_order() -> None:
    """Observers see every change, once, and nothing else."""
    engine = fake_engine()
    seen = states_of(engine)
    async with running(engine):
        pass
    assert seen == ["starting", "ready", "stopping", "stopped"]


async def test_run_ready_slots_and_name_are_known_when_observers_are_told() -> None:
    """Who opens its gate at `ready` finds the number of slots there."""
    engine = fake_engine("--fake-slots", "7")
    seen: list[object] = []
    engine.watch(lambda: seen.append((str(engine.state), engine.total_slots, engine.model)))
    async with running(engine):
        assert ("ready", 7, "tiny") in seen


async def test_run_props_without_slots_leaves_them_unknown() -> None:
    """A router, or another server, tells no number."""
    async with running(fake_engine("--fake-slots", "0")) as engine:
        assert engine.total_slots is None


async def test_watch_unsubscribed_observer_is_not_called() -> None:
    """Who has left is not told."""
    engine = fake_engine()
    seen: list[int] = []
    engine.watch(lambda: seen.append(1))()
    async with running(engine):
        assert seen == []


@pytest.mark.parametrize("state", [EngineState.STARTING, EngineState.READY, EngineState.CRASHED])
async def test_watch_observer_that_raises_ends_run_and_leaves_nothing(state: EngineState) -> None:
    """A defect of an observer is heard of, and costs no process."""
    engine = fake_engine("--fake-exit-health", "2", probe_interval_s=0.01)

    def observe() -> None:
        if engine.state is state:
            raise ZeroDivisionError

    engine.watch(observe)
    with pytest.raises(ExceptionGroup) as caught, trio.fail_after(PATIENCE_S):
        await engine.run()
    assert caught.group_contains(ZeroDivisionError)


async def test_run_started_is_told_before_ready() -> None:
    """The caller goes on while the model loads: `/health` has to answer meanwhile."""
    async with running(fake_engine("--fake-load-s", "30"), ready=False) as engine:
        assert engine.state is EngineState.STARTING
        assert engine.pid is not None


async def test_launch_socket_is_in_a_folder_of_ours_alone(base: Path) -> None:
    """Nobody else on the machine can reach llama-server."""
    async with running(fake_engine()) as engine:
        folder = Path(engine.address.uds or "").parent
        assert folder.parent == base
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_launch_key_is_in_the_environment_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key is random, not in argv, not in our repr, and hidden in the log."""
    monkeypatch.setenv("LLAMA_PROXY_API_KEY", "client-secret")
    async with running(fake_engine("--fake-tell-key")) as engine:
        key = engine.api_key
        process = Path(f"/proc/{engine.pid}")
        assert len(bytes.fromhex(key)) == 32
        assert f"LLAMA_API_KEY={key}".encode() in (process / "environ").read_bytes()
        assert b"client-secret" not in (process / "environ").read_bytes()
        assert key.encode() not in (process / "cmdline").read_bytes()
        assert key not in repr(engine) + "".join(engine.logs.tail(100))
        assert "[hidden]" in "".join(engine.logs.tail(100))


async def test_launch_each_has_a_key_of_its_own() -> None:
    """A key that leaked is worth nothing after a restart."""
    async with running(fake_engine()) as engine:
        before = engine.api_key
        await engine.restart()
        assert engine.api_key != before


async def test_launch_on_loopback_learns_the_port_from_the_log() -> None:
    """Where there are no unix sockets, the system chooses the port."""
    async with running(fake_engine(use_unix_socket=False)) as engine:
        assert engine.address.uds is None
        assert engine.address.port > 0
        assert await ControlClient(engine.address, engine.api_key).health() == 200


async def test_launch_without_a_folder_falls_back_to_loopback(
    monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    """A temporary folder that cannot be used does not keep the engine down."""
    monkeypatch.setattr(
        "proxy.runtime.supervisor.make_private_dir", _raises(OSError("no space left"))
    )
    async with running(fake_engine()) as engine:
        assert engine.address.port > 0


def _raises(error: Exception) -> object:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_args": ["--port", "1"]},
        {"model_path": "x", "extra_args": ["-m", "y"]},
        {"model_path": "x", "router": True},
    ],
    ids=["owned argument", "two models", "model for a router"],
)
def test_constructor_contradiction_is_refused(settings: dict[str, object]) -> None:
    """What cannot be launched is told before anything starts."""
    with pytest.raises(ConfigError):
        LlamaServer(Discovered("binary", ("x",), "x"), **settings)  # type: ignore[arg-type]


async def test_launch_without_model_serves_the_demo_model() -> None:
    """No model named: the packaged one."""
    async with running(fake_engine(model_path=None)) as engine:
        assert engine.model == "demo"


async def test_launch_router_names_no_model() -> None:
    """In router mode llama-server is given no model, not even by the environment."""
    environ = {**os.environ, "LLAMA_ARG_MODEL": "x", "LLAMA_ARG_HF_REPO": "x"}
    async with running(fake_engine(model_path=None, router=True, environ=environ)) as engine:
        process = Path(f"/proc/{engine.pid}")
        assert b"--model" not in (process / "cmdline").read_bytes()
        assert b"LLAMA_ARG_" not in (process / "environ").read_bytes()


async def test_run_twice_is_refused() -> None:
    """One engine, one life."""
    async with running(fake_engine()) as engine:
        with pytest.raises(RuntimeError):
            await engine.run()


# --- loading


async def test_load_longer_than_the_stall_time_succeeds_while_it_logs() -> None:
    """The stall deadline is extended by every log line: a large model may take its time."""
    async with running(fake_engine("--fake-load-s", "2.2", load_stall_s=1.5)) as engine:
        assert engine.state is EngineState.READY


async def test_load_that_falls_silent_fails_as_stalled() -> None:
    """A load that says nothing for the stall time has failed; the process is gone."""
    engine = fake_engine("--fake-stall", load_stall_s=0.3)
    error = await failure_of(engine)
    assert isinstance(error, EngineLoadFailed)
    assert error.reason == "llama-server logged nothing for 0.3 s while it was loading."
    assert "listening" in "".join(error.log_tail)


async def test_load_progress_is_shown_while_it_loads() -> None:
    """Dots without a line's end count, too."""
    engine = fake_engine("--fake-load-dots", "--fake-load-s", "0.5")
    seen: set[float | None] = set()
    async with running(engine, ready=False):
        with trio.fail_after(PATIENCE_S):
            while engine.state is EngineState.STARTING:
                seen.add(engine.load_progress)
                with trio.move_on_after(0.01):
                    await engine.next_lines(engine.logs.next_number)
    assert None in seen
    assert any(0 < each < 1 for each in seen if each is not None)
    assert engine.load_progress == 1.0


async def test_load_exit_fails_at_once_with_the_reason_and_the_log(base: Path) -> None:
    """A broken model is told in llama-server's words and ours; it is not tried again."""
    line = "E gguf_init_from_reader: invalid magic characters: '????', expected 'GGUF'"
    engine = fake_engine("--fake-say", line, "--fake-exit-after", "0")
    error = await failure_of(engine)
    assert isinstance(error, EngineLoadFailed)
    assert error.reason == "The model file is not a GGUF file."
    assert line in error.log_tail[-1]
    assert (engine.generation, engine.last_exit) == (1, ExitStatus(1))


async def test_load_killed_by_the_system_is_told_as_out_of_memory() -> None:
    """Signal 9 that nobody of us sent is the kernel's way to make room."""
    error = await failure_of(fake_engine("--fake-exit-after", "0", "--fake-exit-code", "-9"))
    assert "ran out of memory" in error.reason


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        (None, EngineNotFound, "not there any more"),
        (0o644, EngineLoadFailed, "may not be executed"),
        (0o755, EngineLoadFailed, "not made for this machine"),
    ],
    ids=["missing", "not executable", "another machine's"],
)
async def test_load_program_that_cannot_be_executed_fails_at_once(
    tmp_path: Path, mode: int | None, kind: type[EngineError], words: str
) -> None:
    """What the system refuses is told in a sentence; `run` has not even started."""
    program = tmp_path / "llama-server"
    if mode is not None:
        program.write_text("junk")
        program.chmod(mode)
    engine = LlamaServer(Discovered("binary", (str(program),), "a test"), model_path="x")
    error = await failure_of(engine)
    assert type(error) is kind
    assert words in error.reason


async def test_wait_ready_failed_load_raises_for_everybody_who_waits() -> None:
    """Each waiter gets an error of its own, of the same kind."""
    engine = fake_engine("--fake-stall", "--fake-exit-after", "0.2")
    caught: list[BaseException] = []

    async def wait() -> None:
        with pytest.raises(EngineLoadFailed) as error:
            await engine.wait_ready()
        caught.append(error.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await failure_of(engine)
    assert len({id(each) for each in caught}) == 2


async def test_cancel_during_load_leaves_nothing() -> None:
    """A start that is given up is given up completely."""
    engine = fake_engine("--fake-stall")
    async with running(engine, ready=False):
        await engine.next_lines(0)
    assert engine.state is EngineState.STOPPED


async def test_flood_of_log_lines_neither_blocks_nor_grows() -> None:
    """A llama-server that logs without end gets ready, and its log stays bounded."""
    async with running(fake_engine("--fake-spew")) as engine:
        while engine.logs.next_number < 5000:
            await engine.next_lines(engine.logs.next_number)
        assert len(engine.logs.tail(10_000)) == 500


# --- crash, hang, restart


@pytest.mark.parametrize(
    ("how", "status"), [("code=3", ExitStatus(3)), ("signal=9", ExitStatus(-9))]
)
async def test_crash_is_noticed_and_restarted(how: str, status: ExitStatus) -> None:
    """The wait on the process sees its end; the next launch serves on the same path again."""
    engine = fake_engine()
    seen = states_of(engine)
    async with running(engine):
        await crash(engine, how)
        with trio.fail_after(PATIENCE_S):
            assert await engine.wait_exited(1) == status
            await engine.wait_ready()
        assert engine.last_exit == status
        assert (engine.generation, engine.restarts) == (2, 1)
        assert await ControlClient(engine.address, engine.api_key).health() == 200
    assert seen[:5] == ["starting", "ready", "crashed", "starting", "ready"]


async def test_wait_exited_returns_when_the_process_ends_not_before() -> None:
    """An exchange that watches its launch is told once, with how it ended."""
    async with running(fake_engine()) as engine:
        told: list[ExitStatus] = []

        async def wait() -> None:
            told.append(await engine.wait_exited(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert told == []
            os.kill(engine.pid or 0, signal.SIGKILL)
        assert told == [ExitStatus(-9)]


async def test_crash_grandchild_of_the_crashed_is_gone(tmp_path: Path) -> None:
    """What a crashed llama-server had forked does not hold the memory of the next one."""
    pid_file = tmp_path / "pid"
    async with running(fake_engine("--fake-grandchild", str(pid_file))) as engine:
        grandchild = int(await wait_file(pid_file))
        pid_file.unlink()
        await crash(engine)
        await wait_gone(grandchild)


async def test_crash_loop_fails_with_the_reason_and_the_log() -> None:
    """More crashes than the policy allows: `failed`, with why, and no more launches."""
    engine = fake_engine(*CRASHES, "--fake-exit-code", "5", probe_interval_s=0.01)
    async with running(engine):
        await wait_state(engine, EngineState.FAILED)
        assert isinstance(engine.failure, EngineFailed)
        assert "crashed 6 times in 60 s" in engine.failure.reason
        assert "exit code 5" in engine.failure.reason
        assert "model loaded" in engine.failure.log_tail[-1]
        assert engine.generation == 6
        with pytest.raises(EngineFailed):
            await engine.wait_ready()


async def test_restart_out_of_failed_serves_again(tmp_path: Path) -> None:
    """Somebody who has repaired what was wrong need not restart the proxy."""
    plan = tmp_path / "plan"
    plan.write_text("--fake-exit-health 2\n" * 2 + "\n")
    policy = RestartPolicy(first_delay_s=0.01, max_crashes=1)
    options = ("--fake-plan", str(plan))
    engine = fake_engine(*options, restart_policy=policy, probe_interval_s=0.01)
    async with running(engine):
        await wait_state(engine, EngineState.FAILED)
        await engine.restart()
        with trio.fail_after(PATIENCE_S):
            await engine.wait_ready()
        assert engine.failure is None
        assert engine.generation == 3


async def test_exit_on_failed_run_raises_with_the_log() -> None:
    """Under a service manager the end of the process is the alarm."""
    engine = fake_engine(*CRASHES, exit_on_failed=True, probe_interval_s=0.01)
    with pytest.raises(EngineFailed) as caught, trio.fail_after(PATIENCE_S):
        await engine.run()
    assert caught.value.log_tail


async def test_crash_during_a_later_load_is_restarted(tmp_path: Path) -> None:
    """Only the first load is not tried again."""
    plan = tmp_path / "plan"
    plan.write_text("\n--fake-exit-after 0\n\n")
    async with running(fake_engine("--fake-plan", str(plan))) as engine:
        await crash(engine)
        await engine.wait_exited(2)
        with trio.fail_after(PATIENCE_S):
            await engine.wait_ready()
        assert engine.generation == 3


async def test_program_that_vanishes_before_a_restart_counts_as_a_crash(tmp_path: Path) -> None:
    """An upgrade that is under way is waited for, as long as the policy allows."""
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE} "$@"\n')
    program.chmod(0o755)
    policy = RestartPolicy(first_delay_s=0.01, max_crashes=2)
    discovered = Discovered("binary", (str(program),), "a test")
    engine = LlamaServer(discovered, model_path="x", restart_policy=policy)
    async with running(engine):
        program.unlink()
        os.kill(engine.pid or 0, signal.SIGKILL)
        await wait_state(engine, EngineState.FAILED)
        assert engine.failure is not None
        assert "not there any more" in engine.failure.reason


async def test_hung_engine_is_found_by_the_probe_and_restarted() -> None:
    """SIGSTOP leaves the process and its socket alive; only asking tells."""
    engine = fake_engine(probe_interval_s=0.02, probe_timeout_s=0.1, hung_after=2)
    async with running(engine):
        os.kill(engine.pid or 0, signal.SIGSTOP)
        with trio.fail_after(PATIENCE_S):
            assert await engine.wait_exited(1) == ExitStatus(-9)
            await engine.wait_ready()
        assert engine.generation == 2


async def test_hung_engine_that_sends_is_left_alone_until_it_does_not() -> None:
    """Whoever relays its bytes says so: a server too busy for the probe is not killed."""
    options = ("--fake-hang-after", "1")
    engine = fake_engine(*options, probe_interval_s=0.01, probe_timeout_s=0.05, hung_after=2)
    async with running(engine):
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                engine.note_activity()
                sent += 1
                await trio.sleep(0.01)
        assert sent > 10
        assert engine.generation == 1
        with trio.fail_after(PATIENCE_S):
            await engine.wait_exited(1)


async def test_restart_gives_a_new_process() -> None:
    """The old one is gone, and was asked to go, before the new one comes."""
    engine = fake_engine()
    seen = states_of(engine)
    async with running(engine):
        before = engine.pid
        await engine.restart()
        assert engine.pid != before
        assert engine.last_exit == ExitStatus(0)
        assert seen == ["starting", "ready", "stopping", "stopped", "starting"]
        assert engine.restarts == 0


async def test_restart_during_the_backoff_does_not_wait_for_it() -> None:
    """Somebody who asks is not made to wait half a minute."""
    policy = RestartPolicy(first_delay_s=3600.0, max_delay_s=3600.0)
    async with running(fake_engine(restart_policy=policy)) as engine:
        await crash(engine)
        await wait_state(engine, EngineState.CRASHED)
        with trio.fail_after(PATIENCE_S):
            await engine.restart()
            await engine.wait_ready()


async def test_restart_of_several_at_once_is_one_restart() -> None:
    """Two people who press the button get one new process."""
    async with running(fake_engine()) as engine:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(engine.restart)
        assert engine.generation == 2


async def test_stop_ends_run_and_whoever_waits_is_told() -> None:
    """After `stop` there is no process, and nothing will bring one back."""
    engine = fake_engine()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.wait_ready()
        with trio.fail_after(PATIENCE_S):
            await engine.stop()
        assert (engine.state, engine.pid) == (EngineState.STOPPED, None)
    with pytest.raises(EngineFailed, match="stopped"):
        await engine.wait_ready()
    with pytest.raises(EngineFailed, match="stopped"):
        await engine.restart()
    await engine.stop()


async def test_stop_during_the_backoff_ends_run() -> None:
    """A crashed engine is stopped without being launched again."""
    policy = RestartPolicy(first_delay_s=3600.0, max_delay_s=3600.0)
    async with running(fake_engine(restart_policy=policy)) as engine:
        await crash(engine)
        await wait_state(engine, EngineState.CRASHED)
        with trio.fail_after(PATIENCE_S):
            await engine.stop()
        assert engine.state is EngineState.STOPPED


# --- the end


async def test_cancel_llama_server_stops_in_order() -> None:
    """It gets SIGTERM, and the time that it needs."""
    async with running(fake_engine("--fake-stop-s", "0.2")) as engine:
        pass
    assert engine.last_exit == ExitStatus(0)
    assert "bye" in engine.logs.tail(1)[0]


async def test_cancel_output_is_drained_while_it_stops() -> None:
    """A llama-server that says much at its end does not block in its pipe."""
    async with running(fake_engine("--fake-stop-spew")) as engine:
        pass
    assert engine.last_exit == ExitStatus(0)


async def test_cancel_llama_server_that_does_not_stop_is_killed_with_its_group(
    tmp_path: Path,
) -> None:
    """After the grace everything of it is killed, also what it forked."""
    pid_file = tmp_path / "pid"
    options = ("--fake-ignore-sigterm", "--fake-grandchild", str(pid_file))
    async with running(fake_engine(*options, stop_grace_s=0.1)) as engine:
        grandchild = int(await wait_file(pid_file))
    assert engine.last_exit == ExitStatus(-9)
    await wait_gone(grandchild)


async def test_cancel_during_the_backoff_leaves_nothing() -> None:
    """There is nothing to stop, and the state says so."""
    policy = RestartPolicy(first_delay_s=3600.0, max_delay_s=3600.0)
    async with running(fake_engine(restart_policy=policy)) as engine:
        await crash(engine)
        await wait_state(engine, EngineState.CRASHED)
    assert engine.state is EngineState.STOPPED


async def test_owner_killed_nothing_stays_but_a_folder_and_that_till_the_next_start(
    tmp_path: Path, base: Path
) -> None:
    """SIGKILL of the owner ends llama-server and what it forked; the next start cleans up."""
    pid_file = tmp_path / "pid"
    argv = [str(FAKE.with_name("engine_owner.py")), "engine", "--fake-grandchild", str(pid_file)]
    output = bytearray()
    owner = start_process(
        [sys.executable, *argv], env={**os.environ, "TMPDIR": str(base)}, on_output=output.extend
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.drain)
        with trio.fail_after(PATIENCE_S):
            while b"\n" not in output:
                await trio.sleep(0.005)
        grandchild = int(await wait_file(pid_file))
        os.kill(owner.pid, signal.SIGKILL)
        await owner.wait()
        owner.reap()
        await owner.release()
    pid, folder = output.decode().split()
    await wait_gone(int(pid))
    await wait_gone(grandchild)
    assert Path(folder).exists()
    async with running(fake_engine()):
        assert not Path(folder).exists()


# --- the log


async def test_next_lines_follower_gets_what_comes_after() -> None:
    """A follower waits for the next line, and resumes by number."""
    async with running(fake_engine(), ready=False) as engine:
        with trio.fail_after(PATIENCE_S):
            first = await engine.next_lines(0)
            second = await engine.next_lines(first.next_number)
        assert first.lines[0].endswith("initializing ...")
        assert second.lines
        assert second.lines[0] not in first.lines


async def test_log_one_line_for_each_change_and_llama_servers_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The operator reads what the engine does; llama-server's own words come on request."""
    with caplog.at_level(logging.DEBUG, "proxy.engine"):
        async with running(fake_engine()):
            pass
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    assert [line.split(":")[0] for line in told] == [
        "llama-server stopped -> starting",
        "llama-server starting -> ready",
        "llama-server ready -> stopping",
        "llama-server stopping -> stopped",
    ]
    quiet = [r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG]
    assert any("model loaded" in line for line in quiet)


# --- llama.cpp itself, as the embedded runtime has it


def embedded_engine(model: Path, *options: str) -> LlamaServer:
    """Return an engine that runs llama.cpp's own server."""
    policy = RestartPolicy(first_delay_s=0.01)
    found = find_engine("embedded", os.environ)
    return LlamaServer(found, model_path=model, extra_args=options, restart_policy=policy)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "not a GGUF"),
        (b"no model at all", "not a GGUF"),
        (DEMO_MODEL.read_bytes()[:100_000], "damaged or incomplete"),
    ],
    ids=["missing", "empty", "another kind", "cut off"],
)
async def test_llama_cpp_model_that_cannot_be_loaded_is_told_why(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    """The reason is read from what llama.cpp really says."""
    model = tmp_path / "model.gguf"
    if content is not None:
        model.write_bytes(content)
    error = await failure_of(embedded_engine(model))
    assert words in error.reason
    assert str(tmp_path) not in error.reason
    assert any("exiting due to model loading error" in line for line in error.log_tail)


async def test_llama_cpp_unknown_argument_is_told_by_name() -> None:
    """The user reads which of their arguments is wrong."""
    error = await failure_of(embedded_engine(DEMO_MODEL, "--bogus"))
    assert error.reason == "llama-server does not know the argument --bogus."


async def test_llama_cpp_killed_serves_again_on_the_same_path() -> None:
    """The socket's file survives SIGKILL; the next launch binds there nevertheless."""
    async with running(embedded_engine(DEMO_MODEL)) as engine:
        address = engine.address
        os.kill(engine.pid or 0, signal.SIGKILL)
        with trio.fail_after(PATIENCE_S):
            await engine.wait_exited(1)
            await engine.wait_ready()
        assert engine.address == address
        assert (engine.model, engine.total_slots) == ("demo", 4)
    assert engine.last_exit == ExitStatus(0)
