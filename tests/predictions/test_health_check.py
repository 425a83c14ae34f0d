"""What `/health-check` tells, from the engine's state and the gates."""

from __future__ import annotations

import platform
import time
from typing import Any

import pytest

from proxy._version import __version__
from proxy.core.predictions.health import COGLET
from proxy.predictions.health_check import tell_health
from proxy.runtime.backend import Backend, Engine
from tests.fakes.staged_engine import StagedEngine, external_engine


def backend_of(engine: Engine) -> Backend:
    """Return a backend that nobody has come to."""
    return Backend(engine, max_queue=4)


def setup_of(backend: Backend) -> Any:
    """Return what is told of the start."""
    return tell_health(backend)["setup"]


async def test_engine_that_loads_is_starting() -> None:
    """There is no end of its start yet, and no log."""
    backend = backend_of(StagedEngine(ready=False))
    assert tell_health(backend)["status"] == "STARTING"
    assert setup_of(backend).keys() == {"started_at", "status"}


async def test_engine_that_is_there_is_ready() -> None:
    """Also before anybody has come to a gate."""
    backend = backend_of(StagedEngine())
    assert tell_health(backend)["status"] == "READY"
    assert setup_of(backend)["status"] == "succeeded"
    assert setup_of(backend)["completed_at"] >= setup_of(backend)["started_at"]


async def test_engine_without_a_free_slot_is_busy() -> None:
    """As soon as the last permit is taken, until one is back."""
    backend = backend_of(StagedEngine(slots=2))
    first, _ = (backend.gate_for(gated=True, model=None).enter() for _ in range(2))
    assert tell_health(backend)["status"] == "BUSY"
    first.leave()
    assert tell_health(backend)["status"] == "READY"


async def test_engine_without_a_bound_is_never_busy() -> None:
    """Where nobody tells how many slots there are."""
    backend = backend_of(external_engine())
    backend.gate_for(gated=True, model=None).enter()
    assert tell_health(backend)["status"] == "READY"


async def test_router_is_ready_while_one_model_has_room() -> None:
    """The permits of all models count together."""
    backend = Backend(StagedEngine(), max_queue=4, router=True)
    backend.gate_for(gated=True, model="a").enter()
    assert tell_health(backend)["status"] == "BUSY"
    backend.learn_slots("a", 2)
    assert tell_health(backend)["status"] == "READY"


async def test_engine_that_crashed_is_starting() -> None:
    """It comes back by itself, unlike Cog's."""
    engine = StagedEngine()
    backend = backend_of(engine)
    engine.crash()
    assert tell_health(backend)["status"] == "STARTING"


async def test_engine_that_failed_says_why() -> None:
    """With the last lines of its log, and without the folders of this machine."""
    engine = StagedEngine()
    backend = backend_of(engine)
    engine.crash()
    engine.give_up()
    assert tell_health(backend)["status"] == "SETUP_FAILED"
    assert setup_of(backend)["status"] == "failed"
    assert setup_of(backend)["logs"].startswith("It crash-looped.\n")
    assert "tiny.gguf" in setup_of(backend)["logs"]
    assert "/secret" not in setup_of(backend)["logs"]


async def test_engine_of_somebody_else_has_no_log_here() -> None:
    """It is not ours to read."""
    assert setup_of(backend_of(external_engine()))["logs"] == ""


async def test_versions_are_those_of_the_api_and_ours() -> None:
    """Clients look for coglet's; the rest is for people."""
    assert tell_health(backend_of(StagedEngine()))["version"] == {
        "coglet": COGLET,
        "proxy": __version__,
        "python": platform.python_version(),
    }


@pytest.mark.parametrize("member", ["started_at", "completed_at"])
async def test_times_are_of_the_wall_clock(member: str) -> None:
    """A start of just now is of today."""
    told = setup_of(backend_of(StagedEngine()))[member]
    assert told[:13] in {time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - s)) for s in (0, 5)}  # noqa: TID251  # the wall clock is what is told
    assert told.endswith("+00:00")
