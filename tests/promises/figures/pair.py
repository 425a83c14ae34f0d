"""A llama-server with a proxy before it, in a process of its own, to be measured from outside.

Owns the process. `/slots` is asked of llama-server itself, past the proxy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from proxy.runtime.address import Address
from proxy.runtime.outbound import ControlClient
from tests.promises.wire import PATIENCE_S, wire

_OWNER = Path(__file__).parents[2] / "fakes" / "pair_owner.py"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# As soon as the answer is there: an answer takes a millisecond.
_ASK_AGAIN_S = 0.001

# What `/proxy/exchanges` shows, by request id.
Views = dict[str, dict[str, Any]]


class Pair:
    """The running two.

    Args:
        process: The proxy's process.
        told: What it said of itself.
    """

    def __init__(self, process: subprocess.Popen[bytes], told: dict[str, Any]) -> None:
        self._process = process
        self.port: int = told["port"]
        self.fast_url: str | None = told["fast_url"]
        self.llama_server = ControlClient(Address(uds=told["socket"]), told["api_key"])

    async def busy_slots(self) -> int:
        """Return how many of llama-server's slots work."""
        slots = await self.llama_server.slots()
        return sum(bool(slot["is_processing"]) for slot in slots if isinstance(slot, dict))

    async def wait_busy(self, count: int) -> None:
        """Wait until exactly so many work."""
        with trio.fail_after(PATIENCE_S):
            while await self.busy_slots() != count:
                await trio.sleep(_ASK_AGAIN_S)

    async def exchanges(self) -> Views:
        """Return what `/proxy/exchanges` shows, by request id."""
        async with wire(self.port) as client:
            await client.get("/proxy/exchanges", "Connection: close")
            body = (await client.read_to_end()).partition(b"\r\n\r\n")[2]
        return {found["request_id"]: found for found in json.loads(body)["exchanges"]}

    async def wait_phase(self, request_id: str, phase: str) -> None:
        """Wait until an exchange is in this phase."""
        await self._wait_exchanges(lambda found: _phase(found.get(request_id)) == phase)

    async def wait_gone(self, request_id: str) -> None:
        """Wait until an exchange is not in flight any more."""
        await self._wait_exchanges(lambda found: request_id not in found)

    async def wait_decoding(self, count: int) -> None:
        """Wait until exactly so many exchanges decode."""
        await self._wait_exchanges(
            lambda found: sum(_phase(each) == "decode" for each in found.values()) == count
        )

    async def _wait_exchanges(self, condition: Callable[[Views], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not condition(await self.exchanges()):
                await trio.sleep(_ASK_AGAIN_S)

    def resident_bytes(self) -> int:
        """Return the proxy's resident memory."""
        statm = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(statm.split()[1]) * _PAGE_BYTES


def _phase(view: dict[str, Any] | None) -> str | None:
    return None if view is None else view["phase"]


@asynccontextmanager
async def running_pair(*engine_options: str) -> AsyncIterator[Pair]:
    """Run them while the block runs, with the demo model; ready on entry."""
    process = subprocess.Popen(
        [sys.executable, str(_OWNER), *engine_options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C is for whoever measures: the process ends with its standard input.
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        told = await trio.to_thread.run_sync(process.stdout.readline)
        yield Pair(process, json.loads(told))
        process.stdin.close()
        await trio.to_thread.run_sync(process.wait, PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
