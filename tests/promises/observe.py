"""What promise tests look at: llama-server's slots, and what the proxy still holds.

Owns the one check that every way to end has to pass: `leaves_nothing`. It looks at the proxy in
this process, at the live task tree, and at `/proc/self`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from proxy import LlamaServer, ProxyServer
from proxy.runtime.exchange import Exchange
from proxy.runtime.outbound import ControlClient
from proxy.runtime.task_tree import task_tree
from tests.fakes.engines import children, descriptors
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


def exchange_of(server: ProxyServer, request_id: str) -> Exchange | None:
    """Return the exchange with this request id; None when it is not in flight."""
    found = (each for each in server._backend.exchanges if each.request_id == request_id)
    return next(found, None)


def held(server: ProxyServer) -> Counter[str]:
    """Return what a proxy in this process, and the process, hold now: of each kind how many."""
    gates = [gate.statistics() for gate in server._backend.gates.values()]
    found = Counter(
        exchange=server.in_flight,
        connection=server.connections,
        permit=sum(gate.admitted for gate in gates),
        place=sum(gate.queued for gate in gates),
        lease=server.stream_tokens.running,
        child=len(children()),
    )
    found.update(f"task {line.strip()}" for line in task_tree().as_lines())
    found.update(f"descriptor {target.partition(':[')[0]}" for target in descriptors())
    return found


async def wait_back(server: ProxyServer, before: Counter[str]) -> None:
    """Wait until nothing is held that was not held `before`.

    Raises:
        AssertionError: When something still is, a quarter of a second later.
    """
    left = held(server) - before
    with trio.move_on_after(FREE_WITHIN_S):
        while left:
            await trio.sleep(_ASK_AGAIN_S)
            left = held(server) - before
    assert not left, f"still there: {dict(left)}"


@asynccontextmanager
async def leaves_nothing(server: ProxyServer) -> AsyncIterator[None]:
    """Assert that all is back when the block's clients have gone: P1, whatever became of them.

    No exchange, permit, place in the queue, lease, connection, task, descriptor or child is left.
    """
    before = held(server)
    yield
    await wait_back(server, before)
