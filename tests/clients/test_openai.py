"""The unmodified `openai` package against the proxy: what its users call, and what they get."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import openai
import pytest
import trio
from openai import AsyncOpenAI, OpenAI

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

MODEL = "demo"
SAY: Any = [{"role": "user", "content": "What does the proxy do?"}]
STEADY: Any = {"model": MODEL, "temperature": 0, "seed": 7}
CHAT: Any = {**STEADY, "messages": SAY, "max_tokens": 24}
ENDLESS: Any = {"ignore_eos": True}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}
CITY: Any = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": WEATHER["function"]["parameters"]},
}


@pytest.fixture
def client(proxy_url: str) -> Iterator[OpenAI]:
    """The package's ordinary client, without retries: each test sees the first answer."""
    with OpenAI(base_url=f"{proxy_url}/v1", api_key="none", max_retries=0) as found:
        yield found


@asynccontextmanager
async def async_client(url: str, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    """The package's client for async programs; it runs on Trio as it is."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as found:
        yield found


# -- answers ---------------------------------------------------------------------------------------


def test_chat_answers_with_text_and_usage(client: OpenAI) -> None:
    """A plain chat completion has what the package's types promise."""
    found = client.chat.completions.create(**CHAT)
    (choice,) = found.choices
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_streamed_chat_has_the_same_text(client: OpenAI) -> None:
    """The deltas of a stream are the answer that is not streamed; reason and usage end it."""
    whole = client.chat.completions.create(**CHAT)
    options: Any = {"include_usage": True}
    with client.chat.completions.create(**CHAT, stream=True, stream_options=options) as stream:
        chunks = list(stream)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(each.delta.content or "" for each in choices) == whole.choices[0].message.content
    assert choices[-1].finish_reason == whole.choices[0].finish_reason
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_completion_answers_and_streams_the_same_text(client: OpenAI) -> None:
    """The older completions route, both ways."""
    asked: Any = {**STEADY, "prompt": "The proxy", "max_tokens": 24}
    whole = client.completions.create(**asked)
    with client.completions.create(**asked, stream=True) as stream:
        streamed = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert whole.choices[0].text == streamed != ""


def test_response_answers_and_streams_the_same_text(client: OpenAI) -> None:
    """The responses route, both ways; its stream begins and ends with the events it should."""
    asked: Any = {"model": MODEL, "temperature": 0, "input": "Hello", "max_output_tokens": 24}
    whole = client.responses.create(**asked)
    with client.responses.create(**asked, stream=True) as stream:
        events = list(stream)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert whole.output_text == "".join(deltas) != ""
    assert whole.status == "completed"
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


def test_tool_call_has_name_and_arguments(client: OpenAI) -> None:
    """`tools` reaches llama-server: the call comes back as the package's objects."""
    found = client.chat.completions.create(
        **{**CHAT, "max_tokens": 200},
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    (choice,) = found.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_streamed_tool_call_is_put_together_by_the_package(client: OpenAI) -> None:
    """The package's own accumulation of a stream ends with the whole call."""
    with client.chat.completions.stream(
        **{**CHAT, "max_tokens": 200},
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
    ) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_response_format_shapes_the_answer(client: OpenAI) -> None:
    """`response_format` reaches llama-server: the text is JSON of the schema."""
    found = client.chat.completions.create(**{**CHAT, "max_tokens": 200}, response_format=CITY)
    assert json.loads(found.choices[0].message.content or "")["city"] in ("Paris", "Rome")


def test_models_are_listed(client: OpenAI) -> None:
    """The package's list of models is llama-server's."""
    (model,) = client.models.list().data
    assert model.object == "model"
    assert model.owned_by == "llamacpp"


def test_raw_response_has_the_headers(client: OpenAI) -> None:
    """The request id comes back where the package looks for it; one date, one server."""
    raw = client.chat.completions.with_raw_response.create(
        **CHAT, extra_headers={"X-Request-Id": "mine"}
    )
    assert raw.status_code == 200
    assert raw.request_id == "mine"
    assert raw.headers["content-type"] == "application/json; charset=utf-8"
    for name in ("date", "server", "x-request-id"):
        assert len(raw.headers.get_list(name)) == 1
    assert raw.parse().choices[0].message.content


def test_raw_stream_has_the_headers_before_the_text(client: OpenAI) -> None:
    """A request id is made for who sends none; a stream has no length and is not for caches."""
    with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as raw:
        assert raw.request_id
        assert raw.headers["content-type"] == "text/event-stream"
        assert "content-length" not in raw.headers
        assert list(raw.parse())


async def test_async_client_runs_on_trio(running: Running) -> None:
    """Twenty streams at once, from a Trio program, on four slots."""
    texts: list[str] = []

    async def chat(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        async with stream:
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        texts.append("".join(pieces))

    async with async_client(running.url) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(chat, client)
    assert len(texts) == 20
    assert set(texts) == {texts[0]}
    assert texts[0]


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_context_overflow_tells_both_numbers(client: OpenAI, stream: bool) -> None:
    """The package raises BadRequestError; its message has what was sent and what fits."""
    long: Any = [{"role": "user", "content": "word " * 40_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long, stream=stream)
    body: Any = caught.value.body
    assert str(body["n_prompt_tokens"]) in caught.value.message
    assert str(body["n_ctx"]) in caught.value.message
    assert caught.value.type == "exceed_context_size_error"
    assert caught.value.request_id


def test_foreign_picture_is_a_bad_request(client: OpenAI) -> None:
    """A URL that llama-server would have to fetch is refused with the field's name."""
    part: Any = {"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].content\[0\].image_url.url"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])


def test_missing_ability_is_told_in_llama_servers_words(client: OpenAI) -> None:
    """Embeddings of a chat model: llama-server's 501 arrives as the package's error."""
    with pytest.raises(openai.InternalServerError, match="--embeddings") as caught:
        client.embeddings.create(model=MODEL, input="text")
    assert caught.value.status_code == 501


async def test_wrong_key_is_an_authentication_error(leftovers: Leftovers) -> None:
    """The package names it as such; the key is in no message; the right one works."""
    key = proxy.ApiKey.from_text("right-key")
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, api_keys=[key]) as server,
    ):
        async with async_client(server.url, "wrong-key") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.chat.completions.create(**CHAT)
        assert caught.value.type == "authentication_error"
        assert "wrong-key" not in str(caught.value)
        async with async_client(server.url, "right-key") as client:
            found = await client.chat.completions.create(**CHAT)
        assert found.choices[0].message.content


async def test_full_queue_is_a_rate_limit_error(leftovers: Leftovers) -> None:
    """With every slot busy and no queue the package is told to come back, and when."""
    async with (
        proxy.open_llama_server(extra_args=["--parallel", "1"]) as engine,
        proxy.open_proxy(engine, port=0, max_queue=0) as server,
        async_client(server.url) as client,
    ):
        async with await client.chat.completions.create(**long_chat(), stream=True):
            await wait_busy(engine, 1)
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**CHAT)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        await until(lambda: server.in_flight == 0)


def long_chat() -> dict[str, Any]:
    """Return a request whose answer takes seconds."""
    return {**CHAT, "max_tokens": 30_000, "extra_body": ENDLESS}


async def streamed_chat(client: AsyncOpenAI) -> AsyncGenerator[object, None]:
    """Stream an answer that takes seconds."""
    async with await client.chat.completions.create(**long_chat(), stream=True) as stream:
        async for chunk in stream:
            yield chunk


async def streamed_completion(client: AsyncOpenAI) -> AsyncGenerator[object, None]:
    """The same by the completions route."""
    asked: Any = {"model": MODEL, "prompt": "The", "max_tokens": 30_000, "extra_body": ENDLESS}
    async with await client.completions.create(**asked, stream=True) as stream:
        async for chunk in stream:
            yield chunk


async def streamed_response(client: AsyncOpenAI) -> AsyncGenerator[object, None]:
    """The same by the responses route."""
    asked: Any = {"model": MODEL, "input": "Go", "max_output_tokens": 30_000, "extra_body": ENDLESS}
    async with await client.responses.create(**asked, stream=True) as stream:
        async for event in stream:
            yield event


async def read_all(events: AsyncIterator[object]) -> None:
    """Read to the end, as a loop in somebody's program does."""
    async for _ in events:
        pass


Streamed = Callable[[AsyncOpenAI], AsyncGenerator[object, None]]
each_stream = pytest.mark.parametrize(
    "streamed", [streamed_chat, streamed_completion, streamed_response]
)


@each_stream
async def test_llama_server_that_dies_is_an_error_and_no_end(
    running: Running, streamed: Streamed
) -> None:
    """A stream that was cut raises in the client's loop, with the cause in its message."""
    async with async_client(running.url) as client, aclosing(streamed(client)) as events:
        await anext(events)
        pid = running.engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(openai.APIError, match=r"llama-server crashed .*SIGKILL"):
            await read_all(events)


# -- leaving ---------------------------------------------------------------------------------------


async def assert_left(running: Running, causes: Causes) -> None:
    """Check that an answer was given up and not finished, and that nothing of it is left."""
    await wait_busy(running.engine, 0)
    await until(lambda: running.server.in_flight == 0)
    assert causes() == [proxy.EndCause.CLIENT_DISCONNECTED]


@each_stream
async def test_stream_closed_early_frees_the_slot(
    running: Running, streamed: Streamed, causes: Causes
) -> None:
    """Leaving the loop of an async client is all that it takes."""
    async with async_client(running.url) as client:
        async with aclosing(streamed(client)) as events:
            await anext(events)
            await wait_busy(running.engine, 1)
        await assert_left(running, causes)


async def test_stream_closed_early_by_a_thread_frees_the_slot(
    running: Running, causes: Causes
) -> None:
    """The ordinary client's `close()`, in the middle of an answer."""

    def leave_early() -> None:
        with OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(**long_chat(), stream=True)
            assert next(iter(stream))
            stream.close()

    await trio.to_thread.run_sync(leave_early)
    await assert_left(running, causes)


async def test_cancelled_call_frees_the_slot(running: Running, causes: Causes) -> None:
    """A Trio program that cancels the task around the package's loop needs nothing else."""
    async with async_client(running.url) as client, trio.open_nursery() as nursery:

        async def read() -> None:
            async with aclosing(streamed_chat(client)) as events:
                await read_all(events)

        nursery.start_soon(read)
        await wait_busy(running.engine, 1)
        nursery.cancel_scope.cancel()
    await assert_left(running, causes)
