"""`/proxy/metrics`: parsed by Prometheus' own parser, with figures that were seen."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Running
from tests.promises.observe import until

CHAT = "/v1/chat/completions"


async def samples(url: str) -> dict[tuple[str, ...], float]:
    """Return every sample of the metrics by its name and its labels' values, by their names."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(url + "/proxy/metrics")).text
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_answers_are_counted_with_their_tokens_and_bytes(running: Running) -> None:
    """One streamed and one whole answer of four tokens each."""
    body = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 4, "ignore_eos": True}
    async with httpx.AsyncClient() as client:
        whole = await client.post(running.url + CHAT, json=body)
        streamed = await client.post(running.url + CHAT, json={**body, "stream": True})
    await until(lambda: running.server.in_flight == 0)
    found = await samples(running.url)
    assert found["llama_proxy_exchanges_total", "finished", CHAT] == 2
    assert found["llama_proxy_tokens_total", "completion"] == 8
    assert found["llama_proxy_tokens_total", "prompt"] == 2 * whole.json()["usage"]["prompt_tokens"]
    assert found["llama_proxy_sent_bytes_total",] == len(whole.content) + len(streamed.content)
    assert found["llama_proxy_time_to_first_token_seconds_count", CHAT] == 2
    assert found["llama_proxy_phase_seconds_count", "decode"] == 2


async def test_state_of_the_gate_and_the_engine_is_told(running: Running) -> None:
    """Of the moment in which it is asked."""
    async with httpx.AsyncClient() as client:
        await client.post(running.url + CHAT, json={"messages": [], "max_tokens": 1})
    await until(lambda: running.server.in_flight == 0)
    found = await samples(running.url)
    assert found["llama_proxy_engine_state", "ready"] == 1
    assert found["llama_proxy_engine_state", "failed"] == 0
    assert found["llama_proxy_gate_permits",] == 4
    assert found["llama_proxy_gate_queued",] == 0
    assert found["llama_proxy_exchanges_in_flight",] == 0
