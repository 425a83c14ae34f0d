"""`/health-check`: what Cog's clients wait for before they send predictions.

Owns the mapping of llama-server's state onto Cog's words, and the object's shape. Must never ask
anybody: everything is passed in.

Source: coglet 0.23.1, `GET /health-check`: its members are in this order, not the alphabet's.
"""

from __future__ import annotations

from datetime import UTC, datetime

from proxy.core.lifecycle import EngineState

# The version whose API is spoken. The tests compare with it.
COGLET = "0.23.1"


def health(
    state: EngineState,
    *,
    free_permits: int,
    started_at: float,
    completed_at: float | None,
    logs: str,
    version: str,
    python: str,
) -> dict[str, object]:
    """Return the health of the model.

    It is `STARTING` whenever llama-server is not there and may come: also after a crash, when Cog
    would stay as it is for ever.

    Args:
        state: llama-server's.
        free_permits: How many more predictions can run at once, from 0.
        started_at: When llama-server was last launched, in seconds of Unix time.
        completed_at: When it got ready, or was given up; None while neither is so.
        logs: What was logged on the way, or why it failed.
        version: The proxy's.
        python: Python's.
    """
    return {
        "status": _status(state, free_permits),
        "setup": _setup(state, started_at, completed_at, logs),
        "version": {"coglet": COGLET, "proxy": version, "python": python},
    }


def _status(state: EngineState, free_permits: int) -> str:
    if state is EngineState.FAILED:
        return "SETUP_FAILED"
    if state is not EngineState.READY:
        return "STARTING"
    return "READY" if free_permits > 0 else "BUSY"


def _setup(
    state: EngineState, started_at: float, completed_at: float | None, logs: str
) -> dict[str, object]:
    status = {EngineState.READY: "succeeded", EngineState.FAILED: "failed"}.get(state)
    setup: dict[str, object] = {"started_at": _time(started_at)}
    if status is None:
        return {**setup, "status": "starting"}
    if completed_at is not None:
        setup["completed_at"] = _time(completed_at)
    return {**setup, "status": status, "logs": logs}


def _time(unix_s: float) -> str:
    """Return a time as RFC 3339 has it, always with microseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds")
