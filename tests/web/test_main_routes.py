"""Who answers which path on the main listener."""

from __future__ import annotations

import pytest

from proxy.http1.asgi import AsgiApp, Message, Receive, Send
from proxy.web.main_routes import MainRoutes
from tests.http1.asgi_client import ask, scope_of
from tests.http1.guarded import respond


def named(name: str) -> AsgiApp:
    """Return an application that answers its name."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await respond(send, name.encode())

    return app


ROUTES = MainRoutes(
    vitals=named("vitals"),
    operator=named("operator"),
    tokens=named("tokens"),
    predictions=named("predictions"),
    status=named("status"),
    files=named("files"),
    relay=named("relay"),
)


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/health", b"vitals"),
        ("/v1/health", b"vitals"),
        ("/livez", b"vitals"),
        ("/readyz", b"vitals"),
        ("/predictions", b"predictions"),
        ("/predictions/a/cancel", b"predictions"),
        ("/health-check", b"predictions"),
        ("/openapi.json", b"predictions"),
        ("/status/json", b"status"),
        ("/status/events", b"status"),
        ("/status", b"files"),
        ("/status/static/status.css", b"files"),
        ("/proxy/logs", b"operator"),
        ("/proxy/", b"operator"),
        ("/api/inference/stream-url", b"tokens"),
        ("/v1/stream-tokens", b"tokens"),
        ("/v1/stream-tokens/x", b"tokens"),
        ("/v1/stream-tokensx", b"relay"),
        ("/fastpath.js", b"files"),
        ("/fastpath.d.ts", b"files"),
        ("/fastpath.mjs", b"relay"),
        ("/stream", b"relay"),
        ("/proxy", b"relay"),
        ("/", b"relay"),
        ("/v1/chat/completions", b"relay"),
        ("/health/", b"relay"),
    ],
)
async def test_path_decides_who_answers(path: str, who: bytes) -> None:
    """What is not ours is llama-server's."""
    assert (await ask(ROUTES.choose(path), scope_of(path=path))).body == who
