"""`/livez`, `/readyz` and `/health`, in every state of the engine."""

from __future__ import annotations

import json

import pytest

from proxy.core.errors import NotFound, Unavailable
from proxy.runtime.backend import Backend
from proxy.web.vitals import PATHS, Vitals
from tests.fakes.staged_engine import StagedEngine
from tests.http1.asgi_client import ask, scope_of

TEXT = b"text/plain; charset=utf-8"


def made(engine: StagedEngine) -> tuple[Vitals, Backend]:
    """Return the vitals of a backend."""
    backend = Backend(engine, max_queue=0)
    return Vitals(backend), backend


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
async def test_health_of_a_ready_engine_is_llama_servers_answer(path: str) -> None:
    """Byte for byte: its clients compare it."""
    vitals, _ = made(StagedEngine())
    reply = await ask(vitals, scope_of(path=path))
    assert (reply.status, reply.body) == (200, b'{"status":"ok"}')
    assert reply.one(b"Content-Type") == b"application/json; charset=utf-8"


async def test_health_while_loading_is_llama_servers_error() -> None:
    """503 `Loading model`; the front door makes the reply of it."""
    vitals, _ = made(StagedEngine(ready=False))
    with pytest.raises(Unavailable) as refused:
        await ask(vitals, scope_of(path="/health"))
    assert json.loads(refused.value.as_body()) == {
        "error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}
    }


async def test_readyz_says_what_is_in_the_way() -> None:
    """In text, for a person who looks at a load balancer."""
    engine = StagedEngine(ready=False)
    vitals, backend = made(engine)
    loading = await ask(vitals, scope_of(path="/readyz"))
    assert (loading.status, loading.body) == (503, b"Loading model\n")
    engine.load()
    ready = await ask(vitals, scope_of(path="/readyz"))
    assert (ready.status, ready.body, ready.one(b"Content-Type")) == (200, b"ready\n", TEXT)
    engine.crash()
    restarting = await ask(vitals, scope_of(path="/readyz"))
    assert (restarting.status, b"restarting" in restarting.body) == (503, True)
    engine.give_up()
    failed = await ask(vitals, scope_of(path="/readyz"))
    assert (failed.status, b"has failed" in failed.body) == (503, True)
    backend.shut_down()
    stopping = await ask(vitals, scope_of(path="/readyz"))
    assert (stopping.status, b"shutting down" in stopping.body) == (503, True)


async def test_livez_says_yes_whatever_the_engine_does() -> None:
    """We live: whoever restarts us for it would make it worse."""
    engine = StagedEngine(ready=False)
    vitals, _ = made(engine)
    engine.crash()
    engine.give_up()
    reply = await ask(vitals, scope_of(path="/livez"))
    assert (reply.status, reply.body, reply.one(b"Content-Type")) == (200, b"live\n", TEXT)


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_vitals_are_never_cached_and_have_a_length(path: str) -> None:
    """An old yes is no answer."""
    vitals, _ = made(StagedEngine())
    for method in ("GET", "HEAD"):
        reply = await ask(vitals, scope_of(method, path))
        assert reply.one(b"Cache-Control") == b"no-store"
        assert reply.one(b"Content-Length") == b"%d" % len(reply.body)
        assert reply.complete


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_vitals_answer_get_only(path: str) -> None:
    """Nothing else has a meaning here."""
    vitals, _ = made(StagedEngine())
    with pytest.raises(NotFound, match="GET only"):
        await ask(vitals, scope_of("POST", path))
