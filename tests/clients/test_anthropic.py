"""The unmodified `anthropic` package against the proxy: `/v1/messages`, whole and streamed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
import trio
from anthropic import Anthropic, AsyncAnthropic

import proxy
from tests.clients.conftest import Causes
from tests.conftest import Running
from tests.left_behind import Leftovers
from tests.promises.observe import until, wait_busy

# The package leaves the generators of a stream that it closes early to the garbage collector, which
# Trio remarks on. Nothing of ours hangs on them: the response itself is closed by then.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.usefixtures("own_garbage"),
]

SAY: Any = [{"role": "user", "content": "What does the proxy do?"}]
# In the body and not by name: newer versions of the package have no parameter for it.
STEADY: Any = {"extra_body": {"temperature": 0}}
ASKED: Any = {"model": "demo", "messages": SAY, "max_tokens": 24, **STEADY}
LONG: Any = {**ASKED, "max_tokens": 30_000}
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}


@pytest.fixture
def client(proxy_url: str) -> Iterator[Anthropic]:
    """The package's ordinary client, without retries: each test sees the first answer."""
    with Anthropic(base_url=proxy_url, api_key="none", max_retries=0) as found:
        yield found


@asynccontextmanager
async def async_client(url: str, key: str = "none") -> AsyncIterator[AsyncAnthropic]:
    """The package's client for async programs; it runs on Trio as it is."""
    async with AsyncAnthropic(base_url=url, api_key=key, max_retries=0) as found:
        yield found


@pytest.fixture
async def endless(leftovers: Leftovers) -> AsyncIterator[Running]:
    """An engine that ends no answer by itself: this route has no parameter to ask for that."""
    async with (
        proxy.open_llama_server(extra_args=["--ignore-eos"]) as engine,
        proxy.open_proxy(engine, port=0, drain_s=5) as server,
    ):
        yield Running(engine, server)


def text_of(message: anthropic.types.Message) -> str:
    """Return a message's only text."""
    (block,) = message.content
    assert block.type == "text"
    return block.text


def test_message_answers_with_text_and_usage(client: Anthropic) -> None:
    """A plain message has what the package's types promise, and a request id."""
    found = client.messages.create(**ASKED)
    assert (found.type, found.role) == ("message", "assistant")
    assert found.stop_reason in ("end_turn", "max_tokens")
    assert found.usage.output_tokens > 0
    assert text_of(found)


def test_streamed_message_has_the_same_text(client: Anthropic) -> None:
    """The package's accumulation of a stream is the message that is not streamed."""
    whole = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as stream:
        types = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert text_of(streamed) == text_of(whole)
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert (types[0], types[-1]) == ("message_start", "message_stop")


def test_raw_events_come_in_the_dialects_order(client: Anthropic) -> None:
    """`stream=True` gives llama-server's events as they came."""
    with client.messages.create(**ASKED, stream=True) as stream:
        types = [event.type for event in stream]
    assert types[:2] == ["message_start", "content_block_start"]
    assert set(types[2:-3]) == {"content_block_delta"}
    assert types[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_tool_use_has_name_and_input(client: Anthropic) -> None:
    """`tools` reaches llama-server: the call comes back as the package's objects."""
    forced: Any = {"type": "any", "disable_parallel_tool_use": True}
    asked = {**ASKED, "max_tokens": 200, "tools": [WEATHER], "tool_choice": forced}
    found = client.messages.create(**asked)
    call = next(block for block in found.content if block.type == "tool_use")
    assert call.name == "get_weather"
    assert call.input in ({"city": "Paris"}, {"city": "Rome"})


def test_tokens_are_counted(client: Anthropic) -> None:
    """Counting needs no slot and answers what the message's usage says."""
    counted = client.messages.count_tokens(model="demo", messages=SAY).input_tokens
    usage = client.messages.create(**ASKED).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_raw_response_has_the_headers(client: Anthropic) -> None:
    """The request id that was sent comes back."""
    headers = {"X-Request-Id": "mine"}
    raw = client.messages.with_raw_response.create(**ASKED, extra_headers=headers)
    assert raw.headers["x-request-id"] == "mine"
    assert text_of(raw.parse())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_context_overflow_tells_both_numbers(client: Anthropic, stream: bool) -> None:
    """The package raises BadRequestError; its body has what was sent and what fits."""
    long: Any = [{"role": "user", "content": "word " * 40_000}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model="demo", max_tokens=1, messages=long, stream=stream)
    body: Any = caught.value.body
    assert str(body["error"]["n_prompt_tokens"]) in body["error"]["message"]
    assert str(body["error"]["n_ctx"]) in body["error"]["message"]


def test_foreign_picture_is_a_bad_request(client: Anthropic) -> None:
    """A URL that llama-server would have to fetch is refused with the field's name."""
    part: Any = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}
    asked = {**ASKED, "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].source.url"):
        client.messages.create(**asked)


async def test_wrong_key_is_an_authentication_error(leftovers: Leftovers) -> None:
    """`x-api-key` is looked at; the key is in no message; the right one works."""
    key = proxy.ApiKey.from_text("right-key")
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, api_keys=[key]) as server,
    ):
        async with async_client(server.url, "wrong-key") as client:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await client.messages.create(**ASKED)
        body: Any = caught.value.body
        assert body["error"]["type"] == "authentication_error"
        assert "wrong-key" not in str(caught.value)
        async with async_client(server.url, "right-key") as client:
            assert text_of(await client.messages.create(**ASKED))


async def test_llama_server_that_dies_is_an_error_and_no_end(endless: Running) -> None:
    """A stream that was cut raises in the client's loop, with the cause in its message."""
    async with (
        async_client(endless.url) as client,
        await client.messages.create(**LONG, stream=True) as stream,
    ):
        await anext(stream)
        pid = endless.engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(anthropic.APIStatusError, match=r"llama-server crashed .*SIGKILL"):
            await read_all(stream)


async def read_all(events: AsyncIterator[object]) -> None:
    """Read to the end, as a loop in somebody's program does."""
    async for _ in events:
        pass


async def assert_left(running: Running, causes: Causes) -> None:
    """Check that an answer was given up and not finished, and that nothing of it is left."""
    await wait_busy(running.engine, 0)
    await until(lambda: running.server.in_flight == 0)
    assert causes() == [proxy.EndCause.CLIENT_DISCONNECTED]


async def test_stream_closed_early_frees_the_slot(endless: Running, causes: Causes) -> None:
    """Leaving the package's stream is all that it takes."""
    async with async_client(endless.url) as client:
        async with client.messages.stream(**LONG) as stream:
            await anext(aiter(stream))
            await wait_busy(endless.engine, 1)
        await assert_left(endless, causes)


async def test_stream_closed_early_by_a_thread_frees_the_slot(
    endless: Running, causes: Causes
) -> None:
    """The ordinary client's `with`, left in the middle of an answer."""

    def leave_early() -> None:
        with (
            Anthropic(base_url=endless.url, api_key="none", max_retries=0) as client,
            client.messages.stream(**LONG) as stream,
        ):
            next(iter(stream))

    await trio.to_thread.run_sync(leave_early)
    await assert_left(endless, causes)
