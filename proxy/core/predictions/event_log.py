"""The events of one prediction, and the positions of those who read them.

Owns the numbers of the events (from 1, without a gap), which of them are still held, and how many
subscribers there are. Knows nothing of what an event means. It calls nobody: who appends wakes the
subscribers.

All subscribers read the one log; each is only a position in it. So what a late one is sent first
and what it is sent live come from the same place, and there is no seam at which an event could be
lost or doubled. The log never waits for a subscriber: one that is too far behind finds that its
next event is gone, and is ended alone.

Source: coglet 0.23.1 for the counts; the numbers of the events are ours.
"""

from __future__ import annotations

from collections import deque

from proxy.core.errors import ProxyError
from proxy.core.predictions.events import Event, Lagged, Truncated

# Cog's, by count. By bytes: what a thousand events of a few kilobytes are, so that a log of large
# ones costs no more. Both are also how far a subscriber may lag: there is one log for all.
MAX_EVENTS = 1024
MAX_BYTES = 4 * 1024 * 1024
# Cog's.
MAX_SUBSCRIBERS = 1024


class TooManySubscribers(ProxyError):
    """A log has as many subscribers as it may have."""

    def __init__(self) -> None:
        super().__init__("Too many stream subscribers")


class EventLog:
    """The bounded, append-only log of one prediction.

    The oldest event goes when a new one would be one too many, or when those that came after it,
    the newest aside, have `max_bytes`. The newest is left out of the sum so that one huge event
    drives out nothing at the moment when it comes: before the next one everybody can take it, and
    what stood before it. So there is always the newest, however large, and the log holds less than
    `max_bytes` beside its oldest and its newest event.

    Args:
        max_events: How many events are held, from 1.
        max_bytes: The bytes of frames that are held, as said above, from 1.
        replay: False: a subscriber gets only what is yet to come, and the log is there for those
            who lag (Cog's history capacity of 0).
    """

    def __init__(
        self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES, *, replay: bool = True
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._replay = replay
        self._held: deque[Event] = deque()
        self._held_bytes = 0
        self._last_number = 0
        self._closed = False
        self._subscribers = 0

    @property
    def closed(self) -> bool:
        """Whether the last event is in it."""
        return self._closed

    @property
    def last_number(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._last_number

    @property
    def first_number(self) -> int:
        """The number of the oldest event that is held; of the first to come before there is one."""
        return self._last_number + 1 - len(self._held)

    @property
    def held_bytes(self) -> int:
        """The bytes of the frames that are held."""
        return self._held_bytes

    @property
    def subscribers(self) -> int:
        """How many subscribers there are, but for those whose next event is known to be gone."""
        return self._subscribers

    def append(self, name: str, data: bytes) -> Event:
        """Add an event and return it.

        Args:
            name: Its type, one line.
            data: Its data, one line.

        Raises:
            RuntimeError: The log is closed.
            ValueError: `name` or `data` has a line end, which would make two fields of it.
        """
        if self._closed:
            raise RuntimeError("no event can follow the last one")
        if b"\n" in data or b"\r" in data or "\n" in name or "\r" in name:
            raise ValueError("an event's name and data are one line each")
        self._last_number += 1
        event = Event(self._last_number, name, data)
        self._held.append(event)
        self._held_bytes += len(event.wire)
        self._evict()
        return event

    def _evict(self) -> None:
        held = self._held
        while len(held) > self._max_events or (
            self._held_bytes - len(held[0].wire) - len(held[-1].wire) >= self._max_bytes
        ):
            self._held_bytes -= len(held.popleft().wire)

    def close(self) -> None:
        """Say that the newest event was the last one; saying it again changes nothing."""
        self._closed = True

    def subscribe(self, after: int | None = None) -> Cursor:
        """Return the position of a new subscriber.

        It gets all events, or those after the number that it has already. A number that was never
        given is of another prediction, or made up, and says nothing of what its owner has: it gets
        what is yet to come. Where nothing is, it gets the last event, so that its stream has an
        end. The same holds for everybody in a log without replay.

        Args:
            after: The number of the last event that it has; None, 0 or less: it has none.

        Raises:
            TooManySubscribers: There are `MAX_SUBSCRIBERS`.
        """
        if self._subscribers >= MAX_SUBSCRIBERS:
            raise TooManySubscribers
        number = self._next_after(max(0, after or 0))
        skipped = max(0, self.first_number - number)
        if not skipped:
            self._subscribers += 1
        return Cursor(self, number, skipped)

    def _next_after(self, after: int) -> int:
        if after == self._last_number or (self._replay and after < self._last_number):
            return after + 1
        return self._last_number if self._closed and self._held else self._last_number + 1

    def events_from(self, number: int, max_bytes: int) -> list[Event]:
        """Return the events from a number on; at least one, if there is one.

        Args:
            number: The first one's, which is held or is the next to come.
            max_bytes: How many bytes of frames all of them may have; the first may have more.
        """
        events: list[Event] = []
        size = 0
        # By index: both ends of a deque are near, and most subscribers are at the newest event.
        for index in range(number - self.first_number, len(self._held)):
            event = self._held[index]
            size += len(event.wire)
            if events and size > max_bytes:
                break
            events.append(event)
        return events

    def forget_subscriber(self) -> None:
        """Count one subscriber less; its cursor says so, once."""
        self._subscribers -= 1


class Cursor:
    """The position of one subscriber. `EventLog.subscribe` makes it.

    Args:
        log: The log that it reads.
        number: The number of the event that it should get next.
        skipped: How many of the events from there on were gone when it came; 0: none, and the log
            counts it as a subscriber.
    """

    __slots__ = ("_counted", "_log", "_next", "_over", "_skipped")

    def __init__(self, log: EventLog, number: int, skipped: int) -> None:
        self._log = log
        self._next = number
        self._skipped = skipped
        self._counted = not skipped
        self._over = False

    @property
    def done(self) -> bool:
        """Whether nothing will come any more: all was taken, it was ended, or it has left."""
        return self._over or (self._log.closed and self._next > self._log.last_number)

    def take(self, max_bytes: int) -> list[Event]:
        """Return the events that are there and move on; none where there is nothing new.

        Once it has raised, the subscriber is ended: `done`, and no longer counted.

        Args:
            max_bytes: How many bytes of frames they may have; one event is always returned, if
                there is one.

        Raises:
            Truncated: Events that it should have got first were gone when it came.
            Lagged: They went while it was here.
        """
        if self._over:
            return []
        if self._skipped:
            self.leave()
            raise Truncated(self._skipped)
        lost = self._log.first_number - self._next
        if lost > 0:
            self.leave()
            raise Lagged(lost)
        events = self._log.events_from(self._next, max_bytes)
        self._next += len(events)
        return events

    def leave(self) -> bool:
        """Stop being a subscriber; leaving again changes nothing.

        Returns:
            Whether nobody is left who waits for more. It is False where that cannot matter or does
            not count as leaving: the log is closed, or the subscriber was ended by `take` before,
            or came too late for its first event.
        """
        self._over = True
        if not self._counted:
            return False
        self._counted = False
        self._log.forget_subscriber()
        return not self._log.closed and self._log.subscribers == 0
