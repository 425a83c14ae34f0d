"""Who is due when: clients in buckets of one millisecond.

Owns the order of what is to be sent. A bucket costs the same however many clients share it, so
that hundreds of streams at the same pace cost no more for each than one does.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

TICK_NS = 1_000_000

Client = TypeVar("Client")


def next_tick(now_ns: int) -> int:
    """Return the first tick that is not before `now_ns`, in nanoseconds."""
    return -(-now_ns // TICK_NS) * TICK_NS


class Agenda(Generic[Client]):
    """What is to be done, by time; one entry for each `add`."""

    def __init__(self) -> None:
        self._ticks: list[int] = []
        self._buckets: dict[int, list[Client]] = {}

    @property
    def next_ns(self) -> int | None:
        """When the first is due; None when nobody is."""
        return self._ticks[0] if self._ticks else None

    def add(self, due_ns: int, client: Client) -> None:
        """Put `client` down for the first tick that is not before `due_ns`."""
        tick = next_tick(due_ns)
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [client]
            heapq.heappush(self._ticks, tick)
        else:
            bucket.append(client)

    def take(self, now_ns: int) -> list[Client]:
        """Take out everybody who is due, the earliest first."""
        due: list[Client] = []
        while self._ticks and self._ticks[0] <= now_ns:
            due += self._buckets.pop(heapq.heappop(self._ticks))
        return due
