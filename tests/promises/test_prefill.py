"""P2 in prefill: a client that leaves a long prompt frees its slot within a batch."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

import proxy
from tests.conftest import Running
from tests.left_behind import Leftovers
from tests.promises.listeners import MAIN, Listener
from tests.promises.observe import FREE_WITHIN_S, idle_after_s, leaves_nothing, wait_busy

# Some seconds of prefill in batches of 64, of which one takes a few milliseconds.
WORDS = "The proxy waits for the engine. " * 3000
SMALL_BATCHES = ("--batch-size", "64", "--ubatch-size", "64")
ENDLESS: dict[str, object] = {"ignore_eos": True, "n_predict": 10000, "max_tokens": 10000}

BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": WORDS}]},
    "/v1/completions": {"prompt": WORDS},
    "/completion": {"prompt": WORDS},
    "/v1/responses": {"input": WORDS},
}


@pytest.fixture
async def slow(leftovers: Leftovers) -> AsyncIterator[Running]:
    """An engine that reads long prompts in many small batches."""
    async with (
        proxy.open_llama_server(extra_args=SMALL_BATCHES) as engine,
        proxy.open_proxy(engine, port=0, drain_s=5) as server,
    ):
        yield Running(engine, server)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", BODIES)
async def test_client_that_leaves_in_prefill_frees_its_slot(
    slow: Running, listener: Listener, path: str, stream: bool
) -> None:
    """Beside a decoding stream, whose events keep llama-server from looking by itself."""
    server = slow.server
    async with listener.wire(server) as other:
        await other.post("/completion", {**ENDLESS, "prompt": "Go on.", "stream": True})
        await other.read_until(b'"content":"')
        async with leaves_nothing(server), listener.wire(server) as client:
            await client.post(path, {**ENDLESS, **BODIES[path], "stream": stream})
            await wait_busy(slow.engine, 2)
            assert b'"content":"' not in client.received
            client.fin()
            assert await idle_after_s(slow.engine, busy=1) < FREE_WITHIN_S


async def test_prefill_of_the_tests_prompt_takes_far_longer(slow: Running) -> None:
    """The other tests could fail: without the client's leaving the slot would be busy for long."""
    async with MAIN.wire(slow.server) as client:
        started = trio.current_time()
        await client.post("/completion", {"prompt": WORDS, "n_predict": 1})
        await client.read_until(b'"content":"')
        assert trio.current_time() - started > 2 * FREE_WITHIN_S
