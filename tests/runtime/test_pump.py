"""The pump over real sockets: bytes whole and in order, every end told apart, nothing left behind.

Each property is of both pumps, the one with epoll and the one of tasks. Hypothesis draws what the
peers do and when the pump may run; every example is a Trio run of its own.
"""

from __future__ import annotations

import math
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.passing import Passing
from proxy.core.response_body import ChunkedBody
from proxy.core.whole_events import EventPassage, SentCounts, WholeEvents
from proxy.runtime import pump as module
from proxy.runtime.pump import (
    READ_SIZE,
    Flow,
    Passage,
    Pump,
    PumpError,
    SinkGone,
    SinkStalled,
    SourceBroken,
    SourceMalformed,
    Unchanged,
)
from tests.core.chunked_streams import (
    EVENTS,
    LAST_CHUNK,
    ChunkedStream,
    chunk,
    chunked_streams,
    read_by_h11,
)
from tests.left_behind import Leftovers
from tests.runtime.pump_stage import (
    DATA,
    PUMPS,
    STEPS,
    BlindPump,
    Grouping,
    Stage,
    Step,
    is_registered,
    play,
    pumping,
    reset,
    run_on_stage,
    tcp_pair,
    under_way,
    unix_pair,
)

ERROR = b'data: {"error":{}}\n\n'
BOTH = pytest.mark.parametrize("kind", PUMPS.values(), ids=PUMPS.keys())
PAIRS = st.sampled_from([unix_pair, tcp_pair])
SIZES = st.integers(0, len(DATA)) | st.sampled_from([0, 1, len(DATA)])
# Some too large for one write into a small buffer.
LARGE = [b"data: " + b"x" * size + b"\n\n" for size in (3000, 9000)]
LARGE_EVENTS = EVENTS | st.sampled_from(LARGE)


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


# -- properties ------------------------------------------------------------------------------------


@BOTH
@given(SIZES, STEPS, st.sampled_from([1, 1, 100, 5000]), PAIRS)
@settings(max_examples=60, deadline=None)
def test_bytes_come_out_whole_and_in_order(
    kind: type[Pump], size: int, steps: list[Step], group: int, pair: Callable
) -> None:
    """However they are split, and whenever which buffer is full."""

    async def scenario(stage: Stage) -> None:
        await play(stage, steps)
        await stage.finish()
        assert (stage.error, stage.flow.torn) == (None, False)
        assert await stage.read_to_end() == DATA[: size - size % group]

    run_on_stage(
        kind,
        scenario,
        lambda pump: Stage(pump, DATA[:size], Grouping(group), make_pair=pair),
    )


@BOTH
@given(SIZES, STEPS, st.sampled_from([1, 1, 100, 5000]), PAIRS)
@settings(max_examples=60, deadline=None)
def test_cancelled_at_any_step_the_flow_stops_there(
    kind: type[Pump], size: int, steps: list[Step], group: int, pair: Callable
) -> None:
    """What was sent is the beginning, and `torn` tells exactly whether a piece was cut."""
    passage = Grouping(group)

    async def scenario(stage: Stage) -> None:
        await play(stage, steps)
        stage.scope.cancel()
        await stage.rest()
        assert stage.over
        assert not is_registered(stage.pump, stage.source)
        assert not is_registered(stage.pump, stage.sink)
        received = await stage.read_to_end()
        assert DATA.startswith(received)
        assert stage.flow.torn is (len(received) not in passage.piece_ends)

    run_on_stage(kind, scenario, lambda pump: Stage(pump, DATA[:size], passage, make_pair=pair))


def event_stage(pump: Pump, data: bytes, pair: Callable) -> Stage:
    """Return a stage for an event stream in chunks."""
    passage = EventPassage(ChunkedBody(), WholeEvents(), SentCounts(), Passing())
    return Stage(pump, data, passage, make_pair=pair)


@BOTH
@given(
    st.tuples(chunked_streams(LARGE_EVENTS), st.integers(0)),
    st.sampled_from(["fin", "reset", "cancel"]),
    STEPS,
    PAIRS,
)
@settings(max_examples=150, deadline=None)
def test_event_stream_that_ends_anywhere_can_be_told_an_error(
    kind: type[Pump],
    cut_stream: tuple[ChunkedStream, int],
    end: str,
    steps: list[Step],
    pair: Callable,
) -> None:
    """Cut at any byte, in any way, the sink has whole events, and takes one more chunk."""
    stream, cut = cut_stream
    data = stream.encoded[: cut % len(stream.encoded)]

    async def scenario(stage: Stage) -> None:
        # Without it a unix socket's peer cannot reset.
        stage.source.send(b"GET")
        await play(stage, steps)
        if end == "cancel":
            stage.scope.cancel()
            await stage.rest()
        elif end == "reset":
            reset(stage.giver)
            while not stage.over:
                stage.take(len(DATA))
                await stage.rest()
        else:
            await stage.finish()
        if stage.flow.torn:
            assert end == "cancel"
            return
        assert isinstance(stage.error, SourceBroken) is (end != "cancel")
        read = read_by_h11(await stage.read_to_end(chunk(ERROR) + LAST_CHUNK))
        assert read.complete
        assert read.payload.removesuffix(ERROR) in stream.whole
        if end == "fin":
            assert read.payload.removesuffix(ERROR) == whole_in(data)

    run_on_stage(kind, scenario, lambda pump: event_stage(pump, data, pair))


def whole_in(data: bytes) -> bytes:
    """Return the whole events in the beginning of a chunked stream."""
    payload = read_by_h11(data).payload
    return payload[: payload.rfind(b"\n\n") + 2] if b"\n\n" in payload else b""


@BOTH
@given(chunked_streams(LARGE_EVENTS), STEPS, PAIRS)
@settings(max_examples=60, deadline=None)
def test_event_stream_ends_with_its_last_chunk(
    kind: type[Pump], stream: ChunkedStream, steps: list[Step], pair: Callable
) -> None:
    """Not with the connection, which stays; what is behind it is not the sink's."""

    async def scenario(stage: Stage) -> None:
        await play(stage, steps)
        while not stage.over:
            stage.give(len(stage.data))
            stage.take(len(DATA))
            await stage.rest()
        assert (stage.error, stage.flow.torn) == (None, False)
        read = read_by_h11(await stage.read_to_end(LAST_CHUNK))
        assert (read.payload, read.complete, read.rest) == (stream.payload, True, b"")

    data = stream.encoded + b"HTTP/1.1 200 OK\r\n"
    run_on_stage(kind, scenario, lambda pump: event_stage(pump, data, pair))


@BOTH
@given(chunked_streams(), st.integers(0), st.sampled_from([b"zz\r\n", b"\r\n", b"-1\r\n"]), STEPS)
@settings(max_examples=60, deadline=None)
def test_garbage_ends_the_flow_behind_whole_events(
    kind: type[Pump], stream: ChunkedStream, place: int, garbage: bytes, steps: list[Step]
) -> None:
    """Where it is; what was well framed before it was sent."""
    chunks = stream.chunks[:-1]
    before = b"".join(chunks[: place % (len(chunks) + 1)])

    async def scenario(stage: Stage) -> None:
        await play(stage, steps)
        await stage.finish()
        assert type(stage.error) is SourceMalformed
        assert not stage.flow.torn
        read = read_by_h11(await stage.read_to_end(chunk(ERROR) + LAST_CHUNK))
        assert read.payload == whole_in(before) + ERROR

    data = before + garbage + stream.encoded
    run_on_stage(kind, scenario, lambda pump: event_stage(pump, data, unix_pair))


LEAVING: dict[str, Callable[[socket.socket], None]] = {
    "fin": socket.socket.close,
    "half-close": lambda sock: sock.shutdown(socket.SHUT_WR),
    "reset": reset,
}


@BOTH
@given(SIZES, st.tuples(STEPS, STEPS), st.sampled_from(sorted(LEAVING)), PAIRS)
@settings(max_examples=60, deadline=None)
def test_sink_that_leaves_at_any_step_ends_the_flow(
    kind: type[Pump], size: int, steps: tuple[list[Step], list[Step]], leave: str, pair: Callable
) -> None:
    """With epoll at once, though nothing is to be sent; else when something is."""
    before, after = steps

    async def scenario(stage: Stage) -> None:
        await play(stage, before)
        LEAVING[leave](stage.taker)
        if kind is not BlindPump:
            await stage.rest()
            assert isinstance(stage.error, SinkGone)
        elif leave != "half-close":
            await play(stage, [step for step in after if step[0] != "take"])
            while not stage.over:
                stage.give(len(stage.data))
                if stage.given >= len(stage.data):
                    stage.giver.close()
                await stage.rest()
            assert stage.error is None or isinstance(stage.error, SinkGone)
        assert DATA.startswith(stage.received)

    run_on_stage(kind, scenario, lambda pump: Stage(pump, DATA[:size], make_pair=pair))


@BOTH
@given(
    st.lists(SIZES, min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), STEPS), max_size=10),
    st.sets(st.integers(0, 3), max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_flows_beside_each_other_do_not_mix(
    kind: type[Pump], sizes: list[int], turns: list[tuple[int, list[Step]]], cancelled: set[int]
) -> None:
    """Each has its own bytes; those that are cancelled take nothing with them."""

    async def main() -> None:
        async with pumping(kind) as pump:
            stages = [Stage(pump, DATA[size:]) for size in sizes]
            async with under_way(*stages):
                for which, steps in turns:
                    await play(stages[which % len(stages)], steps)
                for which in cancelled:
                    stages[which % len(stages)].scope.cancel()
                for stage in stages:
                    if not stage.scope.cancel_called:
                        await stage.finish()
                        assert stage.error is None
                        assert await stage.read_to_end() == stage.data

    trio.run(main)


# -- proper ends -----------------------------------------------------------------------------------


class Once:
    """A passage that is over after its first piece, of which it makes `out`."""

    over = False

    def __init__(self, out: bytes = b"", *, complete: bool = True) -> None:
        self._out = out
        self.complete = complete

    def feed(self, data: bytes) -> bytes:
        """Be over."""
        self.over = True
        return self._out

    def end(self) -> bool:
        """No end was to be expected."""
        raise AssertionError


@BOTH
async def test_flow_ends_with_its_source(kind: type[Pump]) -> None:
    """Without a passage the bytes are the sink's as they are, to the last."""
    async with pumping(kind) as pump, under_way(Stage(pump, b"abc")) as stage:
        assert isinstance(stage.flow.passage, Unchanged)
        await stage.finish()
        assert stage.error is None
        assert await stage.read_to_end() == b"abc"


@BOTH
async def test_flow_ends_with_its_passage_while_the_source_stays(kind: type[Pump]) -> None:
    """Not a byte more is read then."""
    async with pumping(kind) as pump, under_way(Stage(pump, b"abcdef", Once(b"out"))) as stage:
        stage.give(3)
        await stage.rest()
        stage.give(3)
        assert (stage.over, stage.error) == (True, None)
        assert stage.source.recv(10) == b"def"
        assert await stage.read_to_end() == b"out"


@BOTH
async def test_flow_that_is_over_ends_when_all_is_sent(kind: type[Pump]) -> None:
    """A sink that is slow gets the last piece whole."""
    async with pumping(kind) as pump, under_way(Stage(pump, b"abc", Once(DATA))) as stage:
        stage.give(3)
        await stage.rest()
        torn = list[bool]()
        while not stage.over:
            torn.append(stage.flow.torn)
            stage.take(1000)
            await stage.rest()
        assert (len(torn) > 10, all(torn)) == (True, True)
        assert (stage.error, stage.flow.torn) == (None, False)
        assert await stage.read_to_end() == DATA


@BOTH
@pytest.mark.parametrize("out", [b"", b"out", DATA], ids=["nothing", "little", "much"])
async def test_flow_that_was_not_understood_sends_what_was(kind: type[Pump], out: bytes) -> None:
    """And then says so."""
    passage = Once(out, complete=False)
    async with pumping(kind) as pump, under_way(Stage(pump, b"abc", passage)) as stage:
        await stage.finish()
        assert type(stage.error) is SourceMalformed
        assert not stage.flow.torn
        assert await stage.read_to_end() == out


@BOTH
async def test_passage_that_is_over_at_the_beginning_ends_the_flow(kind: type[Pump]) -> None:
    """Nothing more is to come, so nobody waits for it."""
    passage = Once()
    passage.feed(b"")
    async with pumping(kind) as pump, under_way(Stage(pump, b"abc", passage)) as stage:
        assert (stage.over, stage.error) == (True, None)


@BOTH
async def test_chunks_that_llama_server_sends_are_sent_on_one_by_one(kind: type[Pump]) -> None:
    """An event does not wait for the next."""
    chunks = [chunk(b"data: %d\n\n" % number) for number in range(5)]
    data = b"".join(chunks)
    async with pumping(kind) as pump, under_way(event_stage(pump, data, tcp_pair)) as stage:
        for end, each in zip(accumulate(map(len, chunks)), chunks, strict=True):
            stage.give(len(each))
            await trio.lowlevel.wait_readable(stage.taker)
            stage.take(1000)
            assert stage.received == data[:end]


# -- back-pressure and patience --------------------------------------------------------------------


@BOTH
async def test_flow_whose_sink_is_full_reads_no_more(kind: type[Pump]) -> None:
    """At most one read is held: the rest stays with who sends it."""
    sizes = list[int]()

    class Watching(Unchanged):
        def feed(self, data: bytes) -> bytes:
            sizes.append(len(data))
            return data

    async with pumping(kind) as pump, under_way(Stage(pump, DATA * 4, Watching())) as stage:
        await stage.fill()
        assert stage.given < len(DATA)
        held = sum(sizes)
        assert held <= READ_SIZE + 16 * 1024
        for _ in range(3):
            await stage.rest()
        assert sum(sizes) == held


@BOTH
async def test_piece_is_not_held_once_it_is_sent(kind: type[Pump]) -> None:
    """A sink that was slow once does not cost memory for the rest of the flow."""

    class Piece(bytearray):
        """What can be told to be gone."""

    pieces = list[weakref.ref]()

    class Making(Unchanged):
        def feed(self, data: bytes) -> bytes:
            piece = Piece(data)
            pieces.append(weakref.ref(piece))
            return cast(bytes, piece)

    async with pumping(kind) as pump, under_way(Stage(pump, DATA, Making())) as stage:
        await stage.fill()
        held = [piece() is not None for piece in pieces]
        while stage.received != DATA:
            stage.give(len(DATA))
            stage.take(len(DATA))
            await stage.rest()
        assert (any(held), [piece() for piece in pieces if piece()]) == (True, [])


@BOTH
async def test_flow_whose_sink_is_full_does_not_slow_others(kind: type[Pump]) -> None:
    """They come to their end beside it."""
    async with pumping(kind) as pump:
        stuck, *others = stages = [Stage(pump) for _ in range(4)]
        async with under_way(*stages):
            await stuck.fill()
            for stage in others:
                await stage.finish()
                assert await stage.read_to_end() == DATA
            assert not stuck.over
            await stuck.finish()
            assert await stuck.read_to_end() == DATA


async def test_pump_with_nothing_to_do_rests() -> None:
    """Also with a sink that is full, and bytes that wait for it."""
    told = list[None]()
    async with pumping(Pump, lambda: told.append(None)) as pump, under_way(Stage(pump)) as stage:
        await stage.fill()
        count = len(told)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (len(told), stage.over) == (count, False)


@BOTH
async def test_sink_that_takes_nothing_is_given_up(kind: type[Pump]) -> None:
    """After the send timeout, with half a piece."""
    async with pumping(kind) as pump:
        stage = Stage(pump, b"abc", Once(DATA), send_timeout_s=0.02)
        async with under_way(stage):
            stage.give(3)
            while not stage.over:
                await trio.lowlevel.checkpoint()
            assert isinstance(stage.error, SinkStalled)
            assert stage.flow.torn
            assert len(pump) == 0


@BOTH
async def test_sink_that_is_full_before_the_first_byte_is_not_torn(kind: type[Pump]) -> None:
    """It was full of another's bytes: something can still be told it, if it ever reads."""
    async with pumping(kind) as pump, under_way(Stage(pump, b"abc", send_timeout_s=0.02)) as stage:
        with suppress(BlockingIOError):
            while True:  # noqa: ASYNC913 - it ends when the sink is full
                stage.sink.send(bytes(100))
        stage.give(3)
        while not stage.over:
            await trio.lowlevel.checkpoint()
        assert isinstance(stage.error, SinkStalled)
        assert not stage.flow.torn


@BOTH
@pytest.mark.parametrize("make", [Unchanged, partial(Once, DATA)], ids=["many pieces", "one piece"])
async def test_patience_begins_anew_with_every_byte_taken(
    kind: type[Pump], make: Callable[[], Passage], mock_clock: trio.testing.MockClock
) -> None:
    """A slow sink is not a stalled one. The clock stands still but where it is moved."""
    async with pumping(kind) as pump:
        mock_clock.jump(1)
        async with under_way(Stage(pump, DATA, make(), send_timeout_s=1)) as stage:
            stage.give(2000)
            await stage.fill()
            for _ in range(5):
                mock_clock.jump(0.9)
                await stage.rest()
                stage.take(len(DATA))
                await stage.fill()
                assert not stage.over
            mock_clock.jump(0.9)
            await stage.rest()
            assert not stage.over
            mock_clock.jump(0.2)
            await stage.rest()
            assert isinstance(stage.error, SinkStalled)


@BOTH
async def test_sink_has_patience_while_nothing_is_to_be_sent(
    kind: type[Pump], mock_clock: trio.testing.MockClock
) -> None:
    """Before the first byte, and after it was full once."""
    async with pumping(kind) as pump, under_way(Stage(pump, send_timeout_s=1)) as stage:
        mock_clock.jump(2)
        await stage.fill()
        while stage.received != DATA:
            stage.give(len(DATA))
            stage.take(len(DATA))
            await stage.rest()
        mock_clock.jump(2)
        await stage.rest()
        assert not stage.over
        await stage.finish()
        assert stage.error is None


# -- ends that are none ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("pair", [unix_pair, tcp_pair], ids=["unix", "tcp"])
async def test_source_that_is_reset_is_broken(kind: type[Pump], pair: Callable) -> None:
    """What it sent before is the sink's; the reason is kept."""
    async with pumping(kind) as pump, under_way(Stage(pump, b"abc", make_pair=pair)) as stage:
        stage.source.send(b"GET")
        stage.give(3)
        await stage.rest()
        reset(stage.giver)
        with trio.fail_after(5):
            while not stage.over:
                await stage.rest()
        assert isinstance(stage.error, SourceBroken)
        assert isinstance(stage.error.__cause__, ConnectionResetError)
        assert await stage.read_to_end() == b"abc"


HANGING_UP = pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())


@HANGING_UP
@pytest.mark.parametrize("pair", [unix_pair, tcp_pair], ids=["unix", "tcp"])
@pytest.mark.parametrize("state", ["idle", "full", "drained"])
async def test_sink_that_hangs_up_ends_the_flow_at_once(
    leave: Callable[[socket.socket], None], pair: Callable, state: str
) -> None:
    """Also behind bytes that nobody has read, whether or not something is to be sent."""
    async with pumping() as pump, under_way(Stage(pump, DATA * 64, make_pair=pair)) as stage:
        if state != "idle":
            await stage.fill()
        if state == "drained":
            while len(stage.received) < stage.given:
                stage.take(len(stage.data))
                await stage.rest()
        stage.taker.send(b"GET / HTTP/1.1\r\n")
        await stage.rest()
        over = [stage.over]
        leave(stage.taker)
        with trio.fail_after(5):
            while not stage.over:
                await stage.rest()
        assert over == [False]
        assert type(stage.error) is SinkGone


async def test_sink_that_hung_up_before_the_flow_began_ends_it() -> None:
    """Its hang-up is still told."""
    async with pumping() as pump:
        stage = Stage(pump)
        stage.taker.close()
        async with under_way(stage):
            assert type(stage.error) is SinkGone


async def test_sink_that_breaks_in_a_write_is_gone() -> None:
    """Where there is no epoll that is how it is noticed."""
    async with pumping(BlindPump) as pump, under_way(Stage(pump)) as stage:
        stage.taker.close()
        await stage.rest()
        over = [stage.over]
        stage.give(3)
        await stage.rest()
        assert over == [False]
        assert isinstance(stage.error, SinkGone)
        assert isinstance(stage.error.__cause__, BrokenPipeError)


async def test_both_sides_that_end_at_once_end_the_flow_once() -> None:
    """In whatever order the kernel tells it."""
    async with pumping() as pump, under_way(Stage(pump, b"abc")) as stage:
        stage.give(3)
        stage.giver.close()
        stage.taker.close()
        await stage.rest()
        assert isinstance(stage.error, SinkGone)


def test_every_end_is_a_pump_error() -> None:
    """Whoever uses the pump has one thing to catch."""
    for error in (SourceBroken, SourceMalformed, SinkGone, SinkStalled):
        assert issubclass(error, PumpError)


# -- defects ---------------------------------------------------------------------------------------


class Defective(Unchanged):
    """A passage with a mistake in it."""

    def feed(self, data: bytes) -> bytes:
        """Make it."""
        raise ValueError("a defect")


@BOTH
async def test_defect_of_a_passage_ends_its_own_flow_alone(kind: type[Pump]) -> None:
    """Where it is moved: the pump goes on with the others."""
    async with pumping(kind) as pump:
        bad, good = Stage(pump, b"abc", Defective()), Stage(pump, b"def")
        async with under_way(bad, good):
            bad.give(3)
            await bad.rest()
            assert bad.over
            with pytest.raises(ValueError, match="a defect"):
                raise bad.error or AssertionError
            await good.finish()
            assert await good.read_to_end() == b"def"


@BOTH
@pytest.mark.parametrize("out", [b"", b"out", DATA], ids=["nothing", "little", "much"])
@pytest.mark.parametrize("over", [False, True], ids=["going on", "over"])
async def test_flow_that_its_own_passage_cancels_ends(
    kind: type[Pump], out: bytes, over: bool
) -> None:
    """There; the pump goes on with the others."""
    async with pumping(kind) as pump:

        class Leaving(Once):
            def feed(self, data: bytes) -> bytes:
                leaving.scope.cancel()
                self.over = over
                return out

        leaving, other = Stage(pump, b"abc", Leaving()), Stage(pump, b"def")
        async with under_way(leaving, other):
            leaving.give(3)
            await leaving.rest()
            assert leaving.over
            await other.finish()
            assert await other.read_to_end() == b"def"


@pytest.mark.parametrize("which", ["source", "sink"])
async def test_flow_of_a_closed_socket_is_refused(which: str) -> None:
    """Nothing of it stays registered, not even of its other end."""
    async with pumping() as pump:
        stage = Stage(pump)
        getattr(stage, which).close()
        async with under_way(stage):
            assert stage.over
            assert isinstance(stage.error, (OSError, ValueError))
            assert len(pump) == 0


@pytest.mark.parametrize("which", ["source", "sink"])
async def test_second_flow_of_a_socket_is_refused_and_the_first_goes_on(which: str) -> None:
    """A socket is in one flow at a time."""
    async with pumping() as pump, under_way(Stage(pump, b"abc")) as stage:
        near, far = unix_pair()
        pair = (stage.source, near) if which == "source" else (near, stage.sink)
        with pytest.raises(FileExistsError):
            await pump.move(Flow(*pair))
        assert (len(pump), is_registered(pump, near)) == (1, False)
        near.close()
        far.close()
        await stage.finish()
        assert await stage.read_to_end() == b"abc"


# -- registration ----------------------------------------------------------------------------------


async def test_pump_counts_the_flows_under_way() -> None:
    """And none when they have ended."""
    async with pumping() as pump:
        stages = [Stage(pump, b"abc") for _ in range(3)]
        async with under_way(*stages):
            counts = [len(pump)]
            for stage in stages:
                await stage.finish()
                counts.append(len(pump))
            assert counts == [3, 2, 1, 0]


@BOTH
async def test_flow_that_was_cancelled_before_moves_nothing(kind: type[Pump]) -> None:
    """Bytes that are there already stay there."""
    async with pumping(kind) as pump:
        stage = Stage(pump, b"abc")
        stage.give(3)
        stage.scope.cancel()
        async with under_way(stage):
            assert stage.over
            assert stage.source.recv(10) == b"abc"


async def test_sockets_that_are_closed_before_the_flow_is_cancelled_are_forgotten() -> None:
    """In one step, as whoever gives a connection up does; also while the sink is full."""
    async with pumping() as pump:
        stages = [Stage(pump), Stage(pump)]
        async with under_way(*stages) as stage:
            await stage.fill()
            for each in stages:
                each.source.close()
                each.sink.close()
                each.scope.cancel()
            assert len(pump) == 0


async def test_sockets_can_be_used_again_after_a_flow() -> None:
    """A connection carries one answer after another."""
    async with pumping() as pump, under_way(Stage(pump, b"abcdef", Once(b"1"))) as stage:
        stage.give(3)
        await stage.rest()
        again = Flow(stage.source, stage.sink, Once(b"2"))
        stage.give(3)
        await pump.move(again)
        assert await stage.read_to_end() == b"12"


async def test_flow_that_another_ends_in_the_same_wake_up_moves_no_more() -> None:
    """Both were ready: the first one's bytes are why the second is cancelled."""
    async with pumping() as pump:
        stages = list[Stage]()

        class Ending(Unchanged):
            def feed(self, data: bytes) -> bytes:
                for stage in stages:
                    if stage.flow.passage is not self:
                        stage.scope.cancel()
                return data

        stages += [Stage(pump, b"abc", Ending()), Stage(pump, b"def", Ending())]
        async with under_way(*stages):
            for stage in stages:
                stage.give(3)
            await stages[0].rest()
            assert [stage.over for stage in stages].count(True) == 1
            received = sorted([await stage.read_to_end() for stage in stages])
            assert received in ([b"", b"abc"], [b"", b"def"])


async def test_more_ready_sockets_than_one_wake_up_takes_are_all_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others have theirs after it."""
    monkeypatch.setattr(module, "_EVENTS_PER_WAKE", 2)
    async with pumping() as pump:
        stages = [Stage(pump, b"abc") for _ in range(7)]
        async with under_way(*stages):
            for stage in stages:
                stage.give(3)
            await stages[0].rest()
            for stage in stages:
                stage.take(10)
                assert stage.received == b"abc"


@BOTH
async def test_activity_is_told_for_what_moves(kind: type[Pump]) -> None:
    """And not for nothing."""
    told = list[float]()
    running = pumping(kind, lambda: told.append(trio.current_time()))
    async with running as pump, under_way(Stage(pump, b"abcdef")) as stage:
        counts = [len(told)]
        for _ in range(2):
            stage.give(3)
            await stage.rest()
            counts.append(len(told))
        assert counts == [0, 1, 2]


async def test_pump_that_is_cancelled_gives_its_epoll_back() -> None:
    """Its flows stay where they are until they are cancelled."""
    pump, stage = Pump(), None
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        epoll = pump._epoll.fileno()
        stage = Stage(pump)
        async with under_way(stage):
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await stage.rest()
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(epoll)
    assert len(pump) == 0


async def test_send_timeout_may_be_set_before_the_flow_is_moved() -> None:
    """Who makes it does not always know; without one there is none."""
    near, far = unix_pair()
    assert Flow(near, far).send_timeout_s == math.inf
    near.close()
    far.close()
