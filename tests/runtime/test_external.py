"""Tests of `proxy.runtime.external`, with a fake llama-server that is not ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from proxy.core.errors import ConfigError
from proxy.core.lifecycle import EngineState
from proxy.core.loglines import listening_port
from proxy.runtime.address import Address
from proxy.runtime.external import ExternalServer, parse_url
from tests.fakes.engines import FAKE, PATIENCE_S, nothing_left, wait_state


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Assert after each test that no child and no descriptor is left."""
    with nothing_left():
        yield


class TheirServer:
    """A llama-server that somebody else runs."""

    def __init__(self, *options: str, port: int = 0, key: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(FAKE), "--port", str(port), *options],
            stderr=subprocess.PIPE,
            env={**os.environ, "LLAMA_API_KEY": key},
        )
        assert self.process.stderr is not None
        self._log = self.process.stderr
        lines = (line.decode() for line in iter(self._log.readline, b""))
        self.port = next(found for line in lines if (found := listening_port(line)))
        self.url = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def theirs() -> Iterator[TheirServer]:
    """Give a llama-server that is ready."""
    server = TheirServer("--fake-slots", "3", "-m", "/far/away/big.gguf")
    yield server
    server.kill()


@asynccontextmanager
async def following(url: str, **settings: Any) -> AsyncIterator[ExternalServer]:
    """Follow `url` with quick probes."""
    quick = {"probe_interval_s": 0.02, "probe_timeout_s": 0.2, **settings}
    engine = ExternalServer(url, **quick)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        nursery.cancel_scope.cancel()
    assert engine.state is EngineState.STOPPED


async def test_run_server_that_answers_is_ready(theirs: TheirServer) -> None:
    """Slots and the model's name, without its path, are learned from `/props`."""
    async with following(theirs.url) as engine:
        with trio.fail_after(PATIENCE_S):
            await engine.wait_ready()
        assert (engine.total_slots, engine.model, engine.generation) == (3, "big", 1)
        assert engine.address == Address(port=theirs.port, authority=f"127.0.0.1:{theirs.port}")
        assert (engine.pid, engine.last_exit, engine.failure) == (None, None, None)


async def test_run_key_is_sent() -> None:
    """With the right key `/props` answers, without it the slots stay unknown."""
    server = TheirServer(key="right")
    try:
        for key, slots in (("right", 4), ("wrong", None), (None, None)):
            async with following(server.url, api_key=key) as engine:
                with trio.fail_after(PATIENCE_S):
                    await engine.wait_ready()
                assert engine.total_slots == slots
                assert "right" not in repr(engine)
    finally:
        server.kill()


async def test_run_server_that_loads_is_starting_until_it_has_loaded() -> None:
    """503 means not yet."""
    server = TheirServer("--fake-load-s", "0.3")
    try:
        async with following(server.url) as engine:
            assert engine.state is EngineState.STARTING
            await wait_state(engine, EngineState.READY)
    finally:
        server.kill()


async def test_run_server_that_goes_away_and_comes_back_is_followed(theirs: TheirServer) -> None:
    """Away is `crashed`, then `starting` until it answers again: another generation."""
    async with following(theirs.url) as engine:
        seen: list[str] = []
        await wait_state(engine, EngineState.READY)
        engine.watch(lambda: seen.append(str(engine.state)))
        theirs.kill()
        await wait_state(engine, EngineState.STARTING)
        again = TheirServer(port=theirs.port)
        try:
            await wait_state(engine, EngineState.READY)
        finally:
            again.kill()
        assert seen[:3] == ["crashed", "starting", "ready"]
        assert engine.generation == 2


async def test_run_server_that_hangs_is_away(theirs: TheirServer) -> None:
    """A server that accepts and never answers serves nobody."""
    async with following(theirs.url) as engine:
        await wait_state(engine, EngineState.READY)
        os.kill(theirs.process.pid, signal.SIGSTOP)
        await wait_state(engine, EngineState.CRASHED, EngineState.STARTING)


async def test_wait_exited_never_returns(theirs: TheirServer) -> None:
    """The end of a process that is not ours cannot be seen."""
    async with following(theirs.url) as engine:
        await wait_state(engine, EngineState.READY)
        theirs.kill()
        await wait_state(engine, EngineState.STARTING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.wait_exited, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://gpu:8080", Address(host="gpu", port=8080, authority="gpu:8080")),
        ("http://gpu/", Address(host="gpu", port=80, authority="gpu")),
        ("https://gpu", Address(host="gpu", port=443, tls=True, authority="gpu")),
        (
            "http://[::1]:8080/llama/",
            Address(host="::1", port=8080, authority="[::1]:8080", base_path="/llama"),
        ),
    ],
)
def test_parse_url_usable(url: str, address: Address) -> None:
    """Host, port, TLS and base path are taken from the URL."""
    assert parse_url(url) == address
    assert parse_url(address.url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gpu:8080", "must begin with"),
        ("ftp://gpu", "must begin with"),
        ("http://", "must name a host"),
        ("http://user:secret@gpu", "must not hold a password"),
        ("http://gpu?x=1", "without"),
        ("http://gpu#x", "without"),
        ("http://gpu:99999", "a port between"),
        ("http://[::1", "cannot be read"),
        ("http://gpu /", "plain ASCII"),
        ("http://gpü", "plain ASCII"),
        ("http://gpu\r\n", "plain ASCII"),
    ],
)
def test_parse_url_unusable_is_refused_without_repeating_it(url: str, words: str) -> None:
    """One sentence on what is wrong; a password in it is not repeated."""
    with pytest.raises(ConfigError, match=words) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
