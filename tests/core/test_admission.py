"""Who is admitted, who waits and who is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from proxy.core.admission import (
    Admission,
    AdmissionStatistics,
    Admitted,
    Queued,
    Shed,
    retry_after_s,
)


def filled(permits: int | None, max_queue: int, tickets: str) -> Admission[str]:
    """Return an admission that `tickets` have entered, one a letter."""
    admission: Admission[str] = Admission(permits, max_queue)
    for ticket in tickets:
        admission.enter(ticket)
    return admission


def test_enter_free_permit_admits() -> None:
    """A ticket gets a permit while there is one."""
    assert filled(2, 0, "a").enter("b") == Admitted()


def test_enter_no_permit_queues_in_order() -> None:
    """Later tickets wait behind earlier ones, at known positions."""
    admission = filled(1, 2, "a")
    assert [admission.enter("b"), admission.enter("c")] == [Queued(1), Queued(2)]
    assert [admission.position(ticket) for ticket in "abcx"] == [0, 1, 2, 0]
    assert admission.waiting() == ("b", "c")


def test_enter_full_queue_sheds_and_forgets() -> None:
    """A refused ticket leaves no trace, and its leaving changes nothing."""
    admission = filled(1, 1, "ab")
    assert admission.enter("c") == Shed()
    assert admission.leave("c") == ()
    assert admission.statistics() == AdmissionStatistics(permits=1, admitted=1, queued=1)


def test_enter_without_queue_sheds_at_once() -> None:
    """A queue of 0 is no queue."""
    assert filled(1, 0, "a").enter("b") == Shed()


def test_enter_unbounded_admits_everybody() -> None:
    """Without a bound nobody ever waits."""
    admission = filled(None, 0, "abcdefgh")
    assert admission.statistics() == AdmissionStatistics(permits=None, admitted=8, queued=0)


@pytest.mark.parametrize("ticket", ["a", "b"])
def test_enter_twice_is_an_error(ticket: str) -> None:
    """A ticket that is admitted or waits cannot take a second place."""
    with pytest.raises(ValueError, match="once"):
        filled(1, 1, "ab").enter(ticket)


def test_leave_of_the_admitted_admits_the_first_in_the_queue() -> None:
    """First in, first out."""
    admission = filled(1, 3, "abcd")
    assert admission.leave("a") == ("b",)
    assert admission.waiting() == ("c", "d")


def test_leave_of_a_waiter_moves_up_those_behind() -> None:
    """A queued ticket that leaves admits nobody, and its place is free at once."""
    admission = filled(1, 2, "abc")
    assert admission.leave("b") == ()
    assert admission.position("c") == 1
    assert admission.enter("d") == Queued(2)


def test_leave_twice_admits_once() -> None:
    """A second leaving gives no second permit."""
    admission = filled(1, 3, "abc")
    assert [admission.leave("a"), admission.leave("a")] == [("b",), ()]


def test_resize_up_admits_as_many_as_there_are_new_permits() -> None:
    """In the order of the queue."""
    admission = filled(0, 4, "abcd")
    assert admission.resize(3) == ("a", "b", "c")


def test_resize_to_unbounded_admits_all() -> None:
    """Nobody is left waiting at a gate that is gone."""
    assert filled(1, 4, "abcd").resize(None) == ("b", "c", "d")


def test_resize_down_revokes_nothing() -> None:
    """Who holds a permit keeps it; the next is admitted when enough have left."""
    admission = filled(3, 2, "abcde")
    assert admission.resize(1) == ()
    assert [admission.leave(ticket) for ticket in "abc"] == [(), (), ("d",)]


def test_resize_to_zero_lets_everybody_wait() -> None:
    """While the engine restarts nobody is admitted and nobody is lost."""
    admission = filled(2, 2, "ab")
    admission.resize(0)
    assert admission.enter("c") == Queued(1)
    assert [admission.leave("a"), admission.leave("b")] == [(), ()]
    assert admission.resize(2) == ("c",)


class AdmissionMachine(RuleBasedStateMachine):
    """Any sequence of steps against a model: a plain list of who came, in order."""

    tickets = Bundle("tickets")

    @initialize(permits=st.none() | st.integers(0, 4), max_queue=st.integers(0, 4))
    def start(self, permits: int | None, max_queue: int) -> None:
        """Begin with any size."""
        self.admission: Admission[int] = Admission(permits, max_queue)
        self.permits = permits
        self.max_queue = max_queue
        self.admitted: list[int] = []
        self.waiting: list[int] = []
        self.next = 0

    @rule(target=tickets)
    def enter(self) -> object:
        """Somebody comes."""
        ticket, self.next = self.next, self.next + 1
        outcome = self.admission.enter(ticket)
        if self.permits is None or len(self.admitted) < self.permits:
            assert outcome == Admitted()
            self.admitted.append(ticket)
        elif len(self.waiting) < self.max_queue:
            self.waiting.append(ticket)
            assert outcome == Queued(len(self.waiting))
        else:
            assert outcome == Shed()
            return multiple()
        return ticket

    @rule(ticket=consumes(tickets))
    def leave(self, ticket: int) -> None:
        """Somebody who is there leaves."""
        (self.admitted if ticket in self.admitted else self.waiting).remove(ticket)
        self.take_in(self.admission.leave(ticket))

    @rule(permits=st.none() | st.integers(0, 4))
    def resize(self, permits: int | None) -> None:
        """The engine changes."""
        self.permits = permits
        self.take_in(self.admission.resize(permits))

    def take_in(self, newly: tuple[int, ...]) -> None:
        """Check who was admitted: the first of the queue, and as many as fit."""
        free = math.inf if self.permits is None else max(0, self.permits - len(self.admitted))
        assert len(newly) == min(free, len(self.waiting))
        assert list(newly) == self.waiting[: len(newly)]
        self.admitted += newly
        del self.waiting[: len(newly)]

    @invariant()
    def nobody_is_lost(self) -> None:
        """The counts, the order and the positions are the model's."""
        if not hasattr(self, "admission"):
            return
        assert self.admission.statistics() == AdmissionStatistics(
            self.permits, len(self.admitted), len(self.waiting)
        )
        assert self.admission.waiting() == tuple(self.waiting)
        for place, ticket in enumerate(self.waiting, start=1):
            assert self.admission.position(ticket) == place


TestAdmissionMachine = AdmissionMachine.TestCase


@pytest.mark.parametrize(
    ("queued", "permits", "exchange_s", "answer"),
    [
        (0, 4, 5.0, 2),
        (3, 4, 5.0, 5),
        (64, 4, 5.0, 60),
        (0, 1, 0.0, 1),
        (0, 0, 5.0, 5),
        (0, 1, 60.0, 60),
        (0, 1, 59.5, 60),
        (0, 1, math.inf, 60),
        (0, 1, math.nan, 60),
        (0, 1, -3.0, 1),
    ],
)
def test_retry_after_is_when_a_place_is_likely(
    queued: int, permits: int, exchange_s: float, answer: int
) -> None:
    """The time until as many have been served as stand before, within 1 to 60 seconds."""
    assert retry_after_s(queued, permits, exchange_s) == answer


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats())
def test_retry_after_is_bounded(queued: int, permits: int, exchange_s: float) -> None:
    """Whatever was measured, the answer is a sane header."""
    assert 1 <= retry_after_s(queued, permits, exchange_s) <= 60
