"""What promise tests look at: llama-server's slots, and what the proxy still holds."""

from __future__ import annotations

from collections.abc import Callable

import trio

from proxy import LlamaServer
from proxy.runtime.outbound import ControlClient
from tests.promises.wire import PATIENCE_S

# Promise P2: how long llama-server's slot may stay busy after its client left.
FREE_WITHIN_S = 0.25
# Neither llama-server nor the kernel tells of slots and sockets by itself: these tests ask.
_ASK_AGAIN_S = 0.002


async def busy_slots(engine: LlamaServer) -> int:
    """Return how many of llama-server's slots work at this moment."""
    slots = await ControlClient(engine.address, engine.api_key).slots()
    return sum(bool(slot["is_processing"]) for slot in slots if isinstance(slot, dict))


async def wait_busy(engine: LlamaServer, count: int) -> None:
    """Wait until exactly `count` slots work."""
    with trio.fail_after(PATIENCE_S):
        while await busy_slots(engine) != count:
            await trio.sleep(_ASK_AGAIN_S)


async def idle_after_s(engine: LlamaServer, busy: int = 0) -> float:
    """Return after how many seconds from now at most `busy` slots still work."""
    start = trio.current_time()
    await wait_busy(engine, busy)
    return trio.current_time() - start


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something in this process becomes true."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(_ASK_AGAIN_S)
