"""The client and a real proxy before a real engine: by either path, with and without TLS."""

from __future__ import annotations

import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import proxy
from tests.conftest import Running
from tests.left_behind import Leftovers
from tests.promises.observe import FREE_WITHIN_S, idle_after_s, leaves_nothing, until, wait_busy

TLS = Path(__file__).parents[1] / "config" / "tls"
CERTIFICATE: dict[str, Any] = {"certfile": TLS / "one.pem", "keyfile": TLS / "one.key"}
QUESTION = [{"role": "user", "content": "Hello!"}]
SHORT: dict[str, Any] = {"messages": QUESTION, "max_tokens": 8, "ignore_eos": True}
ENDLESS: dict[str, Any] = {"messages": QUESTION, "max_tokens": 30000, "ignore_eos": True}
# How a proxy is opened so that a stream comes by a path.
PATHS: dict[str, dict[str, Any]] = {"fast": {"fast_port": 0}, "main": {"fast_port": None}}

each_path = pytest.mark.parametrize("path", PATHS)


@asynccontextmanager
async def proxied(path: str, **options: Any) -> AsyncIterator[Running]:
    """Run an engine, and a proxy whose clients go by `path`."""
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, drain_s=5, **PATHS[path], **options) as server,
    ):
        yield Running(engine, server)


async def read(events: proxy.ChatStream) -> str:
    """Read a stream to its end; returns the text."""
    found = [each async for each in events]
    assert found[-1]["choices"][0]["finish_reason"] == "length"
    deltas = (choice["delta"] for each in found for choice in each["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


@each_path
async def test_chat_is_streamed_to_its_end(
    path: str, caplog: pytest.LogCaptureFixture, leftovers: Leftovers
) -> None:
    """The proxy calls it finished, under the request id that the client has."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with proxied(path) as at, proxy.open_client(at.url) as client:
        async with client.stream_chat(SHORT) as events:
            assert await read(events)
            assert events.path == path
        await until(lambda: not at.server.in_flight)
    (line,) = [each for each in caplog.records if each.name == "proxy.exchange"]
    assert line.__dict__["cause"] == proxy.EndCause.FINISHED
    assert line.__dict__["request_id"] == events.request_id


@each_path
@pytest.mark.parametrize("tls", [{}, CERTIFICATE], ids=["plain", "TLS"])
async def test_leaving_frees_the_slot(path: str, tls: dict[str, Any], leftovers: Leftovers) -> None:
    """P2, as for any client: within 250 ms of the block's end, and nothing is held."""
    async with (
        proxied(path, **tls) as at,
        proxy.open_client(at.url) as client,
        leaves_nothing(at.server),
    ):
        async with client.stream_chat(ENDLESS) as events:
            assert events.path == path
            async for _ in events:
                break
            await wait_busy(at.engine, 1)
        assert await idle_after_s(at.engine) < FREE_WITHIN_S


@each_path
async def test_cancelling_frees_the_slot(path: str, leftovers: Leftovers) -> None:
    """The same, when the task that reads is cancelled."""
    async with (
        proxied(path) as at,
        proxy.open_client(at.url) as client,
        leaves_nothing(at.server),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_for_ever, client)
            await wait_busy(at.engine, 1)
            nursery.cancel_scope.cancel()
        assert await idle_after_s(at.engine) < FREE_WITHIN_S


async def read_for_ever(client: proxy.ProxyClient) -> None:
    """Read a stream that does not end soon."""
    async with client.stream_chat(ENDLESS) as events:
        async for _ in events:
            pass


@each_path
async def test_crash_of_llama_server_is_told_by_name(path: str, leftovers: Leftovers) -> None:
    """P3, as this client sees it: the stream's last event is the proxy's error."""
    async with (
        proxied(path) as at,
        proxy.open_client(at.url) as client,
        client.stream_chat(ENDLESS) as events,
    ):
        await anext(events)
        assert at.engine.pid is not None
        os.kill(at.engine.pid, signal.SIGKILL)
        with pytest.raises(proxy.StreamAborted, match="SIGKILL") as caught:
            async for _ in events:
                pass
    found = caught.value
    assert (found.status, found.type, found.request_id) == (
        502,
        "upstream_error",
        events.request_id,
    )


@each_path
async def test_key_is_asked_for_where_there_are_keys(path: str, leftovers: Leftovers) -> None:
    """With it either path is open; without it, the refusal is the main listener's."""
    async with proxied(path, api_keys=[proxy.ApiKey.from_text("sk-1")]) as at:
        async with (
            proxy.open_client(at.url, "sk-1") as client,
            client.stream_chat(SHORT) as events,
        ):
            assert events.path == path
            assert await read(events)
        for key in (None, "sk-2"):
            async with proxy.open_client(at.url, key) as client:
                with pytest.raises(proxy.StreamRefused) as caught:
                    async with client.stream_chat(SHORT):
                        raise AssertionError("entered")
            assert (caught.value.status, caught.value.type) == (401, "authentication_error")
            assert caught.value.request_id


@each_path
async def test_own_machine_is_trusted_over_tls_unless_asked_not_to_be(
    path: str, leftovers: Leftovers
) -> None:
    """Without verification on loopback; with a context that knows the certificate, anywhere."""
    context = ssl.create_default_context(cafile=str(TLS / "one.pem"))
    # The certificate names `localhost` in its subject only, which OpenSSL alone would do with.
    context.check_hostname = False
    async with proxied(path, **CERTIFICATE) as at:
        for verify in (None, context, False):
            async with (
                proxy.open_client(at.url, verify=verify) as client,
                client.stream_chat(SHORT) as events,
            ):
                assert events.path == path
                assert await read(events)
        async with proxy.open_client(at.url, verify=True) as client:
            with pytest.raises(proxy.StreamUnanswered, match="certificate could not be verified"):
                async with client.stream_chat(SHORT):
                    raise AssertionError("entered")
