"""What every engine shows of itself, whether we run it or somebody else does.

Owns the state, its one way to change (`core.lifecycle`), and the telling: the log line, the
observers, the waiters, in this order, exactly once for each change. It never starts, stops or asks
anything; the engines (`runtime.supervisor`, `runtime.external`) do, each the only writer of its own
state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from proxy.core.errors import EngineError, EngineFailed
from proxy.core.lifecycle import EngineEvent, EngineState, ExitStatus, next_state
from proxy.runtime.address import Address

logger = logging.getLogger("proxy.engine")

_TROUBLE = frozenset({EngineState.CRASHED, EngineState.FAILED})
_SETTLED = frozenset({EngineState.READY, EngineState.FAILED})
_STOPPED = "llama-server has been stopped."


class EngineView:
    """The read side of an engine.

    Attributes:
        generation: How many times it was launched (or, not ours, came back); 0 before the first.
        model: The model's name for people, without a path; None until known.
        total_slots: How many requests it works on at once; None until, or when not, known.
        failure: Why it is `failed`, with the last log lines; None in every other state.
        last_exit: How the last launch that ended did end.
        router: Whether it serves several models, each with slots of its own.
        restarts: How often it was launched again after a crash.
        launched_at: Trio time of the last launch; None before the first.
        settled_at: Trio time at which that launch got ready or was given up; None until then.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.model: str | None = None
        self.total_slots: int | None = None
        self.failure: EngineError | None = None
        self.last_exit: ExitStatus | None = None
        self.restarts = 0
        self.router = False
        self.launched_at: float | None = None
        self.settled_at: float | None = None
        self._state = EngineState.STOPPED
        self._finished = False
        self._observers: dict[object, Callable[[], None]] = {}
        self._changed = trio.Event()

    @property
    def state(self) -> EngineState:
        """What it is doing now."""
        return self._state

    @property
    def address(self) -> Address:
        """Where it listens in the current launch."""
        raise NotImplementedError

    def note_activity(self) -> None:
        """Tell that it has just sent something: what sends does not hang. Cheap; for each read."""

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called on every change of state, in Trio's thread, within the change.

        Returns:
            A function that ends it. The callback must neither block nor raise.
        """
        key = object()
        self._observers[key] = callback
        return lambda: self._observers.pop(key, None) and None

    async def wait_ready(self) -> None:
        """Return when requests can be served, at once if they can now.

        Raises:
            EngineError: When it is, or becomes, `failed`, as the kind that says why; `EngineFailed`
                when it has been stopped for good.

        Cancellation: nothing is left behind.
        """
        while self._state is not EngineState.READY:
            self._raise_if_over()
            await self._changed.wait()

    def _raise_if_over(self) -> None:
        if self.failure is not None:
            # A new one each time: an exception that many tasks raise would gather all their
            # tracebacks.
            raise type(self.failure)(self.failure.reason, self.failure.log_tail)
        if self._finished:
            raise EngineFailed(_STOPPED)

    def _move(self, event: EngineEvent, detail: str = "") -> None:
        before, self._state = self._state, next_state(self._state, event)
        self._note_times()
        level = logging.WARNING if self._state in _TROUBLE else logging.INFO
        tail = f": {detail}" if detail else ""
        logger.log(level, "llama-server %s -> %s%s", before, self._state, tail)
        self._tell()

    def _note_times(self) -> None:
        if self._state is EngineState.STARTING:
            self.launched_at, self.settled_at = trio.current_time(), None
        elif self._state in _SETTLED:
            self.settled_at = trio.current_time()

    def _finish(self) -> None:
        self._finished = True
        self._tell_waiters()

    def _tell(self) -> None:
        for callback in list(self._observers.values()):
            callback()
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
