"""A flow between two pairs of real sockets with small buffers, and a test that plays both peers.

Nothing here waits for time: a step is done by the peers at once, and `rest` returns when the pump
has moved all that it can.
"""

from __future__ import annotations

import math
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import trio
import trio.testing
from hypothesis import strategies as st

from proxy.runtime.kernel_events import READABLE
from proxy.runtime.pump import Flow, Passage, Pump, PumpError

PATIENCE_S = 10.0
DATA = random.Random(1).randbytes(64 * 1024)


class BlindPump(Pump):
    """The pump of a platform without epoll."""

    def __init__(self, on_activity: Callable[[], None] = lambda: None) -> None:
        super().__init__(on_activity)
        assert self._epoll is not None
        self._epoll.close()
        self._epoll = None


PUMPS = {"epoll": Pump, "tasks": BlindPump}


class Grouping:
    """A passage that gives out multiples of so many bytes alone, and keeps where its pieces end."""

    over = False
    complete = False

    def __init__(self, size: int = 1) -> None:
        self._size = size
        self._held = b""
        self.piece_ends = [0]

    def feed(self, data: bytes) -> bytes:
        """Return what is whole."""
        held = self._held + data
        whole = len(held) - len(held) % self._size
        self._held = held[whole:]
        self.piece_ends.append(self.piece_ends[-1] + whole)
        return held[:whole]

    def end(self) -> bool:
        """Any end is the proper one."""
        return True


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair, non-blocking, whose buffers are full after some KiB."""
    pair = socket.socketpair()
    for each in pair:
        each.setblocking(False)
        # The kernel takes its minimum instead.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return pair


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair over loopback, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    for each in (accepted, client):
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return accepted, client


def reset(sock: socket.socket) -> None:
    """Close with RST; over a unix socket that takes bytes that nobody has read."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_registered(pump: Pump, sock: socket.socket) -> bool:
    """Tell whether the kernel watches the socket for the pump."""
    if pump._epoll is None:
        return False
    try:
        pump._epoll.register(sock, READABLE)
    except FileExistsError:
        return True
    pump._epoll.unregister(sock)
    return False


class Stage:
    """One flow under way, and its peers.

    Args:
        pump: What moves it.
        data: What the source's peer has to give.
        passage: The flow's.
        make_pair: Makes the socket pairs.
        send_timeout_s: The flow's.

    Attributes:
        received: What the sink's peer has read.
        error: What `move` raised; None before, and if nothing.
        over: Whether `move` has ended.
    """

    def __init__(
        self,
        pump: Pump,
        data: bytes = DATA,
        passage: Passage | None = None,
        *,
        make_pair: Callable[[], tuple[socket.socket, socket.socket]] = unix_pair,
        send_timeout_s: float = math.inf,
    ) -> None:
        self.source, self.giver = make_pair()
        self.sink, self.taker = make_pair()
        self.sockets = (self.source, self.giver, self.sink, self.taker)
        self.flow = Flow(self.source, self.sink, passage, send_timeout_s=send_timeout_s)
        self.pump = pump
        self.data = data
        self.given = 0
        self.received = b""
        self.scope = trio.CancelScope()
        self.error: BaseException | None = None
        self.over = False

    async def carry(self) -> None:
        """Move the flow; what it raises is kept."""
        try:
            with self.scope:
                await self.pump.move(self.flow)
        except (PumpError, OSError, ValueError) as error:
            self.error = error
        self.over = True

    def give(self, count: int) -> None:
        """Let the source's peer send so many of its bytes, or as many as there is room for."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.given += self.giver.send(self.data[self.given :][:count])

    def take(self, count: int) -> None:
        """Let the sink's peer read so many bytes, or as many as there are."""
        with suppress(BlockingIOError, ConnectionResetError):
            self.received += self.taker.recv(count)

    @staticmethod
    async def rest() -> None:
        """Return when nothing moves any more."""
        await trio.testing.wait_all_tasks_blocked()

    async def fill(self) -> None:
        """Give until nobody takes any more: all buffers are full."""
        given = -1
        while self.given > given:
            given = self.given
            self.give(len(self.data))
            await self.rest()

    async def finish(self) -> None:
        """Give the rest and FIN, and take until the flow has ended."""
        while not self.over:
            self.give(len(self.data))
            if self.given == len(self.data):
                self.giver.shutdown(socket.SHUT_WR)
                self.given += 1
            self.take(len(self.data))
            await self.rest()

    async def read_to_end(self, last: bytes = b"") -> bytes:
        """Send `last` behind what was moved, and FIN; return all that the sink's peer gets.

        Args:
            last: It has to fit into the buffers.
        """
        while last:
            with suppress(BlockingIOError):
                last = last[self.sink.send(last) :]
            self.take(len(self.data))
        self.sink.shutdown(socket.SHUT_WR)
        while True:
            await trio.lowlevel.wait_readable(self.taker)
            data = self.taker.recv(1 << 20)
            if not data:
                return self.received
            self.received += data


@asynccontextmanager
async def pumping(
    kind: type[Pump] = Pump, on_activity: Callable[[], None] = lambda: None
) -> AsyncIterator[Pump]:
    """Run a pump; in the end it has no flow."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            pump = kind(on_activity)
            await nursery.start(pump.run)
            yield pump
            assert len(pump) == 0
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def under_way(*stages: Stage) -> AsyncIterator[Stage]:
    """Move flows; in the end nothing of them is registered, and their sockets are closed."""
    with ExitStack() as sockets:
        for stage in stages:
            for sock in stage.sockets:
                sockets.enter_context(sock)
        async with trio.open_nursery() as nursery:
            for stage in stages:
                nursery.start_soon(stage.carry)
            await Stage.rest()
            yield stages[0]
            for stage in stages:
                stage.scope.cancel()
        for stage in stages:
            for sock in (stage.source, stage.sink):
                assert sock.fileno() < 0 or not is_registered(stage.pump, sock)


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["give", "take"]), st.sampled_from([1, 7, 300, 3000, 20_000]))
    | st.just(("rest", 0)),
    max_size=24,
)


async def play(stage: Stage, steps: list[Step]) -> None:
    """Let the peers do `steps`; between two of them the pump runs only where they say `rest`."""
    for what, count in steps:
        if what == "give":
            stage.give(count)
        elif what == "take":
            stage.take(count)
        else:
            await stage.rest()


def run_on_stage(
    kind: type[Pump], scenario: Callable[[Stage], Awaitable[None]], make: Callable[[Pump], Stage]
) -> None:
    """Run a scenario with one flow in a Trio run of its own, as a property test has to."""

    async def main() -> None:
        async with pumping(kind) as pump, under_way(make(pump)) as stage:
            await scenario(stage)

    trio.run(main)
