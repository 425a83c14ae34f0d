"""The pump: moves the bytes of many streams between sockets, in one Trio task.

Trio's way (a task for each stream: wait, be scheduled, receive, send) costs three times what the
copy itself costs. So the sockets of all flows are registered with one private epoll; one task waits
for that epoll's own descriptor and moves what is ready with plain `recv` and `send`. The task of a
flow's exchange sleeps meanwhile and wakes at the end only.

Owns the registrations of the flows under way, and nothing else: sockets are the caller's. It knows
nothing of HTTP or events; what becomes of the bytes is the passage's.

Where the platform has no epoll, each flow is moved by its own task, behind the same interface.

Source: epoll(7): a registered descriptor wakes for `EPOLLHUP` whatever it was registered for, so
one that is not to be read is taken out and not merely masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from proxy.runtime.flow import (
    READ_SIZE,
    Flow,
    Passage,
    PumpError,
    SinkGone,
    SinkStalled,
    SourceBroken,
    SourceMalformed,
    Unchanged,
    Wish,
)
from proxy.runtime.kernel_events import HANGUP, READABLE, WRITABLE, make_epoll

__all__ = [
    "READ_SIZE",
    "Flow",
    "Passage",
    "Pump",
    "PumpError",
    "SinkGone",
    "SinkStalled",
    "SourceBroken",
    "SourceMalformed",
    "Unchanged",
]

# How many ready sockets one wake-up moves before other tasks run.
_EVENTS_PER_WAKE = 256


class _Sleeper:
    """A flow under way: who sleeps for it, and what its sink's patience hangs on."""

    __slots__ = ("flow", "patience", "sink_fd", "source_fd", "task", "wish")

    def __init__(self, flow: Flow, patience: trio.CancelScope) -> None:
        self.flow = flow
        self.patience = patience
        self.task = trio.lowlevel.current_task()
        self.source_fd = flow.source.fileno()
        self.sink_fd = flow.sink.fileno()
        self.wish = Wish.SOURCE


class Pump:
    """Moves flows; `run` has to run meanwhile.

    Usable in any Trio program::

        pump = Pump()
        nursery.start_soon(pump.run)
        await pump.move(Flow(upstream_socket, client_socket))

    Back-pressure: a flow whose sink takes no more reads no more from its source; at most
    `READ_SIZE` bytes and what its passage makes of them are held. Other flows are not slowed.

    Sockets: each is in one flow at a time, and stays open until `move` has ended. Who closes one
    before cancels `move` in the same step.

    Args:
        on_activity: Called at each wake-up in which something moved; cheap, it must not raise.
    """

    def __init__(self, on_activity: Callable[[], None] = lambda: None) -> None:
        self._on_activity = on_activity
        self._epoll = make_epoll()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._by_source: dict[int, _Sleeper] = {}
        self._by_sink: dict[int, _Sleeper] = {}

    def __len__(self) -> int:
        return len(self._by_source)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move bytes until cancelled, then give the epoll back.

        Cancellation: flows under way stay where they are; cancel their tasks first.
        """
        task_status.started()
        if self._epoll is None:
            await trio.sleep_forever()
        epoll = self._epoll
        try:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                self._serve_ready(epoll)
                self._on_activity()
        finally:
            trio.lowlevel.notify_closing(epoll.fileno())
            epoll.close()
            self._epoll = None

    async def move(self, flow: Flow) -> None:
        """Move `flow` to its proper end.

        Raises:
            SourceBroken: The source ended or broke before the stream did.
            SourceMalformed: The passage did not understand it.
            SinkGone: The sink's peer hung up, in either direction, or reset the connection.
            SinkStalled: It took nothing for the flow's send timeout.
            Exception: What the passage raised; other flows go on.
            OSError, ValueError: A socket is closed, or in a flow already; nothing was moved.

        Whatever is raised, everything before was sent whole and in order; `flow.torn` tells whether
        a piece was cut.

        Cancellation: the flow stops where it is, and nothing stays registered. It may be cancelled
        while a part of a piece is sent; `flow.torn` tells.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # A sink has patience only while something waits for it.
        with trio.CancelScope() as patience:
            if flow.begin() is Wish.NOTHING:
                await trio.lowlevel.cancel_shielded_checkpoint()
            elif self._epoll is None:
                await self._move_by_task(flow, patience)
            else:
                await self._sleep(_Sleeper(flow, patience))
        if patience.cancelled_caught:
            raise SinkStalled("the sink took no byte for the send timeout")
        flow.result()

    async def _sleep(self, sleeper: _Sleeper) -> None:
        def forget(_: object) -> trio.lowlevel.Abort:
            self._unregister(sleeper)
            return trio.lowlevel.Abort.SUCCEEDED

        self._register(sleeper)
        await trio.lowlevel.wait_task_rescheduled(forget)

    def _register(self, sleeper: _Sleeper) -> None:
        epoll = self._epoll
        epoll.register(sleeper.source_fd, READABLE)
        try:
            epoll.register(sleeper.sink_fd, HANGUP)
        except BaseException:
            epoll.unregister(sleeper.source_fd)
            raise
        self._by_source[sleeper.source_fd] = sleeper
        self._by_sink[sleeper.sink_fd] = sleeper

    def _unregister(self, sleeper: _Sleeper) -> None:
        del self._by_source[sleeper.source_fd]
        del self._by_sink[sleeper.sink_fd]
        self._forget_fd(sleeper.sink_fd)
        if sleeper.wish is not Wish.SINK:
            self._forget_fd(sleeper.source_fd)

    def _forget_fd(self, fd: int) -> None:
        # Its owner may have closed it before it cancelled us: it is gone from the epoll then.
        if self._epoll is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                return

    def _serve_ready(self, epoll: Any) -> None:
        """Serve what is ready, and what gets ready meanwhile: a wake-up costs like an event."""
        left = _EVENTS_PER_WAKE
        while left > 0 and (ready := epoll.poll(0, left)):
            left -= len(ready)
            for fd, what in ready:
                self._serve(fd, what)

    def _serve(self, fd: int, what: int) -> None:
        # One flow's end may end another that is in the same batch.
        sleeper = self._by_source.get(fd) or self._by_sink.get(fd)
        if sleeper is None:
            return
        flow = sleeper.flow
        try:
            if fd == sleeper.source_fd:
                wish = flow.advance_source(self._buffer)
            else:
                wish = flow.hang_up() if what & ~WRITABLE else flow.advance_sink()
        except Exception as defect:  # noqa: BLE001 - a passage's; raised where its flow is moved
            wish = flow.stop_for(defect)
        self._follow(sleeper, wish)

    def _follow(self, sleeper: _Sleeper, wish: Wish) -> None:
        if wish is Wish.SOURCE and sleeper.wish is Wish.SOURCE:
            return
        # What its passage did may have cancelled it.
        if self._by_source.get(sleeper.source_fd) is not sleeper:
            return
        if wish is Wish.NOTHING:
            self._unregister(sleeper)
            trio.lowlevel.reschedule(sleeper.task)
            return
        if wish is Wish.SINK:
            sleeper.patience.deadline = trio.current_time() + sleeper.flow.send_timeout_s
        if wish is not sleeper.wish:
            self._turn(sleeper, wish)

    def _turn(self, sleeper: _Sleeper, wish: Wish) -> None:
        """Listen to the other side: a full sink turns reading off, a drained one turns it on."""
        epoll = self._epoll
        sleeper.wish = wish
        if wish is Wish.SINK:
            epoll.unregister(sleeper.source_fd)
            epoll.modify(sleeper.sink_fd, HANGUP | WRITABLE)
        else:
            sleeper.patience.deadline = math.inf
            epoll.modify(sleeper.sink_fd, HANGUP)
            epoll.register(sleeper.source_fd, READABLE)

    async def _move_by_task(self, flow: Flow, patience: trio.CancelScope) -> None:
        """Move one flow by its own task; a sink that hangs up is noticed at the next write."""
        wish = Wish.SOURCE
        while wish is not Wish.NOTHING:
            if wish is Wish.SOURCE:
                patience.deadline = math.inf
                await trio.lowlevel.wait_readable(flow.source)
                wish = flow.advance_source(self._buffer)
            else:
                patience.deadline = trio.current_time() + flow.send_timeout_s
                await trio.lowlevel.wait_writable(flow.sink)
                wish = flow.advance_sink()
            self._on_activity()
