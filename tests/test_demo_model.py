"""The demo model: built the same byte for byte, small, and good for all that its users ask of it.

What it answers is read from a real engine: the embedded runtime in a process of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).parent.parent
MODEL = REPOSITORY / "proxy" / "data" / "demo.gguf"
# llama-server closes a connection after 100 requests, which a kept one would meet at random.
ONE_REQUEST_EACH = httpx.Limits(max_keepalive_connections=0)
# What is said in plain text: words, their punctuation, paragraphs.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,:-\n")
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Give a client of an engine that serves the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "engine.sock"))
        engine = subprocess.Popen(
            [sys.executable, "-m", "proxy.runtime.embedded", "--host", path],
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
        )
        try:
            transport = httpx.HTTPTransport(uds=path, limits=ONE_REQUEST_EACH)
            with httpx.Client(
                transport=transport, base_url="http://localhost", timeout=30
            ) as found:
                wait_healthy(path, found)
                yield found
        finally:
            engine.terminate()
            assert engine.wait(10) == 0


def wait_healthy(path: str, client: httpx.Client) -> None:
    """Return as soon as the engine answers that it is ready; fail after 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # httpx leaks the socket of a connection that is refused, so look first.
        with socket.socket(socket.AF_UNIX) as probe:
            listening = probe.connect_ex(path) == 0
        if listening and client.get("/health").status_code == 200:
            return
        os.sched_yield()
    pytest.fail("the engine did not become ready")


def chat(client: httpx.Client, **options: object) -> dict[str, Any]:
    """Return the only choice of a chat answer."""
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2000, **options}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def test_build_on_this_machine_gives_the_packaged_file(tmp_path: Path) -> None:
    """Building the model again gives the packaged file, byte for byte."""
    rebuilt = tmp_path / "demo.gguf"

    subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "build-demo-model", rebuilt],
        check=True,
        capture_output=True,
    )

    assert rebuilt.read_bytes() == MODEL.read_bytes()


def test_packaged_model_is_at_most_2_mib() -> None:
    """The packaged model is at most 2 MiB."""
    assert MODEL.stat().st_size <= 2 * 1024 * 1024


def test_props_of_the_default_launch_give_4_slots_of_8192_tokens_or_more(
    client: httpx.Client,
) -> None:
    """Without options there are four slots, and each takes requests of at least 8192 tokens."""
    props = client.get("/props").json()

    assert props["total_slots"] == 4
    assert props["default_generation_settings"]["n_ctx"] >= 8192


def test_chat_answers_of_default_settings_are_words_and_end_by_themselves(
    client: httpx.Client,
) -> None:
    """Answers are words of the corpus, and nearly all end by themselves after a few dozen."""
    answers = [chat(client, seed=seed) for seed in range(40)]

    assert set("".join(answer["message"]["content"] for answer in answers)) <= PLAIN
    assert sum(answer["finish_reason"] == "stop" for answer in answers) >= 38
    words = [len(answer["message"]["content"].split()) for answer in answers]
    assert 30 <= sum(words) / len(words) <= 150


def test_chat_answer_without_any_sampler_is_words(client: httpx.Client) -> None:
    """At temperature 1 with every other sampler off no stray byte appears."""
    choice = chat(client, temperature=1, top_k=0, top_p=1, min_p=0, seed=1)

    assert set(choice["message"]["content"]) <= PLAIN


@pytest.mark.parametrize(
    "prompt", ["\n", "The proxy", "it is not", "a client that", "2 + 2 = 4", '"', "{"]
)
def test_completion_at_temperature_0_ends(client: httpx.Client, prompt: str) -> None:
    """Temperature 0 comes to an end from wherever it starts."""
    body = {"prompt": prompt, "temperature": 0, "n_predict": 500}

    reply = client.post("/completion", json=body).json()

    assert reply["stop_type"] == "eos"


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_chat_with_a_json_schema_gives_such_json(client: httpx.Client, temperature: float) -> None:
    """A JSON schema gives JSON of that shape, which ends."""
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["béta", "😀"]},
        },
        "required": ["name", "age", "tags", "kind"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}

    choice = chat(client, response_format=shape, temperature=temperature, seed=1)

    found = json.loads(choice["message"]["content"])
    assert list(found) == ["name", "age", "tags", "kind"]
    assert found["kind"] in {"béta", "😀"}


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
def test_chat_with_tools_calls_one(client: httpx.Client, tool_choice: str) -> None:
    """A question with tools gets one call whose arguments are as the tool's schema says."""
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}

    choice = chat(client, tools=[tool], tool_choice=tool_choice, seed=1)

    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert list(json.loads(call["function"]["arguments"])) == ["city", "days"]


def test_chat_after_the_result_of_a_tool_is_words(client: httpx.Client) -> None:
    """The result of a tool gets an answer in words."""
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sun"},
    ]

    choice = chat(client, messages=messages, tools=[tool], seed=1)

    assert choice["finish_reason"] == "stop"
    assert set(choice["message"]["content"]) <= PLAIN


@pytest.mark.parametrize(
    "text", ["The proxy, naïve 😀\n\nthe llama-server", "\x00\x7f\t", "日本語", "]}\"'"]
)
def test_any_text_tokenized_and_back_is_the_same(client: httpx.Client, text: str) -> None:
    """Every text can be written in the model's tokens."""
    tokens = client.post("/tokenize", json={"content": text}).json()["tokens"]

    assert client.post("/detokenize", json={"tokens": tokens}).json() == {"content": text}


def test_infill_gives_words(client: httpx.Client) -> None:
    """The model has the tokens that /infill needs."""
    body = {"input_prefix": "The proxy ", "input_suffix": " ends.", "n_predict": 10}

    assert client.post("/infill", json=body).status_code == 200


def test_one_stream_makes_over_1000_tokens_per_second(client: httpx.Client) -> None:
    """One stream makes more than 1000 tokens per second, in the best of three tries."""
    body = {"prompt": "\n", "n_predict": 2000, "ignore_eos": True, "stream": True}

    def rate() -> float:
        with closing(
            client.send(client.build_request("POST", "/completion", json=body), stream=True)
        ) as reply:
            events = [line for line in reply.iter_lines() if line.startswith("data: ")]
        return float(
            json.loads(events[-1].removeprefix("data: "))["timings"]["predicted_per_second"]
        )

    assert max(rate() for _ in range(3)) > 1000
