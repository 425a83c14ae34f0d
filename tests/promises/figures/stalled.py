"""What a client that stops reading costs the proxy: many of them at once, until nothing moves.

Owns that one measurement.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

import trio

from tests.promises.figures.pair import Pair
from tests.promises.listeners import Listener

READERS = 32
ENGINE_OPTIONS = ("-np", str(READERS), "-c", str(READERS * 4096))

_PATH = "/v1/chat/completions"
# Each event is about 2 KiB, all of them several times what every buffer between holds.
_BODY = {
    "messages": [{"role": "user", "content": "Go on."}],
    "stream": True,
    "ignore_eos": True,
    "max_tokens": 400,
    "logprobs": True,
    "top_logprobs": 20,
}
_SMALL_BUFFER = 4096
# llama-server has generated all of it by then; the send timeout is half a minute.
_GENERATED_S = 25.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stalled reader costs, in bytes.

    Attributes:
        resident: Of the proxy's resident memory, on average.
        taken: What was taken from llama-server for it: the most of any. The kernel holds it, for
            the client and in the client's own window.
    """

    resident: int
    taken: int


async def measure(pair: Pair, listener: Listener) -> Cost:
    """Stall so many readers at once."""
    async with listener.wire(pair) as client:
        await client.post(_PATH, _BODY)
        await client.read_until(b"[DONE]")
    # The framework of the operator's pages is there once, and no reader's cost.
    await pair.exchanges()
    before = pair.resident_bytes()
    async with AsyncExitStack() as stack:
        for _ in range(READERS):
            reader = listener.wire(pair, receive_buffer=_SMALL_BUFFER)
            await (await stack.enter_async_context(reader)).post(_PATH, _BODY)
        with trio.fail_after(_GENERATED_S):
            await pair.wait_decoding(READERS)
            await pair.wait_busy(0)
        held = await pair.exchanges()
        grown = pair.resident_bytes() - before
    if len(held) != READERS:
        raise AssertionError(f"{len(held)} of {READERS} readers are still served")
    return Cost(grown // READERS, max(found["bytes"] for found in held.values()))
