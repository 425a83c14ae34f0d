"""The events of one prediction, and the positions of those who read them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.core.predictions.event_log import (
    MAX_BYTES,
    MAX_EVENTS,
    MAX_SUBSCRIBERS,
    Cursor,
    EventLog,
    TooManySubscribers,
)
from proxy.core.predictions.events import Event, Lagged, Truncated

ALL = 10**9


def log_of(count: int, log: EventLog | None = None) -> EventLog:
    """Return a log that so many small events were added to."""
    log = log or EventLog()
    for _ in range(count):
        log.append("output", b"{}")
    return log


def numbers(events: list[Event]) -> list[int]:
    """Return the events' numbers."""
    return [event.number for event in events]


def of_size(size: int) -> bytes:
    """Return data that makes a frame named `e` of this size, while its number has one digit."""
    return b"x" * (size - len(Event(1, "e", b"").wire))


# -- the log ---------------------------------------------------------------------------------------


def test_log_new_is_empty() -> None:
    """The first event is still to come, and has the number 1."""
    log = EventLog()
    assert (log.first_number, log.last_number, log.held_bytes, log.closed) == (1, 0, 0, False)


def test_append_numbers_from_one() -> None:
    """Without a gap."""
    log = EventLog()
    assert [log.append("start", b"{}"), log.append("output", b"[]")] == [
        Event(1, "start", b"{}"),
        Event(2, "output", b"[]"),
    ]
    assert (log.first_number, log.last_number) == (1, 2)


def test_append_after_close_is_an_error() -> None:
    """Nothing follows the last event."""
    log = log_of(1)
    log.close()
    log.close()
    with pytest.raises(RuntimeError, match="last one"):
        log.append("output", b"{}")
    assert log.closed
    assert log.last_number == 1


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_append_line_end_is_an_error(end: str) -> None:
    """It would begin another field of the frame."""
    log = EventLog()
    with pytest.raises(ValueError, match="one line"):
        log.append("output", f"a{end}b".encode())
    with pytest.raises(ValueError, match="one line"):
        log.append(f"a{end}b", b"{}")
    assert log.last_number == 0


def test_append_one_too_many_drives_out_the_oldest() -> None:
    """As many are held as may be, and their bytes are counted."""
    log = log_of(5, EventLog(max_events=3))
    assert (log.first_number, log.last_number) == (3, 5)
    assert log.held_bytes == sum(len(event.wire) for event in log.events_from(3, ALL))


def test_append_default_holds_as_many_as_cog() -> None:
    """1024, and the next one is one too many."""
    log = log_of(MAX_EVENTS)
    assert log.first_number == 1
    assert log_of(1, log).first_number == 2


def test_append_bytes_between_oldest_and_newest_are_bounded() -> None:
    """An event goes when those after it, the newest aside, fill the bound."""
    log = EventLog(max_bytes=100)
    for size, first in [(40, 1), (99, 1), (40, 1), (40, 2), (59, 2), (40, 3), (400, 4), (40, 7)]:
        log.append("e", of_size(size))
        assert log.first_number == first


def test_append_huge_drives_out_nothing_when_it_comes() -> None:
    """A last event that repeats everything ends nobody who is a little behind."""
    log = log_of(3)
    cursor = log.subscribe()
    log.append("completed", b"x" * 3 * MAX_BYTES)
    assert numbers(cursor.take(ALL)) == [1, 2, 3, 4]


def test_append_huge_twice_at_once_reaches_who_kept_up() -> None:
    """A huge chunk and a last event that repeats it may come before anybody can take the first."""
    log = log_of(3)
    cursor = log.subscribe()
    cursor.take(ALL)
    log.append("output", b"x" * 3 * MAX_BYTES)
    log.append("completed", b"x" * 3 * MAX_BYTES)
    log.close()
    assert [numbers(cursor.take(1)), numbers(cursor.take(1))] == [[4], [5]]
    assert cursor.done


def test_append_newest_is_held_however_large() -> None:
    """The log is never empty again."""
    log = EventLog(max_events=1, max_bytes=1)
    for size in (100, 1000, 50):
        log.append("e", of_size(size))
        assert log.first_number == log.last_number
        assert log.held_bytes == size


# -- who comes -------------------------------------------------------------------------------------


def test_subscribe_late_gets_all_then_live() -> None:
    """One position in one log: there is no seam."""
    log = log_of(3)
    cursor = log.subscribe()
    assert numbers(cursor.take(ALL)) == [1, 2, 3]
    log_of(2, log)
    assert numbers(cursor.take(ALL)) == [4, 5]


@pytest.mark.parametrize("after", [None, 0, -5])
def test_subscribe_after_nothing_gets_all(after: int | None) -> None:
    """Who has nothing is sent everything."""
    assert numbers(log_of(2).subscribe(after).take(ALL)) == [1, 2]


@pytest.mark.parametrize("after", range(1, 5))
def test_subscribe_after_a_number_gets_the_rest(after: int) -> None:
    """Nothing is lost or doubled, also where the rest is still to come."""
    log = log_of(4)
    cursor = log.subscribe(after)
    log_of(1, log)
    assert numbers(cursor.take(ALL)) == list(range(after + 1, 6))


def test_subscribe_after_a_number_never_given_is_live() -> None:
    """It says nothing of what the client has, so it is sent what is yet to come."""
    log = log_of(2)
    cursor = log.subscribe(7)
    assert cursor.take(ALL) == []
    log_of(1, log)
    assert numbers(cursor.take(ALL)) == [3]


@pytest.mark.parametrize("replay", [True, False])
def test_subscribe_after_a_number_never_given_to_a_closed_log_gets_the_last(replay: bool) -> None:
    """Its stream has an end like any other."""
    log = log_of(3, EventLog(replay=replay))
    log.close()
    cursor = log.subscribe(7)
    assert numbers(cursor.take(ALL)) == [3]
    assert cursor.done


@pytest.mark.parametrize("replay", [True, False])
def test_subscribe_after_the_last_of_a_closed_log_is_done(replay: bool) -> None:
    """It has had the end."""
    log = log_of(3, EventLog(replay=replay))
    log.close()
    cursor = log.subscribe(3)
    assert cursor.done
    assert cursor.take(ALL) == []


def test_subscribe_to_a_log_closed_empty_is_done() -> None:
    """There is nothing to wait for."""
    log = EventLog()
    log.close()
    assert log.subscribe(5).done
    assert log.subscribe().done


@pytest.mark.parametrize("after", [None, 1, 9])
def test_subscribe_without_replay_is_live_only(after: int | None) -> None:
    """Nothing of the past, and no error for it."""
    log = log_of(5, EventLog(max_events=2, replay=False))
    cursor = log.subscribe(after)
    assert cursor.take(ALL) == []
    log_of(1, log)
    assert numbers(cursor.take(ALL)) == [6]


def test_subscribe_without_replay_to_a_closed_log_gets_the_last() -> None:
    """The end is for everybody."""
    log = log_of(3, EventLog(replay=False))
    log.close()
    assert numbers(log.subscribe().take(ALL)) == [3]


def test_subscribe_without_replay_may_lag_as_far() -> None:
    """The window for those who are there is the same."""
    log = EventLog(max_events=2, replay=False)
    cursor = log.subscribe()
    log_of(3, log)
    with pytest.raises(Lagged):
        cursor.take(ALL)


def test_subscribe_one_too_many_is_refused() -> None:
    """Until somebody leaves."""
    log = EventLog()
    cursors = [log.subscribe() for _ in range(MAX_SUBSCRIBERS)]
    with pytest.raises(TooManySubscribers, match=r"^Too many stream subscribers$"):
        log.subscribe()
    cursors[5].leave()
    log.subscribe()
    assert log.subscribers == MAX_SUBSCRIBERS


# -- who takes -------------------------------------------------------------------------------------


def test_take_nothing_new_is_empty() -> None:
    """It does not wait: its caller does."""
    cursor = EventLog().subscribe()
    assert cursor.take(ALL) == []
    assert not cursor.done


@pytest.mark.parametrize(
    ("max_bytes", "taken"),
    [(0, 1), (1, 1), (79, 1), (80, 2), (119, 2), (120, 3), (ALL, 3)],
)
def test_take_has_at_most_these_bytes_but_one_event(max_bytes: int, taken: int) -> None:
    """The bound is inside, and one event always comes, so that nobody is stuck before it."""
    log = EventLog()
    for _ in range(3):
        log.append("e", of_size(40))
    cursor = log.subscribe()
    assert numbers(cursor.take(max_bytes)) == list(range(1, taken + 1))
    assert numbers(cursor.take(ALL)) == list(range(taken + 1, 4))


def test_take_all_of_a_closed_log_is_done() -> None:
    """Only then: a closed log still has what was not taken."""
    log = log_of(2)
    cursor = log.subscribe()
    log.close()
    cursor.take(1)
    assert not cursor.done
    cursor.take(1)
    assert cursor.done


def test_take_evicted_before_it_came_is_truncated() -> None:
    """It counts what was gone when it came, whatever goes later."""
    log = log_of(5, EventLog(max_events=2))
    cursor = log.subscribe()
    log_of(2, log)
    with pytest.raises(Truncated) as caught:
        cursor.take(ALL)
    assert caught.value.skipped == 3


def test_take_evicted_after_its_number_is_truncated() -> None:
    """It counts what it has not got."""
    cursor = log_of(9, EventLog(max_events=2)).subscribe(4)
    with pytest.raises(Truncated) as caught:
        cursor.take(ALL)
    assert caught.value.skipped == 3


def test_take_at_the_oldest_held_is_not_truncated() -> None:
    """Nothing is missing for who has all that is gone."""
    assert numbers(log_of(9, EventLog(max_events=2)).subscribe(7).take(ALL)) == [8, 9]


def test_take_evicted_while_there_is_lagged() -> None:
    """It counts what is gone by now."""
    log = log_of(1, EventLog(max_events=2))
    cursor = log.subscribe()
    cursor.take(ALL)
    log_of(5, log)
    with pytest.raises(Lagged) as caught:
        cursor.take(ALL)
    assert caught.value.skipped == 3


def test_take_as_far_behind_as_may_be_is_not_lagged() -> None:
    """The last event reaches everybody who kept up."""
    log = log_of(1)
    cursor = log.subscribe()
    cursor.take(ALL)
    log_of(MAX_EVENTS, log)
    log.close()
    assert numbers(cursor.take(ALL))[-1] == MAX_EVENTS + 1
    assert cursor.done


@pytest.mark.parametrize("late", [True, False])
def test_take_after_it_raised_is_over(late: bool) -> None:
    """A stream has one end."""
    log = EventLog(max_events=1)
    cursor = log_of(2, log).subscribe() if late else log.subscribe()
    log_of(2, log)
    with pytest.raises((Truncated, Lagged)):
        cursor.take(ALL)
    assert cursor.done
    assert cursor.take(ALL) == []
    assert log.subscribers == 0


def test_take_lagged_leaves_the_others_alone() -> None:
    """Each has its own position."""
    log = EventLog(max_events=2)
    slow, fast = log.subscribe(), log.subscribe()
    for number in range(1, 4):
        log_of(1, log)
        assert numbers(fast.take(ALL)) == [number]
    with pytest.raises(Lagged):
        slow.take(ALL)
    assert log.subscribers == 1


# -- who leaves ------------------------------------------------------------------------------------


def test_leave_says_whether_it_was_the_last() -> None:
    """The last one of those who wait for more."""
    log = log_of(1)
    first, second = log.subscribe(), log.subscribe()
    assert [first.leave(), second.leave()] == [False, True]
    assert log.subscribers == 0


def test_leave_again_changes_nothing() -> None:
    """A cursor counts once, and leaves once."""
    log = log_of(1)
    log.subscribe()
    cursor = log.subscribe()
    assert [cursor.leave(), cursor.leave()] == [False, False]
    assert log.subscribers == 1


def test_leave_ends_the_cursor() -> None:
    """Nothing comes after it."""
    cursor = log_of(1).subscribe()
    cursor.leave()
    assert cursor.done
    assert cursor.take(ALL) == []


def test_leave_of_a_closed_log_is_no_last_one() -> None:
    """There is nothing that could be stopped."""
    log = log_of(1)
    cursor = log.subscribe()
    log.close()
    assert not cursor.leave()


def test_leave_after_lagging_is_no_leaving() -> None:
    """Who was ended has not gone away."""
    log = EventLog(max_events=1)
    cursor = log.subscribe()
    log_of(2, log)
    with pytest.raises(Lagged):
        cursor.take(ALL)
    assert not cursor.leave()


def test_leave_of_one_that_came_too_late_is_no_leaving() -> None:
    """It was never there: it is not counted, and who leaves beside it is the last."""
    log = EventLog(max_events=1)
    there = log.subscribe()
    late = log_of(2, log).subscribe()
    assert log.subscribers == 1
    assert there.leave()
    assert not late.leave()
    assert log.subscribers == 0


# -- any order -------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.integers(0, 14), st.integers(1, 12), st.integers(0, 100))
def test_subscribe_after_any_number_misses_nothing(
    count: int, after: int, max_events: int, max_bytes: int
) -> None:
    """Resumed after N: N + 1 and so on to the end, or the count of what is missing."""
    log = log_of(count, EventLog(max_events))
    cursor = log.subscribe(after)
    missing = log.first_number - 1 - after
    log.append("completed", b"{}")
    log.close()
    if missing > 0:
        with pytest.raises(Truncated) as caught:
            cursor.take(max_bytes)
        assert caught.value.skipped == missing
    elif log.first_number > min(after, count) + 1:
        with pytest.raises(Lagged) as lagged:
            cursor.take(max_bytes)
        assert lagged.value.skipped == 1
    else:
        taken = []
        while not cursor.done:
            taken += cursor.take(max_bytes)
        assert numbers(taken) == list(range(min(after, count) + 1, count + 2))


class Reader:
    """A subscriber, and what it should get: the model's side of a cursor."""

    def __init__(self, cursor: Cursor, number: int, skipped: int) -> None:
        self.cursor = cursor
        self.next = number
        self.skipped = skipped
        self.over = False
        self.counted = not skipped


class LogMachine(RuleBasedStateMachine):
    """Any sequence of steps against a model: all events that ever were, and their sizes.

    The bounds are small, so that they are often met.
    """

    max_events = 4
    max_bytes = 150
    replay = True

    def __init__(self) -> None:
        super().__init__()
        self.log = EventLog(self.max_events, self.max_bytes, replay=self.replay)
        self.events: list[Event] = []
        self.closed = False
        self.readers: list[Reader] = []

    @property
    def first(self) -> int:
        """Return the number of the oldest event that should be held, as the bounds say."""
        sizes = [len(event.wire) for event in self.events]
        first = max(0, len(sizes) - self.max_events)
        while sum(sizes[first + 1 : -1]) >= self.max_bytes:
            first += 1
        return first + 1

    @precondition(lambda self: not self.closed)
    @rule(size=st.sampled_from([0, 1, 40, 75, 149, 150, 400]))
    def append(self, size: int) -> None:
        """Add an event."""
        event = self.log.append("e", b"x" * size)
        self.events.append(event)
        assert event.number == len(self.events)

    @precondition(lambda self: len(self.events) > 3)
    @rule()
    def close(self) -> None:
        """Say that this was the last one."""
        self.log.close()
        self.closed = True

    @rule(after=st.none() | st.integers(-1, 12))
    def subscribe(self, after: int | None) -> None:
        """Come, or come back."""
        last = len(self.events)
        after = max(0, after or 0)
        if after == last or (self.replay and after < last):
            number = after + 1
        else:
            number = last if self.closed else last + 1
        skipped = max(0, self.first - number)
        self.readers.append(Reader(self.log.subscribe(after), number, skipped))

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), max_bytes=st.integers(0, 500))
    def take(self, data: st.DataObject, max_bytes: int) -> None:
        """Take what is there: the next ones without a gap, or the one error that is due."""
        reader = data.draw(st.sampled_from(self.readers))
        lost = max(0, self.first - reader.next)
        if not reader.over and (reader.skipped or lost):
            with pytest.raises(Truncated if reader.skipped else Lagged) as caught:
                reader.cursor.take(max_bytes)
            assert caught.value.skipped == (reader.skipped or lost)
            reader.over, reader.counted = True, False
            return
        taken = reader.cursor.take(max_bytes)
        rest = [] if reader.over else self.events[reader.next - 1 :]
        assert taken == rest[: len(taken)]
        reader.next += len(taken)
        fits = len(taken) == 1 or sum(len(event.wire) for event in taken) <= max_bytes
        # As many as fit: the next one would be too much, or there is none.
        more = sum(len(event.wire) for event in rest[: len(taken) + 1]) > max_bytes
        assert fits
        assert len(taken) == len(rest) or (taken and more)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Go, perhaps once more."""
        reader = data.draw(st.sampled_from(self.readers))
        was_counted, reader.counted, reader.over = reader.counted, False, True
        nobody = not any(other.counted for other in self.readers)
        assert reader.cursor.leave() is (was_counted and nobody and not self.closed)

    @invariant()
    def log_is_as_the_model(self) -> None:
        """Exactly the newest ones are held, and the bounds hold."""
        held = self.events[self.first - 1 :]
        assert self.log.events_from(self.log.first_number, ALL) == held
        assert (self.log.first_number, self.log.last_number) == (self.first, len(self.events))
        assert self.log.held_bytes == sum(len(event.wire) for event in held)
        assert len(held) <= self.max_events
        assert sum(len(event.wire) for event in held[1:-1]) < self.max_bytes
        assert held[-1:] == self.events[-1:]

    @invariant()
    def readers_are_as_the_model(self) -> None:
        """Who is counted, and who is done."""
        assert self.log.subscribers == sum(reader.counted for reader in self.readers)
        for reader in self.readers:
            all_taken = self.closed and reader.next > len(self.events)
            assert reader.cursor.done is (reader.over or all_taken)


class LiveLogMachine(LogMachine):
    """The same without replay."""

    replay = False


LogMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
LiveLogMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
TestAnyOrder = LogMachine.TestCase
TestAnyOrderWithoutReplay = LiveLogMachine.TestCase
