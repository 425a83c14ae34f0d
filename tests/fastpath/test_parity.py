"""P8: one implementation, two ways in. With a real llama-server: both listeners answer the same.

Each request is sent to both, and the answers are compared as those of the main listener are with
llama-server's own (`tests/web/test_transparency.py`). And what a token bounds is bounded on every
route.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from proxy.core.usage import TAIL_BYTES, find_usage
from tests.web.test_transparency import BROKEN, FIXED, GENERATING, bytes_of, fields_of
from tests.web.wire import Answer, Sent, ask_port, without

CHAT = "/v1/chat/completions"
# The prompt is read anew each time: what was asked before makes no difference.
STEADY = {**FIXED, "cache_prompt": False}
ROUTES = ["/stream", *GENERATING]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["a", "bb"]}},
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}

each_form = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@dataclass(frozen=True, slots=True)
class Listeners:
    """A proxy's two ports."""

    main: int
    fast: int

    async def token(self, **bounds: object) -> str:
        """Return the header line with a new token."""
        answer = await ask_port(self.main, Sent.json("/v1/stream-tokens", bounds))
        return f"X-Stream-Token: {json.loads(answer.body)['token']}"

    async def ask_both(self, path: str, body: Any) -> tuple[Answer, Answer]:
        """Send one request to either; return the main listener's answer and the fast one's."""
        main = Sent.json(CHAT if path == "/stream" else path, body)
        fast = Sent.json(path, body, await self.token())
        return await ask_port(self.main, main), await ask_port(self.fast, fast)


@pytest.fixture(scope="module")
def listeners(proxy_url: str) -> Listeners:
    """The ports of the session's proxy, as a client learns of them."""
    main = urlsplit(proxy_url).port
    assert main is not None
    found = trio.run(ask_port, main, Sent("GET", "/api/inference/stream-url"))
    return Listeners(main, json.loads(found.body)["port"])


def body_of(path: str) -> dict[str, Any]:
    """Return a body for a route."""
    return {**GENERATING[CHAT if path == "/stream" else path], **STEADY}


def steady_bytes_of(answer: Answer) -> bytes:
    """Return the body without ids and times, those of prefill's progress among them."""
    return re.sub(rb'"time_ms":\d+', b'"time_ms":~', bytes_of(answer))


def assert_same(by_main: Answer, by_fast: Answer) -> None:
    """Compare status, fields and bytes, but for ids and times.

    The fast listener's answers differ for pages of different origins, so it says so (`Vary`).
    """
    assert (by_fast.status, by_fast.reason) == (by_main.status, by_main.reason)
    assert without(fields_of(by_fast), "vary") == fields_of(by_main)
    assert by_fast.all("Vary") == ["Origin"]
    assert steady_bytes_of(by_fast) == steady_bytes_of(by_main)
    for name in ("Content-Length", "Transfer-Encoding", "Connection", "X-Request-Id", "Date"):
        assert len(by_fast.all(name)) == len(by_main.all(name))


@each_form
@pytest.mark.parametrize("path", ROUTES)
async def test_generated_answer_is_the_same_by_either_listener(
    listeners: Listeners, path: str, stream: bool
) -> None:
    """Token by token where streamed."""
    by_main, by_fast = await listeners.ask_both(path, {**body_of(path), "stream": stream})
    assert_same(by_main, by_fast)
    assert len(bytes_of(by_fast)) > 100


VARIANTS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 100},
    "schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
        "max_tokens": 100,
    },
    "seed": {"temperature": 1.5, "seed": 11},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "choices": {"n": 2},
    "usage": {"stream_options": {"include_usage": True}},
    "stop": {"stop": [" proxy", "the"]},
    "progress": {"return_progress": True},
    "reasoning": {"reasoning_format": "none"},
    "wrong type": {"temperature": "warm"},
    "context overflow": {"messages": [{"role": "user", "content": "word " * 40_000}]},
}


@each_form
@pytest.mark.parametrize("extra", VARIANTS.values(), ids=VARIANTS)
async def test_parameters_act_as_on_the_main_listener(
    listeners: Listeners, extra: dict[str, Any], stream: bool
) -> None:
    """Peers drop tools, seed and response_format on their fast path."""
    body = {**body_of("/stream"), **extra, "stream": stream}
    by_main, by_fast = await listeners.ask_both("/stream", body)
    if stream and "n" in extra:
        # The events of two choices come in any order.
        lines = [sorted(steady_bytes_of(each).split(b"\n")) for each in (by_main, by_fast)]
        assert lines[0] == lines[1]
    else:
        assert_same(by_main, by_fast)


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("path", ["/stream", "/completion", "/v1/messages"])
async def test_broken_body_is_refused_in_the_same_words(
    listeners: Listeners, path: str, body: bytes
) -> None:
    """By us, for it never comes to llama-server."""
    by_main, by_fast = await listeners.ask_both(path, body)
    assert by_fast.status == by_main.status == 400
    for name in ("code", "type", "message"):
        assert by_fast.error[name] == by_main.error[name]


# -- what a token bounds ---------------------------------------------------------------------------


async def generated(listeners: Listeners, path: str, body: dict[str, Any], at_most: int) -> int:
    """Return how many tokens an answer has that was opened by a token with this bound."""
    token = await listeners.token(max_tokens=at_most)
    answer = await ask_port(listeners.fast, Sent.json(path, body, token))
    assert answer.status == 200, answer
    return find_usage(answer.body[-TAIL_BYTES:]).completion_tokens


@each_form
@pytest.mark.parametrize("path", ROUTES)
async def test_answer_has_no_more_tokens_than_its_stream_token_allows(
    listeners: Listeners, path: str, stream: bool
) -> None:
    """Though the request asks for twelve; without a bound it gets them."""
    body = {**body_of(path), "ignore_eos": True, "stream": stream}
    assert await generated(listeners, path, body, at_most=3) == 3
    assert await generated(listeners, path, body, at_most=1000) == 12


NAMES = ("max_tokens", "max_completion_tokens", "n_predict", "max_output_tokens")


@pytest.mark.parametrize("value", [12, -1, 0, None, "12", 12.0, True], ids=repr)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ["/stream", "/completion", "/v1/responses"])
async def test_no_other_number_leads_past_the_bound(
    listeners: Listeners, path: str, name: str, value: object
) -> None:
    """Whatever llama-server makes of it: no bound, an error, its default."""
    body = {each: found for each, found in body_of(path).items() if each not in NAMES}
    token = await listeners.token(max_tokens=3)
    sent = Sent.json(path, {**body, "ignore_eos": True, name: value}, token)
    answer = await ask_port(listeners.fast, sent)
    if answer.status == 200:
        assert find_usage(answer.body[-TAIL_BYTES:]).completion_tokens <= 3
    else:
        assert answer.status == 400


async def test_bound_is_for_each_choice(listeners: Listeners) -> None:
    """None of two is cut at less, and none goes on."""
    token = await listeners.token(max_tokens=3)
    body = {**body_of("/stream"), "ignore_eos": True, "n": 2, "logprobs": True}
    answer = await ask_port(listeners.fast, Sent.json("/stream", body, token))
    choices = json.loads(answer.body)["choices"]
    # The end of the text is one of these tokens.
    assert [len(choice["logprobs"]["content"]) for choice in choices] == [3, 3]
