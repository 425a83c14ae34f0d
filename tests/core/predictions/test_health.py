"""What `/health-check` tells of llama-server."""

from __future__ import annotations

import json

import pytest

from proxy.core.lifecycle import EngineState
from proxy.core.predictions.health import health


def told(
    state: EngineState, *, free_permits: int = 1, completed_at: float | None = 2.0
) -> dict[str, object]:
    """Return the health of a llama-server in this state."""
    return health(
        state,
        free_permits=free_permits,
        started_at=1.5,
        completed_at=completed_at,
        logs="loaded\n",
        version="1.2",
        python="3.11.7",
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (EngineState.READY, "READY"),
        (EngineState.STARTING, "STARTING"),
        (EngineState.CRASHED, "STARTING"),
        (EngineState.STOPPING, "STARTING"),
        (EngineState.STOPPED, "STARTING"),
        (EngineState.FAILED, "SETUP_FAILED"),
    ],
)
def test_status_follows_the_engine(state: EngineState, status: str) -> None:
    """After a crash it starts again, and only what is given up has failed."""
    assert told(state)["status"] == status


def test_status_without_a_free_permit_is_busy() -> None:
    """Only when all are taken."""
    assert told(EngineState.READY, free_permits=0)["status"] == "BUSY"


def test_status_while_loading_is_starting_whatever_is_free() -> None:
    """Nothing can run, so nothing is busy."""
    assert told(EngineState.STARTING, free_permits=0)["status"] == "STARTING"


def test_health_has_its_members_in_cogs_order() -> None:
    """Whoever compares text finds them where Cog has them."""
    assert json.dumps(told(EngineState.READY), separators=(",", ":")) == (
        '{"status":"READY","setup":{"started_at":"1970-01-01T00:00:01.500000+00:00",'
        '"completed_at":"1970-01-01T00:00:02.000000+00:00","status":"succeeded",'
        '"logs":"loaded\\n"},"version":{"coglet":"0.23.1","proxy":"1.2","python":"3.11.7"}}'
    )


def test_setup_that_goes_on_has_no_end() -> None:
    """Neither its time nor its log."""
    assert told(EngineState.CRASHED)["setup"] == {
        "started_at": "1970-01-01T00:00:01.500000+00:00",
        "status": "starting",
    }


def test_setup_that_failed_says_why() -> None:
    """In its logs, as Cog does."""
    setup = told(EngineState.FAILED)["setup"]
    assert isinstance(setup, dict)
    assert (setup["status"], setup["logs"]) == ("failed", "loaded\n")


def test_setup_whose_end_nobody_knows_leaves_it_out() -> None:
    """A llama-server that somebody else runs was ready before."""
    setup = told(EngineState.READY, completed_at=None)["setup"]
    assert isinstance(setup, dict)
    assert setup.keys() == {"started_at", "status", "logs"}
