"""The exchange: first cause wins, everything is given back, one line is logged."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from proxy.core.causes import EndCause, Phase
from proxy.core.errors import HttpError, InternalError, InvalidRequest, UpstreamFailed
from proxy.core.usage import Usage
from proxy.runtime.exchange import Exchange, ExchangeRegistry
from proxy.runtime.gate import Gate
from proxy.runtime.stream_tokens import Lease
from proxy.runtime.upstream import UpstreamConnection
from proxy.runtime.wires import PlainWire


def made(request_id: str = "r1") -> Exchange:
    """Return an exchange that is accepted now."""
    return Exchange(request_id, "/completion", "POST", trio.current_time())


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[UpstreamConnection, trio.SocketStream]]:
    """Give a connection and its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = UpstreamConnection(PlainWire(ours))
    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as other_end:
        yield connection, other_end
    connection.close()


async def test_end_cancels_its_scope_and_names_the_cause() -> None:
    """Whoever ends it ends its task."""
    exchange = made()
    with exchange.scope:
        exchange.end(EndCause.CANCELLED_BY_ADMIN)
        await trio.sleep_forever()
    assert exchange.cause is EndCause.CANCELLED_BY_ADMIN
    assert exchange.scope.cancelled_caught


async def test_end_again_changes_nothing() -> None:
    """The first cause stays, and its error."""
    exchange, error = made(), UpstreamFailed("first")
    exchange.end(EndCause.UPSTREAM_ERROR, error)
    exchange.end(EndCause.SHUTTING_DOWN, UpstreamFailed("second"))
    assert (exchange.cause, exchange.reply()) == (EndCause.UPSTREAM_ERROR, error)


async def test_finish_before_the_last_byte_makes_a_later_fin_no_cause() -> None:
    """A client that has everything and leaves has been served."""
    exchange = made()
    exchange.finish()
    exchange.end(EndCause.CLIENT_DISCONNECTED)
    assert exchange.cause is EndCause.FINISHED
    assert not exchange.scope.cancel_called


async def test_finish_after_an_end_changes_nothing() -> None:
    """What has been ended did not finish."""
    exchange = made()
    exchange.end(EndCause.CLIENT_TOO_SLOW)
    exchange.finish()
    assert exchange.cause is EndCause.CLIENT_TOO_SLOW


# -- deadlines and defects -------------------------------------------------------------------------


async def slept(exchange: Exchange, seconds: float = math.inf) -> float:
    """Let it last that long at most; return how long it lasted."""
    with exchange.scope:
        await trio.sleep(seconds)
    exchange.note_deadline()
    return trio.current_time() - exchange.started_at


async def test_end_at_ends_it_then_by_its_cause(autojump_clock: object) -> None:
    """Nobody has to be there to end it."""
    exchange = made()
    exchange.end_at(trio.current_time() + 5, EndCause.DEADLINE_EXCEEDED)
    assert await slept(exchange) == 5
    assert exchange.cause is EndCause.DEADLINE_EXCEEDED


@pytest.mark.parametrize("earlier_first", [True, False])
async def test_end_at_of_two_times_is_the_earlier_one(
    earlier_first: bool, autojump_clock: object
) -> None:
    """By its own cause, in whatever order they were named."""
    exchange, now = made(), trio.current_time()
    ends = [(now + 3, EndCause.TOKEN_EXPIRED), (now + 5, EndCause.DEADLINE_EXCEEDED)]
    for when, cause in ends if earlier_first else reversed(ends):
        exchange.end_at(when, cause)
    assert await slept(exchange) == 3
    assert exchange.cause is EndCause.TOKEN_EXPIRED


async def test_end_at_a_time_that_has_been_ends_it_at_once() -> None:
    """A lease may be over by the time the request has been read."""
    exchange = made()
    exchange.end_at(trio.current_time() - 1, EndCause.TOKEN_EXPIRED)
    await slept(exchange)
    assert exchange.cause is EndCause.TOKEN_EXPIRED


async def test_deadline_that_did_not_come_is_no_cause(autojump_clock: object) -> None:
    """It ended before."""
    exchange = made()
    exchange.end_at(trio.current_time() + 5, EndCause.DEADLINE_EXCEEDED)
    assert await slept(exchange, 4) == 4
    assert exchange.cause is None


async def test_deadline_after_an_end_changes_nothing(autojump_clock: object) -> None:
    """The first cause stays."""
    exchange = made()
    exchange.end_at(trio.current_time() + 5, EndCause.DEADLINE_EXCEEDED)
    exchange.end(EndCause.CANCELLED_BY_ADMIN)
    assert await slept(exchange) == 0
    assert exchange.cause is EndCause.CANCELLED_BY_ADMIN


async def test_end_by_defect_counts_also_after_the_answer_was_called_complete() -> None:
    """It was not: the defect came before its last byte."""
    exchange, error = made(), InternalError("x")
    exchange.finish()
    exchange.end_by_defect(error)
    assert (exchange.cause, exchange.reply()) == (EndCause.INTERNAL_ERROR, error)


async def test_end_by_defect_after_another_end_changes_nothing() -> None:
    """What ended it was there before."""
    exchange = made()
    exchange.end(EndCause.CLIENT_DISCONNECTED)
    exchange.end_by_defect(InternalError("x"))
    assert (exchange.cause, exchange.reply()) == (EndCause.CLIENT_DISCONNECTED, None)


# -- leases ----------------------------------------------------------------------------------------


def lease_until(ends_at: float | None, given_back: list[str] | None = None) -> Lease:
    """Return a lease that says when it was given back."""
    back = [] if given_back is None else given_back
    return Lease(
        "t1", ends_at=ends_at, max_tokens=None, key_name=None, give_back=lambda: back.append("t1")
    )


async def test_lease_that_is_revoked_ends_the_exchange() -> None:
    """At once, by the cause that the revocation names."""
    exchange, lease = made(), lease_until(None)
    exchange.take_lease(lease)
    with exchange.scope:
        lease.end(EndCause.TOKEN_REVOKED)
        await trio.sleep_forever()
    assert exchange.cause is EndCause.TOKEN_REVOKED


@pytest.mark.parametrize(
    ("lease_s", "timeout_s", "lasted", "cause"),
    [
        (3, None, 3, EndCause.TOKEN_EXPIRED),
        (3, 5, 3, EndCause.TOKEN_EXPIRED),
        (5, 3, 3, EndCause.DEADLINE_EXCEEDED),
        (None, 3, 3, EndCause.DEADLINE_EXCEEDED),
        (None, None, 7, None),
    ],
)
async def test_lease_ends_the_exchange_unless_something_does_before(
    lease_s: float | None,
    timeout_s: float | None,
    lasted: float,
    cause: EndCause | None,
    autojump_clock: object,
) -> None:
    """The request's own time goes on beside it."""
    exchange, now = made(), trio.current_time()
    if timeout_s is not None:
        exchange.end_at(now + timeout_s, EndCause.DEADLINE_EXCEEDED)
    exchange.take_lease(lease_until(None if lease_s is None else now + lease_s))
    assert await slept(exchange, 7) == lasted
    assert exchange.cause is cause


async def test_release_gives_the_lease_back_once() -> None:
    """After the permit, and not again."""
    given_back = list[str]()
    exchange = made()
    exchange.take_lease(lease_until(None, given_back))
    exchange.release()
    exchange.release()
    assert (given_back, exchange.lease) == (["t1"], None)


# -- replies and release ---------------------------------------------------------------------------


async def test_reply_is_the_causes_own_sentence_where_no_error_is_named() -> None:
    """An administrator names no error."""
    exchange = made()
    assert exchange.reply() is None
    exchange.end(EndCause.CANCELLED_BY_ADMIN)
    assert "administrator" in str(exchange.reply())


async def test_reply_of_a_client_that_is_gone_is_none() -> None:
    """There is nobody to tell."""
    exchange = made()
    exchange.end(EndCause.CLIENT_DISCONNECTED)
    assert exchange.reply() is None


async def test_release_closes_the_upstream_and_gives_the_permit_back() -> None:
    """llama-server sees the end of the connection; the gate has its permit; twice is harmless."""
    gate = Gate(max_queue=0)
    gate.open(1)
    async with upstream() as (connection, other_end):
        exchange = made()
        exchange.ticket, exchange.upstream, exchange.generation = gate.enter(), connection, 3
        exchange.release()
        exchange.release()
        assert await other_end.receive_some() == b""
    assert gate.statistics().admitted == 0
    held: list[object] = [exchange.ticket, exchange.upstream, exchange.generation]
    assert held == [None, None, None]


async def test_open_registers_for_the_block_and_releases_what_it_forgot() -> None:
    """Nothing outlives the block, also when it raises."""
    gate, registry = Gate(max_queue=0), ExchangeRegistry()
    gate.open(1)
    exchange = made()
    with pytest.raises(ValueError, match="defect"), registry.open(exchange):  # noqa: PT012
        exchange.ticket = gate.enter()
        assert (len(registry), list(registry)) == (1, [exchange])
        raise ValueError("defect")
    assert (len(registry), gate.statistics().admitted) == (0, 0)
    assert exchange.phase is Phase.ENDED


async def test_open_keeps_two_with_one_request_id_apart() -> None:
    """Clients choose the id, and may choose one twice."""
    registry = ExchangeRegistry()
    with registry.open(made("same")), registry.open(made("same")):
        assert len(registry) == 2


async def test_end_all_ends_those_that_are_selected_each_with_its_own_error() -> None:
    """The others go on."""
    registry, errors = ExchangeRegistry(), list[HttpError | None]()
    first, second, other = made("1"), made("2"), made("3")
    with registry.open(first), registry.open(second), registry.open(other):
        registry.end_all(
            EndCause.UPSTREAM_ERROR,
            lambda: UpstreamFailed("gone"),
            only=lambda exchange: exchange is not other,
        )
        errors = [first.error, second.error]
        assert (first.cause, other.cause) == (EndCause.UPSTREAM_ERROR, None)
    assert errors[0] is not errors[1]


async def test_end_all_without_error_uses_the_causes_own() -> None:
    """As at shutdown."""
    registry, exchange = ExchangeRegistry(), made()
    with registry.open(exchange):
        registry.end_all(EndCause.SHUTTING_DOWN)
    assert exchange.error is None
    assert exchange.cause is EndCause.SHUTTING_DOWN


async def test_supersede_ends_the_older_ones_of_the_conversation_alone() -> None:
    """Neither those of other conversations, nor those of other keys, nor those without one."""
    registry = ExchangeRegistry()
    newer, older, other, another_key, alone = (made(str(number)) for number in range(5))
    for exchange in (newer, older):
        exchange.conversation = ("key", "a")
    other.conversation, another_key.conversation = ("key", "b"), (None, "a")
    with (
        registry.open(older),
        registry.open(other),
        registry.open(another_key),
        registry.open(alone),
        registry.open(newer),
    ):
        assert registry.supersede(newer)
        assert [each.request_id for each in registry if each.cause is not None] == ["1"]
        assert older.cause is EndCause.SUPERSEDED


async def test_supersede_of_a_new_conversation_ends_nobody() -> None:
    """Then llama-server need not be asked to end it."""
    registry, newer = ExchangeRegistry(), made()
    newer.conversation = (None, "a")
    with registry.open(made("2")), registry.open(newer):
        assert not registry.supersede(newer)


async def test_wait_none_on_engine_waits_for_those_with_a_connection_alone() -> None:
    """Who is still queued does not hold up a restart. Everybody who waits is told."""
    registry, told = ExchangeRegistry(), list[int]()

    async def wait(number: int) -> None:
        await registry.wait_none_on_engine()
        told.append(number)

    async with upstream() as (connection, _), trio.open_nursery() as nursery:
        with registry.open(made("queued")):
            with registry.open(made("served")) as served:
                served.upstream = connection
                nursery.start_soon(wait, 1)
                nursery.start_soon(wait, 2)
                with registry.open(made("short")):
                    await trio.testing.wait_all_tasks_blocked()
                await trio.testing.wait_all_tasks_blocked()
                assert told == []
            with trio.fail_after(5):
                await trio.testing.wait_all_tasks_blocked()
                assert sorted(told) == [1, 2]
            nursery.cancel_scope.cancel()


async def test_wait_none_on_engine_with_nobody_there_returns_at_once() -> None:
    """Nothing has to end first."""
    with trio.fail_after(5):
        await ExchangeRegistry().wait_none_on_engine()


async def test_measures_of_an_exchange_that_finished(autojump_clock: object) -> None:
    """Each phase has its time, the route its time to the first token, and what was sent counts."""
    registry, exchange = ExchangeRegistry(), made()
    with registry.open(exchange):
        await trio.sleep(1)
        exchange.admitted_at = trio.current_time()
        await trio.sleep(2)
        exchange.first_byte_at = trio.current_time()
        await trio.sleep(4)
        exchange.sent.bytes, exchange.usage = 100, Usage(7, 9)
        exchange.finish()
    found = registry.measures
    assert found.exchanges == {("/completion", "finished"): 1}
    assert {name: phase.total for name, phase in found.phase_seconds.items()} == {
        "queued": 1,
        "prefill": 2,
        "decode": 4,
    }
    assert found.first_token_seconds["/completion"].total == 3
    assert found.bytes_sent == 100
    assert found.tokens == {"prompt": 7, "completion": 9}


async def test_measures_of_an_exchange_that_left_the_queue(autojump_clock: object) -> None:
    """It was queued all the time and never had a first token."""
    registry, exchange = ExchangeRegistry(), made()
    with registry.open(exchange):
        await trio.sleep(3)
        exchange.end(EndCause.CLIENT_DISCONNECTED)
    found = registry.measures
    assert {name: phase.total for name, phase in found.phase_seconds.items()} == {"queued": 3}
    assert found.first_token_seconds == {}


async def test_measures_of_an_exchange_that_ended_in_prefill(autojump_clock: object) -> None:
    """The time since it was admitted is prefill."""
    registry, exchange = ExchangeRegistry(), made()
    with registry.open(exchange):
        exchange.admitted_at = trio.current_time()
        await trio.sleep(5)
        exchange.end(EndCause.UPSTREAM_ERROR)
    assert registry.measures.phase_seconds["prefill"].total == 5


async def test_end_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Who, what, how it ended and how long each part took, also as fields."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    exchange = made()
    with ExchangeRegistry().open(exchange):
        exchange.status = 400
        exchange.end(EndCause.FINISHED, InvalidRequest("x"))
    (record,) = caplog.records
    assert record.getMessage() == "POST /completion -> 400 finished"
    assert record.__dict__["request_id"] == "r1"
    assert record.__dict__["queued_s"] is None
    assert record.__dict__["total_s"] >= 0


async def test_exchange_cancelled_from_outside_ends_with_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody named a cause: the whole run was cancelled."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    registry = ExchangeRegistry()
    with registry.open(made()):
        pass
    assert registry.measures.exchanges == {("/completion", "shutting_down"): 1}
    assert "shutting_down" in caplog.text
