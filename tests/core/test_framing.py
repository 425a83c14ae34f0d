"""Tests for the framer: the order of events, splits, pipelining, faults and what it holds."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.errors import BodyTooLarge, HeadTooLarge, HttpError, InvalidRequest
from proxy.core.framing import (
    END_OF_REQUEST,
    NEED_DATA,
    BodyBytes,
    Event,
    Limits,
    RequestFramer,
    RequestHead,
)
from tests.core.framing_transcript import Transcript, play, read_by_h11, read_first_by_h11
from tests.http1.probes import PROBES

LIMITS = Limits(max_body=1000)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def framer_with(data: bytes, limits: Limits = LIMITS) -> RequestFramer:
    """Return a new framer that has received `data`."""
    framer = RequestFramer(limits)
    framer.receive_data(data)
    return framer


def events_of(framer: RequestFramer) -> list[Event]:
    """Return the events there are now."""
    events: list[Event] = []
    while (event := framer.next_event()) is not NEED_DATA:
        events.append(event)
    return events


def body_events(data: bytes) -> list[Event]:
    """Return the events after the head of the only request in `data`."""
    head, *others = events_of(framer_with(data))
    assert isinstance(head, RequestHead)
    return others


def test_framer_without_bytes_needs_data() -> None:
    """There is no event before there are bytes."""
    assert RequestFramer(LIMITS).next_event() is NEED_DATA


def test_request_without_body_is_head_and_end() -> None:
    """A request without length or coding ends with its head (RFC 9112 section 6.3)."""
    assert body_events(GET) == [END_OF_REQUEST]


def test_body_of_a_length_comes_as_it_was_received() -> None:
    """A body of a known length is given out unchanged, then the end."""
    assert body_events(POST + b"\x00\r\nx") == [BodyBytes(b"\x00\r\nx"), END_OF_REQUEST]


def test_body_of_a_length_comes_as_soon_as_it_is_received() -> None:
    """Payload is given out piece by piece, without waiting for the rest."""
    framer = framer_with(POST + b"ab")
    assert events_of(framer)[1:] == [BodyBytes(b"ab")]
    assert framer.held_bytes == 0


def test_chunks_that_come_together_leave_as_one() -> None:
    """Many small chunks in one packet cost the application one piece, without their framing."""
    assert body_events(CHUNKED + b"1;x=y\r\na\r\n003\r\nbcd\r\n00\r\n\r\n") == [
        BodyBytes(b"abcd"),
        END_OF_REQUEST,
    ]


def test_thousands_of_chunks_in_one_packet_leave_in_several_pieces() -> None:
    """Work on one packet is bounded per event, and nothing is lost between the events."""
    *pieces, end = body_events(CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n")
    assert len(pieces) > 1
    assert b"".join(piece.data for piece in pieces if isinstance(piece, BodyBytes)) == b"a" * 1000
    assert end is END_OF_REQUEST


def test_part_of_a_chunk_is_given_out_at_once() -> None:
    """Payload of a chunk that is not complete does not wait for the rest."""
    framer = framer_with(CHUNKED + b"64\r\nabc")
    assert events_of(framer)[1:] == [BodyBytes(b"abc")]
    assert framer.held_bytes == 0


def test_last_chunk_is_only_the_end() -> None:
    """A chunk of size 0 has no payload, so it is no piece of the body."""
    framer = framer_with(CHUNKED + b"1\r\na\r\n")
    assert events_of(framer)[1:] == [BodyBytes(b"a")]
    framer.receive_data(b"0\r\n\r\n")
    assert events_of(framer) == [END_OF_REQUEST]


def test_trailers_are_not_handed_on() -> None:
    """The trailer section is read and dropped (RFC 9110 section 6.5.1 allows it)."""
    assert body_events(CHUNKED + b"0\r\nX-A: b\r\n\r\n") == [END_OF_REQUEST]


def test_next_request_waits_until_it_may_start() -> None:
    """After the end of a request the bytes of the next are held until the caller says so."""
    framer = framer_with(GET + POST)
    events_of(framer)
    assert framer.next_event() is NEED_DATA
    assert framer.held_bytes == len(POST)
    framer.start_next_request()
    assert isinstance(framer.next_event(), RequestHead)


def test_start_next_request_before_the_end_is_refused() -> None:
    """A caller that starts the next request inside the current one has a defect."""
    framer = framer_with(POST)
    events_of(framer)
    with pytest.raises(RuntimeError):
        framer.start_next_request()


def test_start_next_request_before_the_end_was_given_out_is_refused() -> None:
    """The end of a request counts from when the caller has seen it."""
    framer = framer_with(GET)
    framer.next_event()
    with pytest.raises(RuntimeError):
        framer.start_next_request()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", True, id="nothing"),
        pytest.param(b"\r\n", True, id="empty-line"),
        pytest.param(b"\r", False, id="half-an-empty-line"),
        pytest.param(b"G", False, id="first-byte"),
        pytest.param(b"GET / HTTP/1.1\r\n", False, id="request-line"),
        pytest.param(GET, False, id="complete"),
        pytest.param(POST, False, id="body-missing"),
    ],
)
def test_at_request_start_is_true_only_before_a_request(data: bytes, expected: bool) -> None:
    """Only where no byte of a request has come does closing cut nothing off."""
    framer = framer_with(data)
    events_of(framer)
    assert framer.at_request_start is expected


def test_at_request_start_after_a_request_depends_on_what_is_held() -> None:
    """Between two requests it is true again, unless the next has begun to come."""
    framer = framer_with(GET)
    events_of(framer)
    framer.start_next_request()
    assert framer.at_request_start
    framer.receive_data(b"G")
    assert not framer.at_request_start


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"nonsense\r\n", InvalidRequest, id="400"),
        pytest.param(b"GET /" + b"a" * 33000, HeadTooLarge, id="431"),
        pytest.param(POST.replace(b"4", b"1001"), BodyTooLarge, id="413-length"),
        pytest.param(CHUNKED + b"3e9\r\n", BodyTooLarge, id="413-chunk"),
    ],
)
def test_fault_is_raised_once_and_leaves_the_framer_dead(
    data: bytes, error: type[Exception]
) -> None:
    """After a fault there are no events, and nothing more is held."""
    framer = framer_with(data)
    with pytest.raises(error):
        events_of(framer)
    framer.receive_data(GET)
    assert framer.next_event() is NEED_DATA
    assert framer.held_bytes == 0
    assert not framer.at_request_start
    with pytest.raises(RuntimeError):
        framer.start_next_request()


def test_payload_before_a_fault_is_given_out_first() -> None:
    """What precedes a fault in one packet comes before it, as if it had come by itself."""
    framer = framer_with(CHUNKED + b"1\r\na\r\nnonsense\r\n")
    framer.next_event()
    assert framer.next_event() == BodyBytes(b"a")
    with pytest.raises(InvalidRequest):
        framer.next_event()


def test_body_at_the_limit_is_taken() -> None:
    """The limit on a body is what it may have, counted without chunk framing."""
    data = CHUNKED + b"1f4\r\n" + bytes(500) + b"\r\n1f4\r\n" + bytes(500) + b"\r\n0\r\n\r\n"
    transcript = play([data], LIMITS)
    assert transcript.fault is None
    assert transcript.requests[0].payload == bytes(1000)


def test_long_body_is_never_held() -> None:
    """A body passes through: once its events are taken, nothing of it is left inside."""
    framer = framer_with(CHUNKED + b"FFFFFFF\r\n", Limits())
    events_of(framer)
    for _ in range(100):
        framer.receive_data(bytes(65536))
        assert sum(len(event.data) for event in events_of(framer) if isinstance(event, BodyBytes))
        assert framer.held_bytes == 0


def seen(transcript: Transcript) -> list[object]:
    """Return what must not depend on how the bytes were split."""
    fault = transcript.fault
    return [
        *(
            (request.head, request.complete, read_by_h11(request))
            for request in transcript.requests
        ),
        None if fault is None else (fault.status, fault.message),
        transcript.framer.at_request_start,
        transcript.framer.held_bytes if fault is None else 0,
    ]


def mutate(data: bytes, at: int, removed: int, inserted: bytes) -> bytes:
    """Return the bytes with some replaced."""
    at %= len(data) + 1
    return data[:at] + inserted + data[at + removed :]


# Pieces in which readers differ, rather than random bytes, which are almost always refused at once.
FRAGMENTS = st.sampled_from(
    [
        b"",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\x00",
        b"\xff",
        b":",
        b",",
        b";",
        b"0",
        b"1",
        b"a",
        b"0\r\n\r\n",
        b"HTTP/1.0",
        b"\r\nHost: b",
        b"\r\nContent-Length: 3",
        b"\r\nTransfer-Encoding: chunked",
        b"\r\nConnection: close",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)
SHORT_PROBES = st.sampled_from([probe.data for probe in PROBES if len(probe.data) < 1000])
INPUTS = st.builds(mutate, SHORT_PROBES, st.integers(0, 1000), st.integers(0, 3), FRAGMENTS)


@given(data=INPUTS, cuts=st.lists(st.integers(0, 1000), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    """However the bytes are split, events, fault and the rest are the same."""
    limits = Limits(max_body=1000, max_head=400, max_headers=8, max_target=100, max_trailers=60)
    whole = seen(play([data], limits))
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    assert seen(play([data[a:b] for a, b in pairwise(edges)], limits)) == whole
    assert seen(play([data[i : i + 1] for i in range(len(data))], limits)) == whole


@given(data=INPUTS)
@settings(max_examples=300, deadline=None)
def test_what_is_handed_on_is_read_alike_by_h11(data: bytes) -> None:
    """What is handed on, written down, is a request that h11 reads as the very same."""
    for request in play([data], LIMITS).requests:
        head, _ = read_by_h11(request)
        understood = (request.head.method, request.head.target, request.head.version)
        assert (head.method, head.target, head.http_version) == understood
        assert tuple(head.headers.raw_items()) == request.head.headers


@given(data=INPUTS)
@settings(max_examples=300, deadline=None)
def test_framer_is_never_looser_than_h11(data: bytes) -> None:
    """What h11 refuses in a head, save an empty line before it, the framer refuses too."""
    if not play([data], LIMITS).requests:
        return
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data.removeprefix(b"\r\n"))
    assert isinstance(reader.next_event(), h11.Request)


@given(data=INPUTS)
@settings(max_examples=300, deadline=None)
def test_complete_request_ends_where_h11_ends_it(data: bytes) -> None:
    """In the client's own bytes both find the same body, and the next request at the same byte."""
    framer = framer_with(data)
    try:
        events = events_of(framer)
    except HttpError:
        return
    if END_OF_REQUEST not in events:
        return
    try:
        read = read_first_by_h11(data.removeprefix(b"\r\n"))
    except h11.RemoteProtocolError:
        # It refuses white space before a chunk extension, which RFC 9112 section 7.1.1 allows.
        assert b" ;" in data or b"\t;" in data
        return
    payload = b"".join(event.data for event in events if isinstance(event, BodyBytes))
    assert (read.payload, read.complete) == (payload, True)
    assert len(read.rest) == framer.held_bytes
