"""P5: llama-server never outlives the proxy, nor does anything it forked; with the real command."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from tests.cli.test_serve import FAKE, Served, serving
from tests.fakes.engines import wait_file, wait_gone
from tests.promises.replies import last_error
from tests.promises.wire import PATIENCE_S, Wire, wire

CHAT = "/v1/chat/completions"
STREAM = {"messages": [{"role": "user", "content": "Go on."}], "stream": True}
ENDLESS = {**STREAM, "ignore_eos": True, "max_tokens": 30000}

each_engine = pytest.mark.parametrize("engine", ["embedded", FAKE], ids=["embedded", "fake"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: llama-server's unix socket is somewhere below it."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@contextmanager
def ready(folder: Path, *arguments: str) -> Iterator[Served]:
    """Run the command while the block runs; ready on entry."""
    with serving(folder, *arguments) as served:
        served.read_notice()
        yield served


def port_of(served: Served) -> int:
    """Return the TCP port of a command that is ready."""
    port = urlsplit(served.ready["url"]).port
    assert port is not None
    return port


async def stream_begun(client: Wire, path: str = CHAT, body: object = ENDLESS) -> None:
    """Ask for a stream, and wait for its first event."""
    await client.post(path, body, "Connection: close")
    await client.read_until(b"data:")


def descendants(pid: int) -> set[int]:
    """Return the processes that `pid` started, and those that they started."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | descendants(child)
    return found


def folders(served: Served) -> list[Path]:
    """Return the private folders in the command's temporary folder."""
    return sorted(served.temporary.glob("llama-proxy-*"))


async def end_of(served: Served) -> int:
    """Wait for the command's end; return its status, once it is seen that it left nothing."""
    return await trio.to_thread.run_sync(served.wait_gone)


# --- SIGKILL ---


@each_engine
async def test_killed_proxy_takes_everything_with_it(folder: Path, engine: str) -> None:
    """While streams run; their clients see a connection that breaks, not an answer that ends."""
    with ready(folder, "--llama-server", engine) as served:
        path = CHAT if engine == "embedded" else f"{CHAT}?events=100000&pace_s=0.01"
        async with wire(port_of(served)) as first, wire(port_of(served)) as second:
            await stream_begun(first, path)
            await stream_begun(second, path)
            started = descendants(served.process.pid)
            assert served.ready["llama_server_pid"] in started
            served.send(signal.SIGKILL)
            for client in (first, second):
                received = await client.read_to_end()
                assert b"[DONE]" not in received
                assert not received.endswith(b"\r\n0\r\n\r\n")
        for pid in started:
            await wait_gone(pid)


async def test_killed_proxy_takes_what_llama_server_forked(folder: Path) -> None:
    """Even a process that ignores every signal it can."""
    pid_file = folder / "grandchild"
    options = ("--llama-server", FAKE, "--", "--fake-grandchild", str(pid_file))
    with ready(folder, *options) as served:
        grandchild = int(await wait_file(pid_file))
        async with wire(port_of(served)) as client:
            await stream_begun(client, f"{CHAT}?events=100000&pace_s=0.01")
            served.send(signal.SIGKILL)
            await client.read_to_end()
        await wait_gone(grandchild)


async def test_folder_of_a_killed_proxy_is_removed_by_the_next(folder: Path) -> None:
    """With the socket in it; the next one leaves its own no longer than it runs."""
    with ready(folder, "--llama-server", "embedded") as killed:
        left = folders(killed)
        assert len(left) == 1
        async with wire(port_of(killed)) as client:
            await stream_begun(client)
            killed.send(signal.SIGKILL)
            await client.read_to_end()
        await trio.to_thread.run_sync(killed.process.wait)
        assert folders(killed) == left
        again = folder / "again"
        again.mkdir()
        same = {"TMPDIR": str(killed.temporary)}
        with serving(again, "--llama-server", "embedded", **same) as served:
            served.read_notice()
            assert len(folders(killed)) == 1
            assert folders(killed) != left
            served.send(signal.SIGTERM)
            assert await end_of(served) == 0
        assert folders(killed) == []


# --- SIGTERM ---


async def test_sigterm_drains_and_then_tells_who_is_left(folder: Path) -> None:
    """What ends within the drain time ends well, the rest with a typed error; the status is 0."""
    options = ("--llama-server", "embedded", "--drain-s", "3")
    with ready(folder, *options) as served:
        port = port_of(served)
        async with wire(port) as short, wire(port) as endless, wire(port) as stalled:
            await stream_begun(endless)
            await stalled.post(CHAT, ENDLESS)
            await stream_begun(short, body={**ENDLESS, "max_tokens": 1000})
            served.send(signal.SIGTERM)
            assert b"[DONE]" in await short.read_to_end()
            error = last_error(await endless.read_to_end())
            assert (error["code"], error["type"]) == (503, "unavailable_error")
            with trio.fail_after(PATIENCE_S):
                assert await end_of(served) == 0


@each_engine
async def test_sigterm_leaves_no_process(folder: Path, engine: str) -> None:
    """Neither llama-server nor whatever watched over it, though streams ran."""
    with ready(folder, "--llama-server", engine, "--drain-s", "0.1") as served:
        path = CHAT if engine == "embedded" else f"{CHAT}?events=100000&pace_s=0.01"
        async with wire(port_of(served)) as client:
            await stream_begun(client, path)
            started = descendants(served.process.pid)
            served.send(signal.SIGTERM)
            assert await end_of(served) == 0
        for pid in started:
            await wait_gone(pid)
