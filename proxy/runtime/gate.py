"""The gate: who may use one of llama-server's slots now, and who waits.

Owns the tickets of waiting and admitted exchanges. Every decision is `core.admission`'s; this
module only wakes those whom it admits. Admission is ours and not llama-server's, because a request
that is queued inside llama-server outlives its client.

A gate is in one of three moods, set by the engine's state: open with so many permits, held
(everybody
waits: the engine restarts), or closed (nobody waits: it loads for the first time, has failed, or we
    stop).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from proxy.core.admission import Admission, Admitted, Shed
from proxy.core.errors import HttpError, QueueFull

QUEUE_IS_FULL = "All slots are busy and the queue is full. Try again in a moment."


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """What a gate holds: `permits` is None where there is no bound."""

    permits: int | None
    admitted: int
    queued: int


class Ticket:
    """One exchange's place at a gate: queued, then admitted, then gone."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._settled = trio.Event()
        self._refusal: HttpError | None = None

    @property
    def position(self) -> int:
        """How many wait before this one, plus one; 0 once admitted or gone."""
        return self._gate._position(self)

    async def wait_admitted(self) -> None:
        """Wait for the permit.

        Raises:
            HttpError: What the gate was closed with meanwhile.

        Cancellation: the place is kept; `leave` gives it up.
        """
        if not self._settled.is_set():
            await self._settled.wait()
        if self._refusal is not None:
            raise self._refusal

    def leave(self) -> None:
        """Give the permit or the place back; idempotent, does not block."""
        self._gate._leave(self)

    def _settle(self, refusal: HttpError | None = None) -> None:
        self._refusal = refusal
        self._settled.set()


class Gate:
    """FIFO admission with a bounded queue.

    Args:
        max_queue: How many may wait; 0 for none.
        on_queue_full: Makes the refusal's `Retry-After`, in seconds, from the statistics.
    """

    def __init__(
        self, *, max_queue: int, on_queue_full: Callable[[GateStatistics], int] | None = None
    ) -> None:
        self._admission: Admission[Ticket] = Admission(permits=0, max_queue=max_queue)
        self._retry_after_s = on_queue_full
        self._closed_with: Callable[[], HttpError] | None = None

    def enter(self) -> Ticket:
        """Take a place; `wait_admitted` on it comes next, `leave` in any case.

        Raises:
            QueueFull: When as many wait as may.
            HttpError: What the gate is closed with.
        """
        if self._closed_with is not None:
            raise self._closed_with()
        ticket = Ticket(self)
        outcome = self._admission.enter(ticket)
        if isinstance(outcome, Shed):
            retry = self._retry_after_s
            raise QueueFull(
                QUEUE_IS_FULL, retry_after_s=retry(self.statistics()) if retry else None
            )
        if isinstance(outcome, Admitted):
            ticket._settle()
        return ticket

    def open(self, permits: int | None) -> None:
        """Admit up to `permits` at a time from now on; None for no bound."""
        self._closed_with = None
        self._admit(self._admission.resize(permits))

    def hold(self) -> None:
        """Let everybody wait; who holds a permit keeps it."""
        self._closed_with = None
        self._admit(self._admission.resize(0))

    def close(self, refusal: Callable[[], HttpError]) -> None:
        """Refuse who comes and who waits with `refusal()`; who holds a permit keeps it."""
        self._closed_with = refusal
        self._admission.resize(0)
        for ticket in self._admission.waiting():
            self._admission.leave(ticket)
            ticket._settle(refusal())

    def statistics(self) -> GateStatistics:
        """Return the counts of this moment."""
        found = self._admission.statistics()
        return GateStatistics(found.permits, found.admitted, found.queued)

    def _position(self, ticket: Ticket) -> int:
        return self._admission.position(ticket)

    def _leave(self, ticket: Ticket) -> None:
        self._admit(self._admission.leave(ticket))

    def _admit(self, tickets: tuple[Ticket, ...]) -> None:
        for ticket in tickets:
            ticket._settle()
