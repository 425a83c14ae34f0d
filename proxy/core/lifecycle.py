"""The life of one llama-server process: its states, its ends, and when it is started again.

Owns the table of legal moves, the words for how a process ended, and the restart policy. Decides
only; what launches, signals and waits is `runtime.supervisor`. Clock and randomness come from the
caller.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class EngineState(StrEnum):
    """What the llama-server process is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    CRASHED = "crashed"
    FAILED = "failed"


class EngineEvent(StrEnum):
    """What moves a llama-server from one state to another."""

    LAUNCH = "launch"
    LOADED = "loaded"
    EXITED = "exited"
    STOP = "stop"
    GIVE_UP = "give_up"


# A missing key is an illegal move. `stopping` is left by the process's end alone: a second request
# to stop changes nothing, and a new launch waits for it. `crashed` has no process, hence nothing to
# wait for.
TRANSITIONS: dict[tuple[EngineState, EngineEvent], EngineState] = {
    (EngineState.STOPPED, EngineEvent.LAUNCH): EngineState.STARTING,
    (EngineState.STARTING, EngineEvent.LOADED): EngineState.READY,
    (EngineState.STARTING, EngineEvent.EXITED): EngineState.CRASHED,
    (EngineState.STARTING, EngineEvent.STOP): EngineState.STOPPING,
    (EngineState.READY, EngineEvent.EXITED): EngineState.CRASHED,
    (EngineState.READY, EngineEvent.STOP): EngineState.STOPPING,
    (EngineState.STOPPING, EngineEvent.EXITED): EngineState.STOPPED,
    (EngineState.CRASHED, EngineEvent.LAUNCH): EngineState.STARTING,
    (EngineState.CRASHED, EngineEvent.STOP): EngineState.STOPPED,
    (EngineState.CRASHED, EngineEvent.GIVE_UP): EngineState.FAILED,
    (EngineState.FAILED, EngineEvent.LAUNCH): EngineState.STARTING,
    (EngineState.FAILED, EngineEvent.STOP): EngineState.STOPPED,
}


class IllegalTransition(Exception):
    """A defect of ours: this event cannot happen in this state."""


def next_state(state: EngineState, event: EngineEvent) -> EngineState:
    """Return the state that `event` leads to.

    Raises:
        IllegalTransition: When the table has no such move.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} in state {state}") from None


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended.

    Args:
        returncode: As `subprocess.Popen.returncode`: the exit code, or minus the signal's number.
    """

    returncode: int

    @property
    def signal_number(self) -> int | None:
        """The signal that killed it, or None when it exited by itself."""
        return -self.returncode if self.returncode < 0 else None

    def describe(self) -> str:
        """Return the words for a person: `exit code 1`, `signal 9 (SIGKILL)`."""
        if self.signal_number is None:
            return f"exit code {self.returncode}"
        try:
            name = signal.Signals(self.signal_number).name
        except ValueError:
            return f"signal {self.signal_number}"
        return f"signal {self.signal_number} ({name})"


@dataclass(frozen=True, slots=True)
class RestartIn:
    """Launch again after `delay_s` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not launch again: `crashes` ends within `window_s` seconds are a loop."""

    crashes: int
    window_s: float


class RestartPolicy:
    """Decides whether and when a crashed llama-server is launched again.

    Args:
        first_delay_s: Delay before the first restart; it doubles with each further crash.
        max_delay_s: No delay is longer.
        max_crashes: More than so many crashes within `window_s` are a crash loop.
        window_s: See `max_crashes`.
        healthy_after_s: A launch that was ready for so long clears what went before it.

    State: the times of recent crashes, and the time since when the current launch has been ready.
    """

    def __init__(
        self,
        *,
        first_delay_s: float = 0.5,
        max_delay_s: float = 30.0,
        max_crashes: int = 5,
        window_s: float = 60.0,
        healthy_after_s: float = 60.0,
    ) -> None:
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._max_crashes = max_crashes
        self._window_s = window_s
        self._healthy_after_s = healthy_after_s
        self._crashes: deque[float] = deque(maxlen=max_crashes + 1)
        self._in_a_row = 0
        self._ready_since: float | None = None

    def on_ready(self, now: float) -> None:
        """Note that the current launch became ready."""
        self._ready_since = now

    def on_exit(self, now: float, rng: Callable[[], float]) -> RestartIn | GiveUp:
        """Note a crash and decide.

        Args:
            now: Seconds, of any clock that only goes forward.
            rng: Returns a number in [0, 1).
        """
        if self._ready_since is not None and now - self._ready_since >= self._healthy_after_s:
            self.reset()
        self._ready_since = None
        self._crashes.append(now)
        self._in_a_row += 1
        recent = sum(1 for then in self._crashes if now - then <= self._window_s)
        if recent > self._max_crashes:
            return GiveUp(recent, self._window_s)
        return RestartIn(self._delay_s() * (1.0 - rng() / 4))

    def reset(self) -> None:
        """Forget all crashes: after a time of health, or since somebody asked for a restart."""
        self._crashes.clear()
        self._in_a_row = 0
        self._ready_since = None

    def _delay_s(self) -> float:
        # The exponent is bounded: 2.0 ** 1024 overflows, and a long-lived engine may come that far.
        doubled = self._first_delay_s * 2.0 ** min(self._in_a_row - 1, 60)
        return min(doubled, self._max_delay_s)
