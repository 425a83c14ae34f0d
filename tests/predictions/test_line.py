"""The line to one client: news is written at once while the client keeps up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.events import Lagged
from proxy.predictions.line import AT_ONCE_BYTES, Line
from tests.left_behind import Leftovers
from tests.predictions.predicted import HEAD, Played, before, follow, frames, piece, until
from tests.promises.wire import wire
from tests.web.wire import Wire


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


@dataclass(slots=True)
class Ends:
    """A log, a line on it, and the client's end of its socket."""

    log: EventLog
    line: Line
    server: socket.socket
    client: socket.socket

    def received(self) -> bytes:
        """Return what the client can read now; empty where that is nothing."""
        try:
            return self.client.recv(1 << 20)
        except BlockingIOError:
            return b""

    def fill(self) -> None:
        """Leave no room in the socket."""
        try:
            while True:
                self.server.send(bytes(1 << 16))
        except BlockingIOError:
            return


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Give a line to a client that takes what it is sent."""
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        client.setblocking(False)
        log = EventLog(max_events=4)
        yield Ends(log, Line(log.subscribe(), server), server, client)


async def test_news_is_written_while_the_task_sleeps(ends: Ends) -> None:
    """As one chunk of whole events, and the task is left alone."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.line.wait_needed, 100)
        await trio.testing.wait_all_tasks_blocked()
        for name in ("a", "b"):
            ends.log.append(name, b"1")
        ends.line.deliver()
        assert ends.received() == b"30\r\n%b\r\n" % (
            b"id: 1\nevent: a\ndata: 1\n\nid: 2\nevent: b\ndata: 1\n\n"
        )
        ends.line.deliver()
        assert ends.received() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        ends.line.wake()


async def test_nothing_is_written_while_it_is_the_tasks_turn(ends: Ends) -> None:
    """Two who write would mix their bytes: before it sleeps, and once it is woken."""
    ends.log.append("a", b"1")
    ends.line.deliver()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.line.wait_needed, 100)
        await trio.testing.wait_all_tasks_blocked()
        ends.line.wake()
        ends.line.deliver()
    ends.line.deliver()
    assert ends.received() == b""


async def test_line_without_a_socket_wakes_its_task(ends: Ends) -> None:
    """Under TLS, and for HTTP/1.0."""
    line = Line(ends.log.subscribe(), None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.wait_needed, 100)
        await trio.testing.wait_all_tasks_blocked()
        line.deliver()


async def deliver_one(ends: Ends, data: bytes) -> bytes:
    """Deliver an event, which has to wake the task; return its chunk."""
    wire = ends.log.append("a", data).wire
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.line.wait_needed, 100)
        await trio.testing.wait_all_tasks_blocked()
        ends.line.deliver()
    return b"%x\r\n%b\r\n" % (len(wire), wire)


async def test_full_socket_leaves_the_chunk_to_the_task(ends: Ends) -> None:
    """It can wait for room."""
    ends.fill()
    assert await deliver_one(ends, b"1") == ends.line.take_torn()
    assert ends.line.take_torn() == b""


async def test_socket_that_takes_a_part_leaves_the_rest_to_the_task(ends: Ends) -> None:
    """To the byte: the chunk goes on where it was torn."""
    ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    chunk = await deliver_one(ends, b"x" * 60_000)
    torn = ends.line.take_torn()
    assert 0 < len(torn) < len(chunk)
    assert ends.received() + torn == chunk


async def test_client_that_is_gone_is_the_tasks_to_notice(ends: Ends) -> None:
    """The prediction does not hear of it: one client's end is none of its matters."""
    ends.server.close()
    assert await deliver_one(ends, b"1") == ends.line.take_torn()


async def test_large_event_is_the_tasks_to_send(ends: Ends) -> None:
    """In pieces; until then it is shared with everybody."""
    chunk = await deliver_one(ends, b"x" * AT_ONCE_BYTES)
    body = ends.line.take_body()
    assert body in chunk
    assert body is ends.log.events_from(1, 1)[0].wire
    assert ends.line.take_body() == b""
    assert ends.received() == b""


async def test_client_that_missed_events_is_told_by_its_task(ends: Ends) -> None:
    """Raised there, and not into the prediction."""
    raised = list[int]()

    async def wait() -> None:
        with pytest.raises(Lagged) as lagged:
            await ends.line.wait_needed(100)
        raised.append(lagged.value.skipped)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(6):
            ends.log.append("a", b"1")
        ends.line.deliver()
    assert raised == [2]


async def test_silence_is_told_once_nothing_was_written_for_so_long(
    autojump_clock: trio.testing.MockClock, ends: Ends
) -> None:
    """From the last news on, whoever wrote it."""
    times = list[float]()

    async def wait() -> None:
        assert not await ends.line.wait_needed(15)
        times.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(10)
        ends.log.append("a", b"1")
        ends.line.deliver()
        await trio.sleep(10)
        ends.line.deliver()
    assert times == [25]


async def test_cancelled_wait_gives_the_line_back(ends: Ends) -> None:
    """Nothing is written past a task that has gone on."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.line.wait_needed, 100)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    ends.log.append("a", b"1")
    ends.line.deliver()
    assert ends.received() == b""


# -- over real sockets -----------------------------------------------------------------------------


async def test_slow_client_gets_all_of_its_events_whole() -> None:
    """Whatever part of a chunk its socket took: the framing is right, and no event is lost."""
    played = Played()
    async with before(played) as server, wire(server.port, receive_buffer=4096) as client:
        await follow(client)
        await client.read_until(b"event: start")
        await played.say(HEAD)
        for _ in range(40):
            await played.say(piece("x" * 30_000))
        live = server.book.live((None, "p"))
        assert live is not None
        await until(lambda: live.prediction.log.last_number == 41)
        reader = Wire(client._stream)
        reader._held = client.received
        async with trio.open_nursery() as nursery:
            nursery.start_soon(played.finish)
            with trio.fail_after(20):
                answer = await reader.read_answer("PUT")
    found = frames(answer.body)
    assert [frame.number for frame in found] == list(range(1, 46))
    assert [frame.data["index"] for frame in found if frame.name == "output"] == list(range(40))
