"""The gate: who is woken, who is refused, and who keeps what."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from proxy.core.errors import HttpError, QueueFull, Unavailable
from proxy.runtime.gate import Gate, GateStatistics, Ticket


def closing() -> HttpError:
    """Return the refusal of a closed gate."""
    return Unavailable("closed")


def opened(permits: int | None, max_queue: int = 8) -> Gate:
    """Return an open gate."""
    gate = Gate(max_queue=max_queue)
    gate.open(permits)
    return gate


def test_enter_open_gate_admits_at_once() -> None:
    """There is a permit: nobody has to wait."""
    gate = opened(1)
    assert gate.enter().position == 0
    assert gate.statistics() == GateStatistics(permits=1, admitted=1, queued=0)


def test_gate_before_it_is_opened_lets_everybody_wait() -> None:
    """No permits are known yet."""
    gate = Gate(max_queue=1)
    assert gate.enter().position == 1


async def test_wait_admitted_returns_when_a_permit_is_given_back() -> None:
    """The next in the queue is woken by whoever leaves, in order."""
    gate, order = opened(1), list[str]()
    held, first, second = gate.enter(), gate.enter(), gate.enter()

    async def wait(name: str, ticket: Ticket) -> None:
        await ticket.wait_admitted()
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "second", second)
        nursery.start_soon(wait, "first", first)
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        held.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["first"]
        first.leave()
    assert order == ["first", "second"]


def test_position_counts_down_as_others_leave() -> None:
    """Who gives up a place before us lets us move on."""
    gate = opened(0)
    tickets = [gate.enter() for _ in range(3)]
    assert [ticket.position for ticket in tickets] == [1, 2, 3]
    tickets[0].leave()
    assert [ticket.position for ticket in tickets] == [0, 1, 2]


def test_leave_twice_gives_one_permit_back() -> None:
    """Every end may call it."""
    gate = opened(2)
    ticket = gate.enter()
    gate.enter()
    ticket.leave()
    ticket.leave()
    assert gate.statistics() == GateStatistics(permits=2, admitted=1, queued=0)


async def test_cancelled_wait_keeps_the_place_until_it_is_left() -> None:
    """A timer that ends a wait does not cost the place; a comment is sent and the wait goes on."""
    gate = opened(0)
    ticket = gate.enter()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ticket.wait_admitted()
    assert (scope.cancelled_caught, ticket.position) == (True, 1)
    ticket.leave()
    assert gate.statistics().queued == 0


def test_enter_full_queue_is_refused_with_the_makers_retry_after() -> None:
    """The refusal says when to come again, from the counts of the moment."""
    gate = Gate(max_queue=1, on_queue_full=lambda found: 10 * found.admitted + found.queued)
    gate.open(1)
    gate.enter()
    gate.enter()
    with pytest.raises(QueueFull) as refused:
        gate.enter()
    assert refused.value.retry_after_s == 11
    assert gate.statistics() == GateStatistics(permits=1, admitted=1, queued=1)


def test_enter_full_queue_without_a_maker_is_refused_without_retry_after() -> None:
    """Nobody guesses."""
    gate = opened(0, max_queue=0)
    with pytest.raises(QueueFull) as refused:
        gate.enter()
    assert refused.value.retry_after_s is None


def test_open_without_bound_admits_everybody() -> None:
    """None is no bound."""
    gate = opened(None, max_queue=0)
    assert [gate.enter().position for _ in range(50)] == [0] * 50
    assert gate.statistics().permits is None


async def test_open_with_more_permits_admits_who_waits() -> None:
    """A restart may bring more slots."""
    gate = opened(0)
    tickets = [gate.enter() for _ in range(3)]
    gate.open(2)
    with trio.fail_after(10):
        await tickets[0].wait_admitted()
        await tickets[1].wait_admitted()
    assert [ticket.position for ticket in tickets] == [0, 0, 1]


def test_hold_lets_come_and_wait_and_keeps_permits() -> None:
    """The engine restarts: who is served stays counted, who comes waits."""
    gate = opened(2)
    gate.enter()
    gate.hold()
    assert gate.enter().position == 1
    assert gate.statistics() == GateStatistics(permits=0, admitted=1, queued=1)


async def test_close_refuses_who_waits_each_with_an_error_of_its_own() -> None:
    """An exception that many tasks raise would gather all their tracebacks."""
    gate = opened(1)
    served, *waiting = (gate.enter() for _ in range(3))
    gate.close(closing)
    refusals = []
    for ticket in waiting:
        with pytest.raises(Unavailable, match="closed") as refused:
            await ticket.wait_admitted()
        refusals.append(refused.value)
    assert refusals[0] is not refusals[1]
    await served.wait_admitted()
    assert gate.statistics() == GateStatistics(permits=0, admitted=1, queued=0)


def test_enter_closed_gate_is_refused() -> None:
    """Nobody waits there."""
    gate = opened(1)
    gate.close(closing)
    with pytest.raises(Unavailable, match="closed"):
        gate.enter()


@pytest.mark.parametrize("reopen", [lambda gate: gate.open(1), Gate.hold], ids=["open", "hold"])
def test_closed_gate_can_be_used_again(reopen: object) -> None:
    """A restart out of `failed` opens it."""
    gate = opened(1)
    gate.close(closing)
    assert callable(reopen)
    reopen(gate)
    gate.enter()


def test_permits_given_back_after_close_admit_nobody() -> None:
    """What was in flight ends; nobody is waiting any more."""
    gate = opened(1)
    served = gate.enter()
    gate.close(closing)
    served.leave()
    assert gate.statistics() == GateStatistics(permits=0, admitted=0, queued=0)
