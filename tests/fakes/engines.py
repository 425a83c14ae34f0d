"""Engines for tests: the fake llama-server behind the real supervisor, and what is left of it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from proxy.core.lifecycle import EngineState, RestartPolicy
from proxy.runtime.discovery import Discovered
from proxy.runtime.engine import EngineView
from proxy.runtime.supervisor import LlamaServer

FAKE = Path(__file__).with_name("fake_llama_server.py")
# What a busy machine may need for what takes milliseconds; reached only by a test that fails.
PATIENCE_S = 20.0


def fake_discovered() -> Discovered:
    """Return the fake llama-server as if discovery had found it."""
    # -S and -E: it needs no packages, and starts in half the time.
    return Discovered("binary", (sys.executable, "-S", "-E", str(FAKE)), "the fake")


def fake_engine(*options: str, **settings: Any) -> LlamaServer:
    """Return an engine that runs the fake llama-server with `options`."""
    quick = RestartPolicy(first_delay_s=0.01, max_delay_s=0.02)
    defaults: dict[str, Any] = {
        "model_path": "/models/tiny.gguf",
        "restart_policy": quick,
        "stop_grace_s": PATIENCE_S,
    }
    return LlamaServer(fake_discovered(), extra_args=options, **{**defaults, **settings})


@asynccontextmanager
async def running(engine: LlamaServer, *, ready: bool = True) -> AsyncIterator[LlamaServer]:
    """Run `engine` while the block runs; ready on entry, if `ready`."""
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        if ready:
            with trio.fail_after(PATIENCE_S):
                await engine.wait_ready()
        yield engine
        nursery.cancel_scope.cancel()


async def wait_state(engine: EngineView, *states: EngineState) -> None:
    """Wait until the engine is in one of `states`."""
    reached = trio.Event()
    unwatch = engine.watch(lambda: reached.set() if engine.state in states else None)
    try:
        with trio.fail_after(PATIENCE_S):
            if engine.state not in states:
                await reached.wait()
    finally:
        unwatch()


async def wait_gone(pid: int) -> None:
    """Wait until process `pid`, whoever's child it is, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(PATIENCE_S):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def wait_file(path: Path) -> str:
    """Wait until another process has written `path`, and return its text."""
    with trio.fail_after(PATIENCE_S):
        while not (path.exists() and path.read_text()):
            # There is no event to wait for between processes but this.
            await trio.sleep(0.005)
    return path.read_text()


def children() -> set[int]:
    """Return the pids of our children, dead or alive, that nobody has reaped."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def descriptors() -> Sequence[str]:
    """Return what our open descriptors lead to."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue  # That of the listing itself.
    return sorted(found)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Assert that the block leaves no child and no descriptor behind."""
    # What earlier tests left to the collector is not to go in the midst of this one.
    gc.collect()
    before = children(), len(descriptors())
    yield
    after = children(), len(descriptors())
    assert after == before
