"""Who is admitted, who waits and who is refused: the decisions of the gate.

Owns the order of tickets and nothing else: it has no clock, wakes nobody and does no I/O. Whoever
calls it wakes the tickets that it returns (`runtime.gate`).

State: `_admitted` holds a permit each; `_waiting` is first in, first out. A ticket is in one of
them or in neither. While anybody waits, no permit is free.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

# A client that is told to wait a minute has seen that we are overloaded; more only hides a
# recovery.
MAX_RETRY_AFTER_S = 60
# Without a measurement: a chat answer of some hundred tokens on a small GPU.
TYPICAL_EXCHANGE_S = 5.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The ticket holds a permit."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The ticket waits; `position` is how many wait before it, plus one."""

    position: int


@dataclass(frozen=True, slots=True)
class Shed:
    """The queue is full: the ticket has no place."""


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """The counts of a moment; `permits` is None where there is no bound."""

    permits: int | None
    admitted: int
    queued: int


class Admission(Generic[T]):
    """First come, first served, with so many permits and a bounded queue.

    Args:
        permits: How many may hold one at a time, from 0; None for no bound.
        max_queue: How many may wait, from 0.
    """

    def __init__(self, permits: int | None, max_queue: int) -> None:
        self._permits = permits
        self._max_queue = max_queue
        self._admitted: set[T] = set()
        self._waiting: OrderedDict[T, None] = OrderedDict()

    def enter(self, ticket: T) -> Admitted | Queued | Shed:
        """Give `ticket` a permit or a place, or refuse it.

        Raises:
            ValueError: It has a permit or a place already.
        """
        if ticket in self._admitted or ticket in self._waiting:
            raise ValueError("a ticket enters once")
        if self._has_free_permit():
            self._admitted.add(ticket)
            return Admitted()
        if len(self._waiting) >= self._max_queue:
            return Shed()
        self._waiting[ticket] = None
        return Queued(len(self._waiting))

    def leave(self, ticket: T) -> tuple[T, ...]:
        """Take back the permit or the place of `ticket`; return who is admitted instead, in order.

        A ticket that has neither changes nothing, so that every end may call it.
        """
        self._admitted.discard(ticket)
        self._waiting.pop(ticket, None)
        return self._admit_waiting()

    def resize(self, permits: int | None) -> tuple[T, ...]:
        """Change the number of permits; return who is admitted by that, in order.

        Fewer permits revoke none: nobody is admitted until enough have left.
        """
        self._permits = permits
        return self._admit_waiting()

    def position(self, ticket: T) -> int:
        """Return how many wait before `ticket`, plus one; 0 if it does not wait."""
        if ticket not in self._waiting:
            return 0
        return next(n for n, other in enumerate(self._waiting, start=1) if other == ticket)

    def waiting(self) -> tuple[T, ...]:
        """Return who waits, in order."""
        return tuple(self._waiting)

    def statistics(self) -> AdmissionStatistics:
        """Return the counts of this moment."""
        return AdmissionStatistics(self._permits, len(self._admitted), len(self._waiting))

    def _has_free_permit(self) -> bool:
        return self._permits is None or len(self._admitted) < self._permits

    def _admit_waiting(self) -> tuple[T, ...]:
        admitted: list[T] = []
        while self._waiting and self._has_free_permit():
            ticket, _ = self._waiting.popitem(last=False)
            self._admitted.add(ticket)
            admitted.append(ticket)
        return tuple(admitted)


def retry_after_s(queued: int, permits: int, exchange_s: float = TYPICAL_EXCHANGE_S) -> int:
    """Return after how many whole seconds a refused client may find a place, from 1 to 60.

    Args:
        queued: How many wait.
        permits: How many are served at a time.
        exchange_s: How long one takes.
    """
    estimate = exchange_s * (queued + 1) / max(permits, 1)
    if not estimate < MAX_RETRY_AFTER_S:
        return MAX_RETRY_AFTER_S
    return math.ceil(max(1.0, estimate))
