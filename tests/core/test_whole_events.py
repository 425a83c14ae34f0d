"""Event streams on their way to a client: whole events only, and the chunks that carry them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core import whole_events as module
from proxy.core.passing import Passing
from proxy.core.response_body import BodyToClose, ChunkedBody
from proxy.core.whole_events import MAX_HELD, EventPassage, SentCounts, WholeEvents
from tests.core.chunked_streams import (
    EVENTS,
    LAST_CHUNK,
    ChunkedStream,
    chunk,
    chunked_streams,
    pieces_of,
    read_by_h11,
    split,
)

ERROR = b'data: {"error":{}}\n\n'
EVENT = b"data: {}\n\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of more than ten bytes is too large to be held."""
    monkeypatch.setattr(module, "MAX_HELD", 10)


class Streaming:
    """A passage with what it shares, and what came out of it."""

    def __init__(self, body: ChunkedBody | BodyToClose | None = None) -> None:
        self.events, self.sent = WholeEvents(), SentCounts()
        self.body = body or ChunkedBody()
        self.passage = EventPassage(self.body, self.events, self.sent, Passing())
        self.out: list[bytes] = []

    def feed(self, *pieces: bytes) -> list[bytes]:
        """Feed it until it is over; return what came out of each piece."""
        for piece in pieces:
            if not self.passage.over:
                self.out.append(self.passage.feed(piece))
        return self.out

    @property
    def client(self) -> bytes:
        """What the client was sent so far."""
        return b"".join(self.out)

    def finish(self) -> bytes:
        """Return the client's payload after the proper end, as h11 reads it."""
        held = self.events.take_held()
        read = read_by_h11(self.client + (chunk(held) if held else b"") + LAST_CHUNK)
        assert (read.complete, read.rest) == (True, b"")
        return read.payload

    def fail(self) -> bytes:
        """Return the client's payload after an error event, as h11 reads it."""
        read = read_by_h11(self.client + chunk(ERROR) + LAST_CHUNK)
        assert (read.complete, read.rest) == (True, b"")
        assert read.payload.endswith(ERROR)
        return read.payload.removesuffix(ERROR)


def passed(data: list[bytes]) -> tuple[list[bytes], WholeEvents]:
    """Feed the holder; return what came out of each piece."""
    events = WholeEvents()
    return [events.feed(piece) for piece in data], events


# -- whole events ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["LF", "CRLF"])
def test_event_is_held_until_its_end_has_come(end: bytes) -> None:
    """Byte by byte: nothing, then all of it."""
    event = b"data: 1" + end
    out, events = passed(split(event, range(len(event))))
    assert out == [*[b""] * (len(event) - 1), event]
    assert not events.holds


def test_events_that_came_together_leave_together() -> None:
    """What follows the last end waits."""
    out, events = passed([b"a\n\nb\n\nc"])
    assert out == [b"a\n\nb\n\n"]
    assert events.holds
    assert events.take_held() == b"c"
    assert not events.holds


@pytest.mark.parametrize("data", [b"a\n\nb\r\n\r\n", b"a\r\n\r\nb\n\n"])
def test_ends_of_both_kinds_in_one_piece_are_both_seen(data: bytes) -> None:
    """A server between writes its comments in its own way."""
    out, _ = passed([data])
    assert out == [data]


def test_event_as_long_as_may_be_held_is_held() -> None:
    """To the byte."""
    out, events = passed([bytes(MAX_HELD)])
    assert out == [b""]
    assert not events.inside_event


def test_event_that_is_too_long_is_passed_on_at_once_and_marked(small: None) -> None:
    """Nothing may be added to the stream until its end was passed on."""
    events = WholeEvents()
    found = [
        (events.feed(data), events.inside_event) for data in (b"0123456789a", b"bc", b"\n\nde")
    ]
    assert found == [(b"0123456789a", True), (b"", True), (b"bc\n\n", False)]
    assert events.take_held() == b"de"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["LF", "CRLF"])
def test_end_of_a_long_event_is_seen_however_it_is_cut(end: bytes, small: None) -> None:
    """A client does not wait for the next event to get the last byte of this one."""
    for cut in range(len(end) + 1):
        events = WholeEvents()
        out = events.feed(b"0123456789ab" + end[:cut]) + events.feed(end[cut:])
        assert (out, events.inside_event) == (b"0123456789ab" + end, False)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a"]), min_size=60).map(b"".join))
@settings(deadline=None)
def test_little_is_held_whatever_comes(data: bytes) -> None:
    """Ends of lines that make no end of an event are no way around the bound."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_HELD", 10)
        events = WholeEvents()
        for piece in split(data, range(len(data))):
            events.feed(piece)
        assert len(events.take_held()) <= 10


@given(st.lists(EVENTS, min_size=1), st.binary(max_size=5), st.sets(st.integers(0, 200)))
@settings(deadline=None)
def test_nothing_is_lost_and_only_whole_events_leave(
    stream: list[bytes], rest: bytes, cuts: set[int]
) -> None:
    """However it is cut."""
    data = b"".join(stream) + rest
    out, events = passed(split(data, cuts))
    assert b"".join(out) + events.take_held() == data
    assert all(piece.endswith((b"\n\n", b"\r\n\r\n")) for piece in out if piece)


# -- the passage -----------------------------------------------------------------------------------


def test_chunk_of_one_event_is_passed_on_as_it_is() -> None:
    """As llama-server sends it: framing and all, with nothing made anew."""
    piece = chunk(EVENT)
    assert Streaming().feed(piece)[0] is piece


WHOLE_CHUNKS = {
    "several events in a chunk": chunk(EVENT * 3),
    "several chunks": chunk(EVENT) + chunk(EVENT * 2),
    "an event over two chunks": chunk(b"data: ") + chunk(b"1\n\n"),
    "a size with zeros": chunk(EVENT, spelling=b"000%X"),
}


@pytest.mark.parametrize("data", WHOLE_CHUNKS.values(), ids=WHOLE_CHUNKS.keys())
def test_whole_chunks_of_whole_events_are_passed_on_as_they_are(data: bytes) -> None:
    """However many."""
    streaming = Streaming()
    assert streaming.feed(data)[0] is data
    assert streaming.sent.bytes == len(read_by_h11(data).payload)


# What came, and what of its payload is the client's.
FRAMED_ANEW = {
    "half a chunk": (b"a\r\ndata: {", b""),
    "a chunk and a half": (chunk(EVENT) + b"a\r\ndata: {", EVENT),
    "a chunk without the end of an event": (chunk(b"data: {}\n"), b""),
    "an event and a half": (chunk(EVENT + b"data"), EVENT),
    "the last chunk behind it": (chunk(EVENT) + LAST_CHUNK, EVENT),
    "another one behind the last chunk": (chunk(EVENT) + LAST_CHUNK + chunk(EVENT), EVENT),
    # Its bytes end as those of a whole event do, with the end of the size line before.
    "a line's end in a chunk of its own": (chunk(b"data: {}") + chunk(b"\n"), b""),
    "the end of an event in two chunks": (chunk(b"data: {}\n") + chunk(b"\n"), EVENT),
    "an event that ends as a chunk does": (chunk(b"data: {}\n\n\r\n") + chunk(b"data"), EVENT),
    # h11, and with it httpx, refuses white space there.
    "an extension": (chunk(EVENT, extension=b" ;x=y"), EVENT),
    "white space": (chunk(EVENT, extension=b" "), EVENT),
    "a chunk that is longer than it says": (b"5\r\n" + EVENT + b"\r\n", b""),
    "a chunk that is shorter than it says": (b"ff\r\n" + EVENT + b"\r\n", EVENT),
}


@pytest.mark.parametrize(("data", "expected"), FRAMED_ANEW.values(), ids=FRAMED_ANEW.keys())
def test_anything_else_is_framed_anew_and_whole_events_alone(data: bytes, expected: bytes) -> None:
    """So an error event can follow at any time."""
    streaming = Streaming()
    streaming.feed(data)
    assert streaming.fail() == expected
    assert streaming.sent.bytes == len(expected)


def test_chunk_behind_a_held_beginning_is_no_event_of_its_own() -> None:
    """It is the other half of the one before."""
    streaming = Streaming()
    streaming.feed(chunk(b"data: 1"), chunk(b"2\n\n"))
    assert streaming.out == [b"", chunk(b"data: 12\n\n")]


def test_chunk_behind_a_beginning_that_was_passed_on_ends_its_event(small: None) -> None:
    """Then, and not before, an error can be told again."""
    streaming, inside = Streaming(), list[bool]()
    for payload in (b"data: 0123456789", b"ab\n\n"):
        streaming.feed(chunk(payload))
        inside.append(streaming.events.inside_event)
    assert inside == [True, False]
    assert streaming.fail() == b"data: 0123456789ab\n\n"


def test_passage_reads_on_where_others_stopped() -> None:
    """In the midst of a chunk, with the beginning of an event held."""
    body, events, sent = ChunkedBody(), WholeEvents(), SentCounts(bytes=3, events=1)
    assert events.feed(body.feed(b"a\r\ndata")) == b""
    passage = EventPassage(body, events, sent, Passing())
    assert passage.feed(b": {}\n\n\r\n") == chunk(EVENT)
    assert (sent.bytes, sent.events) == (3 + len(EVENT), 2)


@pytest.mark.parametrize(
    ("data", "over", "complete"),
    [
        (chunk(EVENT), False, False),
        (chunk(EVENT) + b"0\r\n", False, False),
        (chunk(EVENT) + LAST_CHUNK, True, True),
        (chunk(EVENT) + LAST_CHUNK + b"HTTP/1.1 200", True, True),
        (chunk(EVENT) + b"zz\r\n", True, False),
        (chunk(EVENT) + b"1\r\n:x", True, False),
    ],
    ids=["open", "open trailers", "complete", "with bytes behind", "no size", "no end of chunk"],
)
def test_over_when_it_is_complete_or_not_understood(
    data: bytes, over: bool, complete: bool
) -> None:
    """What is well framed before it is the client's in any case."""
    streaming = Streaming()
    streaming.feed(data)
    assert (streaming.passage.over, streaming.passage.complete) == (over, complete)
    assert streaming.passage.end() is complete
    assert streaming.fail() == EVENT


def test_stream_that_ends_with_its_connection_is_complete_then() -> None:
    """An HTTP/1.0 server's; the client gets chunks."""
    streaming = Streaming(BodyToClose())
    streaming.feed(EVENT, b"data", EVENT)
    assert streaming.out == [chunk(EVENT), b"", chunk(b"data" + EVENT)]
    assert not streaming.passage.over
    assert streaming.passage.end()
    assert streaming.passage.complete


def test_passage_of_a_body_that_is_over_is_over() -> None:
    """Nothing is to be read."""
    body = ChunkedBody()
    body.feed(LAST_CHUNK)
    assert Streaming(body).passage.over


@pytest.mark.parametrize("at", [8, 17], ids=["in an event", "its empty line"])
def test_line_feed_that_begins_a_chunk_ends_no_event(at: int) -> None:
    """Behind the line feed of its size line it looks like one."""
    event = b"data: 5;\ndata: 6\n\n"
    streaming = Streaming()
    streaming.feed(chunk(event[:at]) + chunk(event[at:]), LAST_CHUNK)
    assert streaming.finish() == event
    assert streaming.sent == SentCounts(len(event), 1)


@given(st.data(), chunked_streams())
@settings(max_examples=200, deadline=None)
def test_any_stream_in_any_pieces_comes_out_whole(
    data: st.DataObject, stream: ChunkedStream
) -> None:
    """As h11 reads it, and as it is counted."""
    streaming = Streaming()
    streaming.feed(*data.draw(pieces_of(stream)))
    assert streaming.passage.complete
    assert streaming.finish() == stream.payload
    assert streaming.sent == SentCounts(len(stream.payload), len(stream.events))


@given(st.data(), chunked_streams(), st.integers(0))
@settings(max_examples=200, deadline=None)
def test_any_stream_cut_anywhere_leaves_whole_events(
    data: st.DataObject, stream: ChunkedStream, cut: int
) -> None:
    """An error event that is added is the next event, whatever was read before."""
    pieces, left = data.draw(pieces_of(stream)), cut % len(stream.encoded)
    streaming = Streaming()
    for piece in pieces:
        streaming.feed(piece[:left])
        left -= min(left, len(piece))
    assert not streaming.passage.complete
    assert not streaming.passage.end()
    received = streaming.fail()
    assert received in stream.whole
    assert streaming.sent == SentCounts(len(received), received.count(b"\n\n"))


@given(st.data(), chunked_streams())
@settings(max_examples=200, deadline=None)
def test_any_stream_of_long_events_says_whether_one_is_open(
    data: st.DataObject, stream: ChunkedStream
) -> None:
    """Where it says that none is, whole events were sent; in the end all were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_HELD", 10)
        streaming = Streaming()
        for piece in data.draw(pieces_of(stream)):
            streaming.feed(piece)
            sent = read_by_h11(streaming.client).payload
            assert streaming.events.inside_event is (sent not in stream.whole)
        assert streaming.finish() == stream.payload


@given(st.data(), chunked_streams(), st.binary(min_size=1, max_size=4), st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_garbage_between_chunks_ends_the_stream_behind_whole_events(
    data: st.DataObject, stream: ChunkedStream, garbage: bytes, place: int
) -> None:
    """Where h11 finds one too, or the whole stream where the garbage says something."""
    chunks = [*stream.chunks]
    chunks.insert(place % len(chunks), garbage)
    broken = ChunkedStream(stream.events, tuple(chunks))
    streaming = Streaming()
    streaming.feed(*data.draw(pieces_of(broken)))
    read = read_by_h11(broken.encoded)
    received = streaming.finish() if streaming.passage.complete else streaming.fail()
    assert read.payload.startswith(received)
    if streaming.passage.complete:
        assert (read.payload, read.complete) == (received, True)
