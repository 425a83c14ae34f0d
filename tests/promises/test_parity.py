"""P8: an answer put together from a stream is the one that llama-server gives in one piece.

The engine is asked for both, and asked for the same thing before, so that it has the prompt in its
cache both times. What may differ is listed in `_comparable`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import proxy
from proxy.core.assembly import Assembler, assembler_for
from proxy.core.generation import stream_filter, upstream_body
from proxy.core.launch import build_argv, build_environment
from proxy.runtime.discovery import find_engine

DEMO_MODEL = Path(proxy.__file__).with_name("data") / "demo.gguf"
KEY = "parity"
START_S = 30.0
# Cuts every event and many a character in two.
PIECE = 37
# llama-server closes a connection after a hundred requests.
ONE_REQUEST_EACH = httpx.Limits(max_keepalive_connections=0)

CHATS = ("/v1/chat/completions", "/chat/completions")
TEXTS = ("/v1/completions",)
NATIVES = ("/completion", "/completions")
RESPONSES = ("/v1/responses", "/responses")
MESSAGES = ("/v1/messages",)

HELLO = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 40}
PROMPT = {"prompt": "A request", "seed": 7, "n_predict": 40}
ASKED: dict[str, dict[str, Any]] = {
    **{label: {**HELLO, "seed": 7} for label in CHATS},
    **dict.fromkeys((*TEXTS, *NATIVES), PROMPT),
    "/infill": {"input_prefix": "A req", "input_suffix": " end", "seed": 7, "n_predict": 20},
    **{label: {"input": "hello there", "seed": 7, "max_output_tokens": 40} for label in RESPONSES},
    **dict.fromkeys(MESSAGES, HELLO),
}

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["a", "bb"]}, "n": {"type": "number"}},
    "required": ["city", "n"],
}
FUNCTION = {"name": "get_weather", "parameters": SCHEMA}
TOOLS = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
EMOJI = {"grammar": 'root ::= "ab👋👋cd"'}

CHAT_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"max_tokens": 3},
    "no tokens": {"max_tokens": 0},
    "n": {"n": 2},
    "tools": {**TOOLS, "max_tokens": 200},
    "tool call cut off": {**TOOLS, "max_tokens": 50},
    "parallel tool calls": {**TOOLS, "parallel_tool_calls": True, "max_tokens": 150},
    "JSON schema": {"response_format": JSON_SCHEMA, "max_tokens": 200},
    "stop strings": {"stop": [" proxy", "never"]},
    "stop string": {"stop": " proxy"},
    "timings per token": {"timings_per_token": True},
    "usage on": {"stream_options": {"include_usage": True}},
    "usage off": {"stream_options": {"include_usage": False}},
    "progress": {"return_progress": True},
    "no stream": {"stream": False},
    "no cache": {"cache_prompt": False},
    "endless": {"ignore_eos": True, "max_tokens": 80},
    "character cut in two": {**EMOJI, "max_tokens": 4},
    "characters of several tokens": EMOJI,
    "legacy reasoning": {"reasoning_format": "deepseek-legacy"},
    "continued": {
        "messages": [
            {"role": "user", "content": "hello there"},
            {"role": "assistant", "content": "A request"},
        ]
    },
    "too many choices": {"n": 99},
    "wrong type": {"temperature": "warm"},
    "context overflow": {"messages": [{"role": "user", "content": "word " * 9000}]},
}

COMPLETION_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"n_predict": 3},
    "no tokens": {"n_predict": 0},
    "n": {"n": 2},
    "n_cmpl": {"n_cmpl": 3, "n_predict": 5},
    "probabilities": {"n_probs": 3},
    "logprobs": {"logprobs": 2},
    "probabilities after sampling": {"n_probs": 3, "post_sampling_probs": True},
    "probabilities of several": {"n_probs": 1, "n": 2},
    "probabilities and a stop word": {"n_probs": 2, "stop": [" proxy"]},
    "JSON schema": {"json_schema": SCHEMA, "n_predict": 200},
    "stop strings": {"stop": [" proxy", "never"]},
    "timings per token": {"timings_per_token": True},
    "usage on": {"stream_options": {"include_usage": True}},
    "usage off": {"stream_options": {"include_usage": False}},
    "progress": {"return_progress": True},
    "endless": {"ignore_eos": True, "n_predict": 80},
    "echo": {"echo": True},
    "verbose": {"verbose": True, "n_probs": 1},
    "response fields": {"response_fields": ["content", "generation_settings/n_predict", "no"]},
    "verbose response fields": {"verbose": True, "response_fields": ["content", "stop"]},
    "no cache": {"cache_prompt": False},
    "character cut in two": {**EMOJI, "n_predict": 4},
    "characters of several tokens": {**EMOJI, "n_probs": 1},
    "legacy reasoning": {"reasoning_format": "deepseek-legacy"},
    "wrong type": {"temperature": "warm"},
}

PROMPT_VARIANTS: dict[str, dict[str, Any]] = {
    "prompts": {"prompt": ["A request", "The proxy", "In"]},
    "prompts and n": {"prompt": ["A request", "The proxy"], "n": 2, "n_predict": 5},
    "tokens": {"prompt": [792, 689]},
    "text and tokens": {"prompt": ["A", 689]},
    "held back at the limit": {"stop": [" is not inside"], "n_predict": 3},
    "second prompt too long": {"prompt": ["A request", "word " * 9000]},
    "no prompts": {"prompt": []},
}

RESPONSES_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"max_output_tokens": 3},
    "no tokens": {"max_output_tokens": 0},
    "tools": {
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": "required",
        "max_output_tokens": 200,
    },
    "JSON schema": {
        "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        "max_output_tokens": 200,
    },
    "stop string": {"stop": " proxy"},
    "timings per token": {"timings_per_token": True},
    "instructions": {"instructions": "Be brief."},
    "verbose": {"verbose": True},
    "wrong type": {"temperature": "warm"},
    "no input": {"input": None},
}

MESSAGES_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"max_tokens": 3},
    "no tokens": {"max_tokens": 0},
    "tools": {
        "tools": [{"name": "get_weather", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
        "max_tokens": 200,
    },
    "tool call cut off": {
        "tools": [{"name": "get_weather", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
        "max_tokens": 50,
    },
    "stop strings": {"stop_sequences": [" proxy", "never"]},
    "system": {"system": "Be brief."},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 5}},
    "wrong type": {"temperature": "warm"},
}

PLAIN: dict[str, dict[str, Any]] = {"plain": {}}
VARIANTS: list[tuple[str, dict[str, dict[str, Any]]]] = [
    *((label, CHAT_VARIANTS) for label in CHATS[:1]),
    *((label, COMPLETION_VARIANTS) for label in (*TEXTS, "/completion", "/infill")),
    *((label, PROMPT_VARIANTS) for label in (*TEXTS, "/completion")),
    *((label, RESPONSES_VARIANTS) for label in RESPONSES[:1]),
    *((label, MESSAGES_VARIANTS) for label in MESSAGES),
    # The same handlers by their other names.
    *((label, PLAIN) for label in (CHATS[1], NATIVES[1], RESPONSES[1])),
]


@dataclass(frozen=True, slots=True)
class Engine:
    """A llama-server to ask."""

    client: httpx.Client

    def ask(self, path: str, body: bytes | Mapping[str, object]) -> httpx.Response:
        """Post a body and read the whole answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The llama-server that discovery finds, with the demo model, on a unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "engine.sock")
        process = _launch(path, Path(folder) / "log")
        transport = httpx.HTTPTransport(uds=path, limits=ONE_REQUEST_EACH)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        try:
            with httpx.Client(
                transport=transport, base_url="http://engine", headers=headers, timeout=60
            ) as client:
                _wait_ready(process, client, path)
                yield Engine(client)
        finally:
            process.terminate()
            process.wait(START_S)


def _launch(path: str, log: Path) -> subprocess.Popen[bytes]:
    found = find_engine(None, os.environ)
    argv = build_argv(
        found.argv_prefix,
        host=path,
        model_path=str(DEMO_MODEL),
        extra_args=["-np", "4", "-c", "8192"],
    )
    environment = build_environment(os.environ, api_key=KEY, keep_model=False)
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            env={**environment, **found.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def _wait_ready(process: subprocess.Popen[bytes], client: httpx.Client, path: str) -> None:
    give_up_at = time.monotonic() + START_S
    while not _is_ready(client, path):
        assert time.monotonic() < give_up_at, "the engine was not ready in time"
        # Between two looks; it ends at once when the engine has ended.
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the engine ended with {process.wait(0.02)} before it was ready")


def _is_ready(client: httpx.Client, path: str) -> bool:
    # httpx leaves a socket open that it could not connect.
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) != 0:
            return False
    return client.get("/health").status_code == 200


def assembled(engine: Engine, label: str, fields: dict[str, Any]) -> tuple[int, Any]:
    """Return the status and the answer that a client gets by way of a stream."""
    assembler = assembler_for(label, fields)
    assert assembler is not None
    body = upstream_body(label, fields, json.dumps(fields).encode())
    told = engine.ask(label, body)
    if told.status_code != 200:
        return told.status_code, told.json()
    assert told.headers["content-type"] == "text/event-stream"
    _feed(assembler, told.content)
    for question in assembler.questions():
        asked = (
            engine.client.get(question.path)
            if question.fields is None
            else engine.ask(question.path, question.fields)
        )
        question.learn(asked.json())
    answer = assembler.finish()
    return answer.status, json.loads(answer.body)


def _feed(assembler: Assembler, stream: bytes) -> None:
    for start in range(0, len(stream), PIECE):
        assembler.feed(stream[start : start + PIECE])


def _comparable(found: Any) -> Any:
    """Return an answer without what differs between any two answers: ids, times, and the slot."""
    if isinstance(found, list):
        return [_comparable(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {name: _unless_it_differs(name, value) for name, value in found.items()}


def _unless_it_differs(name: str, value: Any) -> Any:
    if name in {"created", "created_at", "completed_at", "id_slot"}:
        return type(value).__name__
    if name in {"id", "call_id", "item_id"} and isinstance(value, str):
        return "an id"
    if name == "timings":
        # Their values differ, which of them there are does not.
        return list(value)
    return _comparable(value)


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        pytest.param(label, {**ASKED[label], "temperature": 0, **fields}, id=f"{label} {name}")
        for label, variants in VARIANTS
        for name, fields in variants.items()
    ],
)
def test_assembled_answer_is_the_one_in_one_piece(
    engine: Engine, label: str, fields: dict[str, Any]
) -> None:
    """Status, members, their order and their values, but ids, times and the values of timings."""
    engine.ask(label, fields)
    direct = engine.ask(label, fields)
    status, answer = assembled(engine, label, fields)
    assert status == direct.status_code
    # As text, since the order of the members counts.
    assert json.dumps(_comparable(answer), indent=1) == json.dumps(
        _comparable(direct.json()), indent=1
    )


STREAMED: list[tuple[str, dict[str, Any]]] = [
    *((label, {}) for label in (*CHATS, *TEXTS, *NATIVES, "/infill", *RESPONSES, *MESSAGES)),
    (CHATS[0], {"n": 2}),
    (CHATS[0], {**TOOLS, "max_tokens": 200}),
    (CHATS[0], {"stream_options": {"include_usage": True}, "timings_per_token": True}),
    (CHATS[0], {"logprobs": True, "top_logprobs": 2}),
    (RESPONSES[0], {"timings_per_token": True}),
    (NATIVES[0], {"prompt": ["A request", "word " * 400]}),
    (TEXTS[0], {"prompt": ["A request", "word " * 400], "n": 2, "verbose": True}),
]


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        pytest.param(
            label,
            {**ASKED[label], "temperature": 0, "stream": True, **fields},
            id=f"{label} {' '.join(fields)}",
        )
        for label, fields in STREAMED
    ],
)
def test_streaming_client_gets_the_events_it_asked_for(
    engine: Engine, label: str, fields: dict[str, Any]
) -> None:
    """The progress that is asked for in its place leaves no trace."""
    engine.ask(label, fields)
    direct = engine.ask(label, fields)
    told = engine.ask(label, upstream_body(label, fields, json.dumps(fields).encode())).content
    taken_out = stream_filter(label, fields)
    if taken_out is not None:
        pieces = [told[start : start + PIECE] for start in range(0, len(told), PIECE)]
        told = b"".join(map(taken_out.feed, pieces)) + taken_out.finish()
    assert _lines(told) == _lines(direct.content)


def _lines(stream: bytes) -> list[str]:
    """Return a stream's lines, comparable; those of several choices come in any order.

    Without progress llama-server begins each prompt but the first with `data: null`. Nobody misses
    it.
    """
    lines = stream.decode().replace("data: null\n\n", "").split("\n")
    return sorted(
        "data: " + json.dumps(_comparable(json.loads(line[6:])))
        if line.startswith("data: {")
        else line
        for line in lines
    )


def test_chat_that_is_cut_before_anything_is_parsed_has_no_text(engine: Engine) -> None:
    """What no stream tells: the text of a tool call that ends before its name.

    An answer in one piece has its text as content; this is the one difference that is left, with
    the beginning of a stop string that a chat is cut in.
    """
    fields = {**ASKED[CHATS[0]], **TOOLS, "temperature": 0, "max_tokens": 5}
    _, answer = assembled(engine, CHATS[0], fields)
    direct = engine.ask(CHATS[0], fields).json()
    (choice,), (cut,) = answer["choices"], direct["choices"]
    assert choice["finish_reason"] == cut["finish_reason"] == "length"
    assert cut["message"]["content"].startswith("<tool_call>")
    assert choice["message"]["content"] == ""
