"""P4 for the status page: who watches slows nobody, costs little, and leaves nothing.

The proxy is a process of its own before a real engine, so that its memory and its processor time
are its alone. For how long is `STATUS_SECONDS` in the environment: a few seconds by default.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

import proxy
from tests.cli.command import argv_of, environment
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.observe import leaves_nothing, until
from tests.promises.wire import LEAVING, PATIENCE_S, Leave, wire

SECONDS = float(os.environ.get("STATUS_SECONDS", "4"))
VIEWERS, STALLED = 100, 20
SEND_TIMEOUT_S = 1.5
SLOTS = 4
# What a viewer may cost: a first status and the tokens that wait for it, both twice: as they wait
# and as they are sent.
BYTES_OF_A_VIEWER = 1024 * 1024
# Chosen by the seed and the greedy choice: the same words each time.
ANSWER: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What happens to the slot when I close the tab?"}],
    "stream": True,
    "max_tokens": 200,
    "temperature": 0,
    "seed": 1,
    "ignore_eos": True,
    "cache_prompt": False,
}
CHAT = "/v1/chat/completions"


@dataclass
class Command:
    """A running command.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        pid: Its process.
    """

    port: int
    pid: int

    @property
    def resident_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_s(self) -> float:
        """Its processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    async def snapshot(self) -> dict[str, Any]:
        """Return what `/status/json` answers."""
        async with wire(self.port) as client:
            await client.get("/status/json", "Connection: close")
            received = await client.read_to_end()
        found: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
        return found

    async def wait_viewers(self, count: int) -> None:
        """Wait until so many watch."""
        with trio.fail_after(PATIENCE_S):
            while (await self.snapshot())["proxy"]["viewers"] != count:
                await trio.sleep(0.02)


@asynccontextmanager
async def command(*options: str) -> AsyncIterator[Command]:
    """Run `llama-proxy serve` before the real engine; at its end it stops in order."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        serve = ("serve", "--port", "0", "--ready-file", str(ready), *options)
        log = (Path(folder) / "log").open("w+b")
        process = subprocess.Popen(
            argv_of(*serve, "--log-level", "error"),
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with trio.fail_after(30):
                while not ready.exists():
                    assert process.poll() is None
                    await trio.sleep(0.02)
            told = json.loads(ready.read_text())
            yield Command(int(told["url"].rpartition(":")[2]), told["pid"])
            process.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(process.wait, 20) == 0
            assert b"Traceback" not in Path(log.name).read_bytes()
        finally:
            log.close()
            if process.poll() is None:
                process.kill()
                process.wait()


# -- the crowd -------------------------------------------------------------------------------------


async def watch(port: int) -> None:
    """Watch for as long as the proxy lets us."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async for _ in stream:
            pass


@asynccontextmanager
async def crowd(found: Command) -> AsyncIterator[None]:
    """Have viewers, some of whom read nothing after the first status."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for _ in range(STALLED):
            stuck = await stack.enter_async_context(wire(found.port, receive_buffer=4096))
            await stuck.get("/status/events")
            await stuck.read_until(b"event: status")
        for _ in range(VIEWERS - STALLED):
            nursery.start_soon(watch, found.port)
        await found.wait_viewers(VIEWERS)
        yield
        nursery.cancel_scope.cancel()


async def said(port: int) -> str:
    """Ask for the answer, and return its text; it has to have its proper end."""
    async with wire(port) as client:
        await client.post(CHAT, ANSWER, "Connection: close")
        received = await client.read_to_end()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"0\r\n\r\n")
    assert b"data: [DONE]" in received
    lines = received.replace(b"\r\n", b"\n").split(b"\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    deltas = [each["choices"][0]["delta"] for each in events if each["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@dataclass
class Load:
    """Exchanges, one after the other in each slot.

    Attributes:
        texts: What was said, and how often.
    """

    texts: Counter[str] = field(default_factory=Counter)

    async def run(self, port: int, seconds: float) -> None:
        """Ask until the time is over, and finish what has begun."""
        until = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(SLOTS):
                nursery.start_soon(self._ask_again, port, until)

    async def _ask_again(self, port: int, until: float) -> None:
        while trio.current_time() < until:
            self.texts[await said(port)] += 1


@pytest.mark.timeout(60 + 3 * SECONDS)
async def test_a_hundred_viewers_of_whom_a_fifth_stall_disturb_nobody() -> None:
    """Exchanges are whole and say the same, memory is bounded, who stalls is cut off."""
    async with command("--send-timeout-s", str(SEND_TIMEOUT_S)) as found:
        alone = Load()
        await alone.run(found.port, 1)
        before = found.resident_bytes
        watched = Load()
        async with crowd(found):
            peak = 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watched.run, found.port, SECONDS)
                end = trio.current_time() + SECONDS
                while trio.current_time() < end:
                    peak = max(peak, found.resident_bytes)
                    await trio.sleep(0.05)
            await found.wait_viewers(VIEWERS - STALLED)
        await found.wait_viewers(0)
        last = await found.snapshot()
        print(f"{(peak - before) / 2**20:.1f} MiB more, {watched.texts.total()} answers")
        assert watched.texts.keys() == alone.texts.keys()
        assert watched.texts.total() >= SLOTS
        assert {each["cause"] for each in last["perf_history"]} == {"finished"}
        assert peak - before < VIEWERS * BYTES_OF_A_VIEWER
        assert last["proxy"]["connections"] == 1


# -- one viewer ------------------------------------------------------------------------------------

# Long events of the fake llama-server, so that a viewer that reads nothing is full soon.
LONG = f"{CHAT}?events=100000&pace_s=0.01&name={'x' * 4000}"


@asynccontextmanager
async def fake_proxy(**options: Any) -> AsyncIterator[proxy.ProxyServer]:
    """Run a proxy in this process before the fake llama-server."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0, **options) as server,
        ):
            yield server


def is_watched(server: proxy.ProxyServer) -> bool:
    """Return whether what passes of the one exchange is watched."""
    (exchange,) = server._backend.exchanges
    return exchange.passing.watch is not None


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
async def test_viewer_that_leaves_is_gone_and_its_exchange_goes_on(leave: Leave) -> None:
    """Nothing is watched for it any more, and nothing of it is left."""
    async with fake_proxy() as server, wire(server.port) as client:
        await client.post(LONG, ANSWER)
        await client.read_until(b"data: ")
        async with leaves_nothing(server), wire(server.port) as viewer:
            await viewer.get("/status/events")
            await viewer.read_until(b"event: token")
            assert is_watched(server)
            leave(viewer)
            await until(lambda: not is_watched(server))
        assert server.in_flight == 1


async def test_viewer_that_stalls_is_cut_off_after_the_send_timeout() -> None:
    """And not before it has taken nothing for so long; the exchange goes on."""
    async with (
        fake_proxy(send_timeout_s=0.3) as server,
        leaves_nothing(server),
        wire(server.port) as client,
        wire(server.port, receive_buffer=4096) as viewer,
        trio.open_nursery() as nursery,
    ):
        await viewer.get("/status/events")
        await viewer.read_until(b"event: status")
        await client.post(LONG, ANSWER)
        nursery.start_soon(client.read_to_end)
        await until(lambda: server.in_flight == 1 and is_watched(server))
        await until(lambda: not is_watched(server))
        assert server.in_flight == 1
        nursery.cancel_scope.cancel()


# -- what a viewer costs ---------------------------------------------------------------------------

ROUNDS = 5
ROUND_S = 0.6


@dataclass(frozen=True)
class Pace:
    """How fast four streams came, and what each of their events cost the proxy."""

    events_per_s: float
    cpu_us_per_event: float


async def pace(found: Command) -> Pace:
    """Have answers in all slots for one round."""
    events, start, cpu = 0, time.perf_counter(), found.cpu_s

    async def ask_again() -> None:
        nonlocal events
        while time.perf_counter() - start < ROUND_S:
            async with wire(found.port) as client:
                await client.post(CHAT, ANSWER, "Connection: close")
                events += (await client.read_to_end()).count(b"\ndata: ")

    async with trio.open_nursery() as nursery:
        for _ in range(SLOTS):
            nursery.start_soon(ask_again)
    took, used = time.perf_counter() - start, found.cpu_s - cpu
    return Pace(events / took, used * 1e6 / events)


async def watched_pace(found: Command) -> Pace:
    """Have them while somebody watches."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, found.port)
        await found.wait_viewers(1)
        seen = await pace(found)
        nursery.cancel_scope.cancel()
    await found.wait_viewers(0)
    return seen


async def test_viewer_does_not_slow_the_streams_that_it_watches() -> None:
    """In pairs, one after the other: a machine that is busy is so for both.

    Engine, proxy and client share the processors here, so the bounds are wide: `scripts/bench
    status` has the figures. What they would not let pass is work for each event: it is some ten
    microseconds.
    """
    async with command() as found:
        await pace(found)
        pairs = []
        for number in range(ROUNDS):
            if number % 2:
                with_one, without = await watched_pace(found), await pace(found)
            else:
                without, with_one = await pace(found), await watched_pace(found)
            pairs.append((without, with_one))
        speed = statistics.median(b.events_per_s / a.events_per_s for a, b in pairs)
        cost = statistics.median(b.cpu_us_per_event - a.cpu_us_per_event for a, b in pairs)
        print(f"speed: {speed:.2f} of that without a viewer; {cost:+.1f} us for each event")
        assert speed > 0.6
        assert cost < 100
