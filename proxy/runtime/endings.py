"""Why a launch of llama-server is over, and the words for it.

Owns the kinds of endings and the sentence that a person reads about each. Decides nothing: what
follows an ending is `runtime.supervisor`'s, by the policy in `core.lifecycle`. No sentence holds a
path.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from proxy.core.lifecycle import ExitStatus
from proxy.core.loglines import explain_failure


class Ending(Enum):
    """Why a launch is over."""

    NOT_STARTED = auto()
    EXITED = auto()
    STALLED = auto()
    HUNG = auto()
    RESTART = auto()
    STOP = auto()


UNRESPONSIVE = frozenset({Ending.STALLED, Ending.HUNG})
"""These want llama-server gone, not stopped: it does not react, a grace would only prolong the
outage."""

ASKED_FOR = frozenset({Ending.RESTART, Ending.STOP})
"""These are somebody's wish, and no crash."""


def explain(ending: Ending, lines: Sequence[str], status: ExitStatus | None, stall_s: float) -> str:
    """Return one sentence on why a launch that nobody wanted to end is over.

    Args:
        ending: Not one of `ASKED_FOR`.
        lines: What the launch has logged.
        status: How its process ended.
        stall_s: The time without a log line after which a load has failed.
    """
    if ending is Ending.STALLED:
        return f"llama-server logged nothing for {stall_s:g} s while it was loading."
    if ending is Ending.HUNG:
        return "llama-server did not answer any more and was killed."
    return explain_failure(lines, status)


def why_not_executed(error: OSError) -> str:
    """Return one sentence on why the system did not execute the program."""
    if isinstance(error, FileNotFoundError):
        return "The llama-server program is not there any more."
    if isinstance(error, PermissionError):
        return "The llama-server program may not be executed by this user."
    return "The llama-server program is not made for this machine."
