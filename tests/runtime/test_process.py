"""Tests of `proxy.runtime.process` and what it is made of, with real processes."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from proxy.core.lifecycle import ExitStatus
from proxy.runtime.process import ManagedProcess, start_process
from tests.fakes.engines import FAKE, PATIENCE_S, nothing_left, wait_file, wait_gone

OWNER = FAKE.with_name("engine_owner.py")
# With and without what only Linux has: the second is what other systems run.
KERNEL = pytest.mark.parametrize("use_kernel", [True, False], ids=["linux", "portable"])


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Assert after each test that no child and no descriptor is left."""
    with nothing_left():
        yield


@asynccontextmanager
async def started(
    *argv: str, output: bytearray | None = None, use_kernel: bool = True, site: bool = False
) -> AsyncIterator[ManagedProcess]:
    """Run a Python program while the block runs, then end and release it."""
    sink = bytearray() if output is None else output
    process = start_process(
        [sys.executable, *([] if site else ["-S", "-E"]), *argv],
        env=dict(os.environ),
        on_output=sink.extend,
        use_kernel=use_kernel,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.drain)
        try:
            yield process
        finally:
            with trio.move_on_after(PATIENCE_S, shield=True):
                await process.stop(0)
                process.reap()
                await process.release()


@KERNEL
async def test_wait_process_that_exits_is_noticed_with_its_code(use_kernel: bool) -> None:
    """The end of the process wakes the waiter; the code is what it exited with."""
    async with started("-c", "raise SystemExit(7)", use_kernel=use_kernel) as process:
        await process.wait()
        assert process.reap() == ExitStatus(7)


@KERNEL
async def test_wait_cancelled_can_be_repeated(use_kernel: bool) -> None:
    """A cancelled wait loses nothing."""
    code = "import sys; sys.stdin.read()" if not use_kernel else "import time; time.sleep(3600)"
    async with started("-c", code, use_kernel=use_kernel) as process:
        with trio.CancelScope() as scope:
            scope.cancel()
            await process.wait()
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert process.reap() == ExitStatus(-9)


async def test_reap_keeps_the_first_answer() -> None:
    """Reaping twice is harmless: the pid may belong to another process by then."""
    async with started("-c", "") as process:
        await process.wait()
        assert process.reap() is process.reap()


@KERNEL
async def test_drain_all_output_arrives_also_the_last(use_kernel: bool) -> None:
    """What the process writes just before it exits, on either stream, is not lost."""
    code = "import os; os.write(1, b'o' * 300_000); os.write(2, b'e' * 300_000); os._exit(1)"
    output = bytearray()
    async with started("-c", code, output=output, use_kernel=use_kernel) as process:
        await process.wait()
    assert (output.count(b"o"), output.count(b"e")) == (300_000, 300_000)


async def test_start_process_own_session_and_default_input() -> None:
    """It is the leader of its own session, and has no terminal to read from."""
    code = "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()), flush=True)"
    output = bytearray()
    async with started("-c", code, output=output) as process:
        await process.wait()
    assert output == b"True ''\n"


@KERNEL
async def test_start_process_leaks_no_descriptor_into_the_child(use_kernel: bool) -> None:
    """Not even a descriptor that is marked as inheritable."""
    code = "import os; print(sorted(os.listdir('/proc/self/fd')), flush=True)"
    output = bytearray()
    with tempfile.TemporaryFile() as ours:
        os.set_inheritable(ours.fileno(), True)
        async with started("-c", code, output=output, use_kernel=use_kernel) as process:
            await process.wait()

    assert output == b"['0', '1', '2', '3']\n"


@pytest.mark.parametrize(
    ("content", "mode", "error"),
    [(None, 0, FileNotFoundError), ("", 0o644, PermissionError), ("junk", 0o755, OSError)],
    ids=["missing", "not executable", "not a program"],
)
async def test_start_process_that_cannot_be_executed_raises_and_leaves_nothing(
    tmp_path: Path, content: str | None, mode: int, error: type[OSError]
) -> None:
    """The system's error comes at once; the pipe is closed again."""
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    with pytest.raises(error):
        start_process([str(program)], env={}, on_output=lambda data: None)


async def test_stop_polite_process_ends_by_sigterm() -> None:
    """SIGTERM is enough for a process that listens to it."""
    async with started("-c", "import signal; print(1, flush=True); signal.pause()") as process:
        await process.stop(PATIENCE_S)
        assert process.reap() == ExitStatus(-signal.SIGTERM)


async def test_stop_stopped_process_is_woken_to_hear_sigterm() -> None:
    """A process under SIGSTOP acts on SIGTERM only after SIGCONT."""
    async with started("-c", "import signal; signal.pause()") as process:
        os.kill(process.pid, signal.SIGSTOP)
        await process.stop(PATIENCE_S)
        assert process.reap() == ExitStatus(-signal.SIGTERM)


@KERNEL
async def test_stop_process_that_ignores_sigterm_is_killed_after_the_grace(
    use_kernel: bool,
) -> None:
    """The grace is bounded."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    output = bytearray()
    async with started(
        "-c", f"{code}; time.sleep(3600)", output=output, use_kernel=use_kernel
    ) as it:
        while b"up" not in output:
            await trio.sleep(0.005)  # Until it ignores the signal; another process has no event.
        await it.stop(0.05)
        assert it.reap() == ExitStatus(-signal.SIGKILL)


@KERNEL
async def test_reap_grandchild_that_ignores_signals_is_killed(
    tmp_path: Path, use_kernel: bool
) -> None:
    """Whatever the process forked ends with it, also when the process itself just crashed."""
    pid_file = tmp_path / "pid"
    argv = (str(FAKE), "--port", "0", "--fake-grandchild", str(pid_file))
    async with started(*argv, use_kernel=use_kernel) as process:
        grandchild = int(await wait_file(pid_file))
        os.kill(process.pid, signal.SIGSEGV)
        await process.wait()
        process.reap()
        await wait_gone(grandchild)


async def test_release_process_outside_the_group_holds_the_pipe_is_not_waited_for() -> None:
    """A daemon that left the group and kept our pipe delays the end by half a second, no more."""
    code = (
        "import os, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(3600)"
    )
    output = bytearray()
    async with started("-c", code, output=output) as process:
        while b"\n" not in output:
            await trio.sleep(0.005)
        await process.wait()
    os.kill(int(output), signal.SIGKILL)
    await wait_gone(int(output))


@KERNEL
async def test_owner_killed_child_and_grandchild_die_too(tmp_path: Path, use_kernel: bool) -> None:
    """SIGKILL leaves the owner no time to clean up, and still nothing of it stays."""
    pid_file = tmp_path / "pid"
    mode = "linux" if use_kernel else "portable"
    argv = ("process", mode, "--fake-grandchild", str(pid_file))
    output = bytearray()
    async with started(str(OWNER), *argv, output=output, site=True) as owner:
        while b"\n" not in output:
            await trio.sleep(0.005)
        child = int(output)
        grandchild = int(await wait_file(pid_file))
        os.kill(owner.pid, signal.SIGKILL)
        await wait_gone(child)
        await wait_gone(grandchild)
