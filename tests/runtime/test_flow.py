"""The steps of one flow where the kernel's word came too early; the rest is `test_pump`'s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxy.runtime.flow import READ_SIZE, Flow, Wish
from tests.left_behind import Leftovers
from tests.runtime.pump_stage import DATA, Grouping, unix_pair

BUFFER = memoryview(bytearray(READ_SIZE))


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


class Making(Grouping):
    """Makes a piece that no buffer has room for of whatever comes."""

    def feed(self, data: bytes) -> bytes:
        """Return it."""
        return DATA


class Between:
    """A flow with its peers."""

    def __init__(self) -> None:
        self.source, self.giver = unix_pair()
        self.sink, self.taker = unix_pair()
        self.flow = Flow(self.source, self.sink, Making())


@pytest.fixture
def between(leaves_nothing: None) -> Iterator[Between]:
    """Give a flow whose peers have done nothing yet."""
    found = Between()
    with ExitStack() as sockets:
        for sock in (found.source, found.giver, found.sink, found.taker):
            sockets.enter_context(sock)
        yield found


def test_source_without_bytes_is_waited_for(between: Between) -> None:
    """That it was said to be readable is no end of it."""
    assert between.flow.begin() is Wish.SOURCE
    assert between.flow.advance_source(BUFFER) is Wish.SOURCE
    between.flow.result()


def test_sink_without_room_is_waited_for_and_stays_torn(between: Between) -> None:
    """That it took nothing this time does not take back what it has."""
    between.giver.send(b"abc")
    assert between.flow.advance_source(BUFFER) is Wish.SINK
    assert between.flow.advance_sink() is Wish.SINK
    assert between.flow.torn
    between.flow.result()


def test_piece_comes_out_whole_after_a_step_that_took_nothing(between: Between) -> None:
    """Not a byte is lost or sent twice."""
    between.giver.send(b"abc")
    wish, received = between.flow.advance_source(BUFFER), b""
    while wish is Wish.SINK:
        assert between.flow.advance_sink() is Wish.SINK
        received += between.taker.recv(READ_SIZE)
        wish = between.flow.advance_sink()
    while len(received) < len(DATA):
        received += between.taker.recv(READ_SIZE)
    assert (wish, received, between.flow.torn) == (Wish.SOURCE, DATA, False)
