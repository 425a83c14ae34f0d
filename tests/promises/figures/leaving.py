"""How soon llama-server's slot is idle when a client has left: one measurement, many times.

Owns what happens in one measurement: others, the client, how far it comes, how it leaves, and
when the slot is free again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count, cycle, islice

import trio

from tests.promises.figures.pair import Pair
from tests.promises.listeners import Listener
from tests.promises.wire import LEAVING, PATIENCE_S, Leave

SLOTS = 4
# Seconds of prefill in many small batches, of which one takes a few milliseconds.
ENGINE_OPTIONS = ("-np", str(SLOTS), "--batch-size", "64", "--ubatch-size", "64")

_PATH = "/completion"
_SHORT = "Go on."
_LONG = "The proxy waits for the engine. " * 3000
# Longer than any measurement takes.
_ENDLESS: dict[str, object] = {"ignore_eos": True, "n_predict": 30000, "cache_prompt": False}
# A request that llama-server still reads may take its slot only now.
_MAY_COME_S = 0.25
_TOKEN = b'"content":"'
_numbers = count()


@dataclass(frozen=True, slots=True)
class Moment:
    """How far the client comes before it leaves.

    Attributes:
        phase: The exchange's phase, as `/proxy/exchanges` names it.
        prompt: What it sends.
        others: How many streams may be decoded beside it; each number is a row of its own.
        busy: Whether llama-server's slot works already when it leaves.
        begun: What a streaming client has received by then.
    """

    phase: str
    prompt: str
    others: tuple[int, ...] = (0, 1)
    busy: bool = True
    begun: bytes = b""


MOMENTS = {
    "queued": Moment("queued", _SHORT, others=(SLOTS,), busy=False),
    "before the first byte": Moment("prefill", _LONG, busy=False),
    "prefill": Moment("prefill", _LONG, begun=b"\r\n\r\n"),
    "decode": Moment("decode", _SHORT, begun=_TOKEN),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        listener: Where the client comes in.
        moment: When it leaves.
        others: How many streams are decoded beside it.
        stream: Whether it asked for a stream.
    """

    listener: Listener
    moment: Moment
    others: int
    stream: bool

    async def measure(self, pair: Pair, times: int) -> list[float]:
        """Measure so often, in seconds; clients leave by FIN, RST and half-close in turn."""
        ways = islice(cycle(LEAVING.values()), times)
        return [await self._measure(pair, leave) for leave in ways]

    async def _measure(self, pair: Pair, leave: Leave) -> float:
        moment, request_id = self.moment, f"figures-{next(_numbers)}"
        await pair.wait_busy(0)
        async with (
            _decoding(pair, self.listener, self.others),
            self.listener.wire(pair) as client,
        ):
            body = {**_ENDLESS, "prompt": moment.prompt, "stream": self.stream}
            await client.post(_PATH, body, f"X-Request-Id: {request_id}")
            await pair.wait_phase(request_id, moment.phase)
            if moment.busy:
                await pair.wait_busy(self.others + 1)
            if moment.begun and self.stream:
                await client.read_until(moment.begun)
            leave(client)
            if moment.phase == "queued":
                return await _gone_after(pair, request_id)
            return await _idle_after(pair, self.others, 0.0 if moment.busy else _MAY_COME_S)


@asynccontextmanager
async def _decoding(pair: Pair, listener: Listener, others: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(others):
            other = await stack.enter_async_context(listener.wire(pair))
            await other.post(_PATH, {**_ENDLESS, "prompt": _SHORT, "stream": True})
            await other.read_until(_TOKEN)
        yield


async def _gone_after(pair: Pair, request_id: str) -> float:
    start = trio.current_time()
    await pair.wait_gone(request_id)
    return trio.current_time() - start


async def _idle_after(pair: Pair, others: int, quiet_s: float) -> float:
    """Return when the slot was seen idle first, and then stayed so for `quiet_s`."""
    start = idle = trio.current_time()
    was_busy = True
    with trio.fail_after(PATIENCE_S):
        while was_busy or trio.current_time() - idle < quiet_s:
            is_busy = await pair.busy_slots() > others
            if was_busy and not is_busy:
                idle = trio.current_time()
            was_busy = is_busy
    return idle - start
