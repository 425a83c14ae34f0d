"""What tests share: a real engine with a proxy before it, in this process or as the real command.

`served` is the command in a process of its own, once per session, for tests that leave it as they
found it. `running` is an engine and a proxy in the test's own Trio run, for tests that end, kill or
look inside. Both run whatever discovery finds: the embedded runtime, or a real llama-server when
`LLAMA_SERVER` names one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

import proxy
from tests.left_behind import Leftovers

# A cold start takes two seconds on a busy two-core machine.
START_S = 30
SERVE = ("-m", "proxy", "serve", "--port", "0", "--fast-port", "0")


@dataclass(frozen=True, slots=True)
class Served:
    """A running command: what its ready file said."""

    url: str
    pid: int
    llama_server_pid: int


@dataclass(slots=True)
class Running:
    """An engine and a proxy before it."""

    engine: proxy.LlamaServer
    server: proxy.ProxyServer

    @property
    def url(self) -> str:
        """The proxy's base URL."""
        return self.server.url

    @property
    def port(self) -> int:
        """The proxy's TCP port on 127.0.0.1."""
        return self.server.port


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder() -> Iterator[None]:
    """Keeps what tests leave apart from what other programs on this machine do.

    The path is short: a unix socket's has room for 107 bytes.
    """
    with (
        tempfile.TemporaryDirectory(prefix="lp-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`llama-proxy serve` with the demo model, on free ports."""
    folder = tmp_path_factory.mktemp("served")
    ready = folder / "ready.json"
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, *SERVE, "--ready-file", str(ready)],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        told = trio.run(_wait_ready, process, ready)
        yield Served(told["url"], told["pid"], told["llama_server_pid"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0
    finally:
        log.close()
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def proxy_url(served: Served) -> str:
    """The base URL of the session's proxy."""
    return served.url


async def _wait_ready(process: subprocess.Popen[bytes], ready: Path) -> dict[str, Any]:
    """Wait for the ready file; it appears whole."""
    with trio.fail_after(START_S):
        while not ready.exists():
            assert process.poll() is None, "the command ended before it was ready"
            # The file is the only sign another process gives; this is a test's wait, not the
            # product's.
            await trio.sleep(0.02)
    found: dict[str, Any] = json.loads(ready.read_text())
    return found


@pytest.fixture
async def running(leftovers: Leftovers) -> AsyncIterator[Running]:
    """A real engine and a proxy in this process; afterwards nothing of them may be left."""
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, drain_s=5) as server,
    ):
        yield Running(engine, server)


@pytest.fixture
def leftovers() -> Iterator[Leftovers]:
    """Asserts at the end that no descriptor, child or temporary folder is left."""
    before = Leftovers.now()
    yield before
    assert Leftovers.now().beyond(before) == Leftovers()
