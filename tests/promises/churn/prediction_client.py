"""The clients of one prediction in a churn, and the judgement whether they were told the truth.

Owns the sockets. Whoever stays is told exactly one end, and over all the times that it came back it
has each event once and in order, or is told that some are gone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import trio

from proxy import ProxyServer
from tests.promises.churn.client import Dishonest
from tests.promises.churn.event_reader import StreamReader
from tests.promises.churn.prediction_plan import Follower, Habit, Making, Mode
from tests.promises.observe import until
from tests.promises.predicting import (
    ASYNC,
    LAST,
    STREAM,
    Frame,
    answered,
    cancel,
    ended,
    put_head,
    status_of,
)
from tests.promises.wire import PATIENCE_S, Wire, wire

_FIELDS = {Mode.BLOCKING: (), Mode.STREAM: (STREAM,), Mode.ASYNC: (ASYNC,)}
_SMALL_BUFFER = 4096
# A churn takes half a minute as a whole.
_EACH_S = 2 * PATIENCE_S


class Outcome(StrEnum):
    """What a client has seen."""

    COMPLETED = "completed"
    LAGGED = "an error: lagged"
    TRUNCATED = "an error: came too late"
    ANSWERED = "a whole answer"
    LEFT = "left before the end"


class Reading:
    """What one follower has read, over all the times that it came back.

    Args:
        making: What it follows.
        noted: Is told how many events have been read.
    """

    def __init__(self, making: Making, noted: Callable[[int], None]) -> None:
        self.last = 0
        self.outcome: Outcome | None = None
        self._making = making
        self._noted = noted
        self._said: list[str] = []

    def take(self, frame: Frame) -> None:
        """Take the next event.

        Raises:
            Dishonest: It is not the next one, or comes after the last one.
        """
        if self.outcome is not None:
            raise Dishonest(f"{self._making}: {frame} comes after the end")
        if frame.name == "error":
            lags = "lagged" in frame.data["error"]
            self.outcome = Outcome.LAGGED if lags else Outcome.TRUNCATED
            return
        if frame.number != self.last + 1:
            raise Dishonest(f"{self._making}: {frame} follows number {self.last}")
        self.last += 1
        self._noted(self.last)
        if frame.name == "output":
            self._said.append(frame.data["chunk"])
        elif frame.name == "completed":
            self.outcome = Outcome.COMPLETED
            judge_end(self._making, frame.data)
            if frame.data.get("output", []) != self._said:
                raise Dishonest(f"{self._making}: its events do not tell its output")


def judge_end(making: Making, told: dict[str, Any]) -> None:
    """Look at how a prediction is said to have ended.

    Raises:
        Dishonest: When that cannot be.
    """
    status, error = told["status"], str(told.get("error", ""))
    honest = {
        "succeeded": not error,
        "canceled": making.may_be_canceled and not error,
        # Nothing else goes wrong in this churn.
        "failed": "signal 9 (SIGKILL)" in error,
    }
    if not honest.get(status, False):
        raise Dishonest(f"{making} ended with {told}")


class Party:
    """One prediction, with its maker, its followers, and who cancels it.

    Args:
        server: The proxy.
        making: The plan.

    Attributes:
        outcomes: How often each habit had each outcome.
    """

    def __init__(self, server: ProxyServer, making: Making) -> None:
        self.outcomes: Counter[tuple[Mode | Habit, Outcome]] = Counter()
        self._server = server
        self._making = making
        self._known = trio.Event()
        self._read = 0
        self._over = False
        self._news = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Play it to its end.

        Raises:
            Dishonest: Somebody was not told the truth.
        """
        making = self._making
        with trio.fail_after(_EACH_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._make)
                await self._known.wait()
                for follower in making.followers:
                    nursery.start_soon(self._join, follower)
                if making.cancelled_after is not None:
                    nursery.start_soon(self._cancel, making.cancelled_after)

    # -- moments --

    def _note_read(self, count: int) -> None:
        self._read = max(self._read, count)
        self._news.unpark_all()

    def _note_over(self) -> None:
        self._over = True
        self._news.unpark_all()

    async def _wait_read(self, count: int) -> None:
        """Wait until somebody has read so many events, or has stopped to read."""
        while self._read < count and not self._over:
            await self._news.park()

    # -- who makes it --

    async def _make(self) -> None:
        mode = self._making.mode
        if mode is Mode.STREAM:
            await self._follow(self._making.maker, self._ask)
        else:
            async with wire(self._server.port) as client:
                await self._ask(client)
                await (self._wait_for_it(client) if mode is Mode.BLOCKING else self._answer(client))

    async def _ask(self, client: Wire) -> None:
        making = self._making
        asked = {"prompt": "Go on.", "max_tokens": making.tokens, "ignore_eos": True}
        body = json.dumps({"input": asked}).encode()
        await client.send(put_head(making.name, body, LAST, *_FIELDS[making.mode]))

    async def _answer(self, client: Wire) -> None:
        received = await client.read_to_end()
        if status_of(received) != 202:
            raise Dishonest(f"{self._making} was answered {received!r}")
        self._known.set()
        self.outcomes[Mode.ASYNC, Outcome.ANSWERED] += 1

    async def _wait_for_it(self, client: Wire) -> None:
        book, place = self._server._predictions, (None, self._making.name)
        await until(lambda: (book.live(place) or book.finished(place)) is not None)
        self._known.set()
        maker = self._making.maker
        if maker.habit is Habit.STAYS:
            received = await client.read_to_end()
            judge_end(self._making, answered(received))
            self.outcomes[Mode.BLOCKING, Outcome.ANSWERED] += 1
            return
        await self._wait_read(maker.comes_after)
        _leave(client, maker)
        self.outcomes[Mode.BLOCKING, Outcome.LEFT] += 1

    async def _cancel(self, after: int) -> None:
        await self._wait_read(after)
        status = await cancel(self._server, self._making.name)
        if status not in (200, 404):
            raise Dishonest(f"a cancel was answered {status}")

    # -- who follows it --

    async def _join(self, follower: Follower) -> None:
        await self._wait_read(follower.comes_after)
        await self._follow(follower, lambda client: self._resume(client, None))

    async def _resume(self, client: Wire, after: int | None) -> None:
        fields = () if after is None else (f"Last-Event-ID: {after}",)
        await client.send(put_head(self._making.name, b"", STREAM, LAST, *fields))

    async def _follow(self, follower: Follower, ask: Callable[[Wire], Any]) -> None:
        reading = Reading(self._making, self._note_read)
        try:
            await self._come(follower, reading, ask)
            if follower.habit is Habit.RESUMES:
                for left in reversed(range(follower.comebacks)):
                    if reading.outcome is None:
                        await self._come_back(follower, reading, stays=left == 0)
        finally:
            self._note_over()
        self.outcomes[follower.habit, reading.outcome or Outcome.LEFT] += 1

    async def _come_back(self, follower: Follower, reading: Reading, *, stays: bool) -> None:
        after = reading.last

        async def ask(client: Wire) -> None:
            await self._resume(client, after)

        await self._come(follower, reading, ask, stays=stays)

    async def _come(
        self,
        follower: Follower,
        reading: Reading,
        ask: Callable[[Wire], Any],
        *,
        stays: bool = False,
    ) -> None:
        """Read one stream: to its end, or until it is left."""
        slow = follower.habit is Habit.LAGS
        async with wire(
            self._server.port, receive_buffer=_SMALL_BUFFER if slow else None
        ) as client:
            await ask(client)
            stream = StreamReader(client)
            await stream.begin()
            self._known.set()
            if follower.habit is not Habit.STAYS and not stays:
                await _read(stream, reading, follower.reads)
                if slow:
                    await ended(self._server, self._making.name)
                else:
                    _leave(client, follower)
                    return
            await _read(stream, reading, None)
            if reading.outcome is None or await stream.next() is not None:
                raise Dishonest(f"{self._making}: a stream ended without its last event")


async def _read(stream: StreamReader, reading: Reading, count: int | None) -> None:
    """Read so many events, or to the last one."""
    read = 0
    while reading.outcome is None and read != count:
        frame = await stream.next()
        if frame is None:
            return
        reading.take(frame)
        read += 1


def _leave(client: Wire, follower: Follower) -> None:
    if follower.resets:
        client.reset()
    else:
        client.fin()
