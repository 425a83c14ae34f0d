"""What `/health-check` tells of a backend, in the words that Cog's clients wait for.

Owns where the facts come from; what they mean there is `core.predictions.health`'s.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from proxy._version import __version__
from proxy.core.loglines import without_folders
from proxy.core.predictions.health import health
from proxy.runtime.backend import Backend
from proxy.runtime.supervisor import LlamaServer

# Cog tells its worker's log of the start; of a llama-server's these lines are enough to see why it
# failed.
_LOG_LINES = 20


def tell_health(backend: Backend) -> dict[str, object]:
    """Return the object of `/health-check`.

    Args:
        backend: The engine with its gates.
    """
    engine = backend.engine
    began = engine.launched_at
    return health(
        engine.state,
        free_permits=_free_permits(backend),
        started_at=_unix_time(trio.current_time() if began is None else began),
        completed_at=None if engine.settled_at is None else _unix_time(engine.settled_at),
        logs=_logs(backend),
        version=__version__,
        python=platform.python_version(),
    )


def _free_permits(backend: Backend) -> int:
    """Return how many more may run; a gate that nobody has come to yet has room."""
    found = [gate.statistics() for gate in backend.gates.values()]
    if not found or any(gate.permits is None for gate in found):
        return 1
    return sum(max(0, (gate.permits or 0) - gate.admitted) for gate in found)


def _logs(backend: Backend) -> str:
    engine = backend.engine
    if engine.failure is not None:
        lines: Sequence[str] = (engine.failure.reason, *engine.failure.log_tail[-_LOG_LINES:])
    elif isinstance(engine, LlamaServer):
        lines = engine.logs.tail(_LOG_LINES)
    else:
        lines = ()
    return "".join(f"{without_folders(line)}\n" for line in lines)


def _unix_time(trio_time: float) -> float:
    """Return a Trio time as Unix time, in seconds: clients have no other clock with us."""
    return datetime.now(UTC).timestamp() - (trio.current_time() - trio_time)
