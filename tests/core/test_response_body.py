"""The body of a response in each framing: its payload, its exact end, and h11's opinion of both."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.response_body import (
    BodyToClose,
    ChunkedBody,
    ResponseBody,
    SizedBody,
    body_of,
)
from tests.core.chunked_streams import (
    ChunkedStream,
    ReadByH11,
    chunked_streams,
    pieces_of,
    read_by_h11,
    split,
)

# The longest size line or trailer, with its CRLF.
MAX_LINE = 4096


@dataclass(frozen=True, slots=True)
class Read:
    """What a body gave out, and what it said then."""

    payload: bytes
    complete: bool = False
    broken: bool = False


def read(body: ResponseBody, pieces: list[bytes]) -> Read:
    """Feed `body` all of the pieces."""
    payload = b"".join(map(body.feed, pieces))
    assert body.over is (body.complete or body.broken)
    return Read(payload, body.complete, body.broken)


def each_split(data: bytes) -> list[list[bytes]]:
    """Return it whole, byte by byte, and in two pieces, however cut."""
    return [[data], split(data, range(len(data))), *(split(data, (at,)) for at in range(len(data)))]


def h11_agrees(found: Read, theirs: ReadByH11) -> bool:
    """Whether both say the same; of a body that it refuses h11 keeps the last payload back."""
    if found.broken or theirs.refused:
        return found.broken is theirs.refused and found.payload.startswith(theirs.payload)
    return (found.payload, found.complete) == (theirs.payload, theirs.complete)


# -- chunks ----------------------------------------------------------------------------------------

WELL_FORMED = {
    "empty": (b"0\r\n\r\n", b""),
    "one chunk": (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    "several chunks": (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
    "payload that looks like framing": (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "hexadecimal": (b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a"),
    "zeros before": (b"0003\r\nabc\r\n0000\r\n\r\n", b"abc"),
    "eight digits": (b"00000003\r\nabc\r\n00000000\r\n\r\n", b"abc"),
    "an extension": (b"3;a\r\nabc\r\n0;b=c\r\n\r\n", b"abc"),
    "a quoted extension": (b'3;a="0;\t "\r\nabc\r\n0\r\n\r\n', b"abc"),
    "white space before the line's end": (b"3 \t\r\nabc\r\n0 \r\n\r\n", b"abc"),
    "a trailer": (b"3\r\nabc\r\n0\r\nX-A: b\r\n\r\n", b"abc"),
    "trailers": (b"3\r\nabc\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n", b"abc"),
}


@pytest.mark.parametrize(("data", "payload"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_chunks_give_their_payload_and_end(data: bytes, payload: bytes) -> None:
    """However they are split, and h11 finds the same."""
    for pieces in each_split(data):
        assert read(ChunkedBody(), pieces) == Read(payload, complete=True)
    assert read_by_h11(data) == ReadByH11(payload, complete=True, refused=False, rest=b"")


@pytest.mark.parametrize(("data", "payload"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_chunks_that_are_cut_are_not_complete(data: bytes, payload: bytes) -> None:
    """At any byte: the end of the connection is then no end of the body."""
    for end in range(len(data)):
        body = ChunkedBody()
        assert payload.startswith(body.feed(data[:end]))
        assert (body.end(), body.over) == (False, False)
        assert read_by_h11(data[:end], closed=True).refused


MALFORMED = {
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "no digit": b"g\r\nabc\r\n0\r\n\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "white space before": b" 3\r\nabc\r\n0\r\n\r\n",
    "a separator of digits": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a decimal point": b"3.0\r\nabc\r\n0\r\n\r\n",
    "two sizes": b"3 3\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk shorter than its size": b"3\r\nab\r\n0\r\n\r\n",
    "a chunk with LF behind it": b"3\r\nabc\n0\r\n\r\n",
    "a chunk with CR CR behind it": b"3\r\nabc\r\r0\r\n\r\n",
    "nothing between chunks": b"3\r\nabc3\r\nabc\r\n0\r\n\r\n",
    "HTML": b"<html><body>502 Bad Gateway</body></html>\r\n",
    "a head": b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_chunks_that_are_none_break_the_body(data: bytes) -> None:
    """What is well framed before it was given out; however split, and h11 refuses it too."""
    found = [read(ChunkedBody(), pieces) for pieces in each_split(data)]
    assert found[0].broken
    assert set(found) == {found[0]}
    assert h11_agrees(found[0], read_by_h11(data))


STRICTER_THAN_H11 = {
    "nine digits": b"000000003\r\nabc\r\n0\r\n\r\n",
    "a CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "LF in an extension's stead": b"0\r\n\n",
    "a trailer with LF": b"0\r\nX-A: b\n\r\n",
    "trailers with LF": b"0\r\nX-A: b\nX-C: d\r\n\r\n",
    "a longer line than any": b"3;%b\r\nabc\r\n0\r\n\r\n" % (b"a" * MAX_LINE),
    "a longer trailer than any": b"0\r\nX: %b\r\n\r\n" % (b"a" * MAX_LINE),
}


@pytest.mark.parametrize("data", STRICTER_THAN_H11.values(), ids=STRICTER_THAN_H11.keys())
def test_chunks_that_h11_takes_and_we_do_not(data: bytes) -> None:
    """No llama-server writes them, and others read them in another way."""
    found = {read(ChunkedBody(), pieces) for pieces in each_split(data)[:300]}
    assert found == {Read(b"", broken=True)}
    assert read_by_h11(data).complete


LOOSER_THAN_H11 = {
    # RFC 9112 section 7.1.1: white space that is bad and has to be taken.
    "white space before an extension": (b"3 ;a\r\nabc\r\n0\t;b\r\n\r\n", b"abc"),
    # A trailer is passed over and means nothing to anybody.
    "a trailer that is no field": (b"3\r\nabc\r\n0\r\nwhat\r\n\r\n", b"abc"),
    "a NUL in a trailer": (b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n", b"abc"),
}


@pytest.mark.parametrize(("data", "payload"), LOOSER_THAN_H11.values(), ids=LOOSER_THAN_H11.keys())
def test_chunks_that_we_take_and_h11_does_not(data: bytes, payload: bytes) -> None:
    """Neither payload nor end depends on what it refuses."""
    for pieces in each_split(data):
        assert read(ChunkedBody(), pieces) == Read(payload, complete=True)
    assert read_by_h11(data).refused


@pytest.mark.parametrize(
    ("before", "line"),
    [(b"", b"3;%b\r\n"), (b"0\r\n", b"X: %b\r\n")],
    ids=["a size line", "a trailer"],
)
@pytest.mark.parametrize(("length", "broken"), [(MAX_LINE, False), (MAX_LINE + 1, True)])
def test_line_is_read_up_to_its_bound(
    before: bytes, line: bytes, length: int, broken: bool
) -> None:
    """To the byte, in one piece and in many."""
    data = before + line % (b"a" * (length - len(line % b"")))
    for pieces in ([data], split(data, range(len(data)))):
        assert read(ChunkedBody(), pieces).broken is broken


def test_bytes_behind_the_end_are_dropped() -> None:
    """They are nobody's."""
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200") == b"a"
    assert body.feed(b"1\r\nb\r\n") == b""
    assert body.complete


def test_bytes_behind_a_break_are_dropped() -> None:
    """Where one chunk is not understood, the next one cannot be."""
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\nzz\r\n1\r\nb\r\n0\r\n\r\n") == b"a"
    assert body.feed(b"1\r\nb\r\n0\r\n\r\n") == b""
    assert (body.broken, body.complete, body.end()) == (True, False, False)


def test_one_chunk_is_given_out_without_a_copy_of_it_being_joined() -> None:
    """The common case; half of one is given out at once as well."""
    body = ChunkedBody()
    assert [body.feed(piece) for piece in (b"6\r\nab", b"cd", b"ef\r\n")] == [b"ab", b"cd", b"ef"]


def test_at_chunk_start_between_chunks_alone() -> None:
    """There, and not behind the last one or a break."""
    body, data = ChunkedBody(), b"2\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n"
    found = [body.at_chunk_start()]
    for piece in split(data, range(len(data))):
        body.feed(piece)
        found.append(body.at_chunk_start())
    assert [at for at, yes in enumerate(found) if yes] == [0, 7, 13]


@pytest.mark.parametrize("data", [b"zz\r\n", b"1\r\naxx", b"1\r\na\rx"])
def test_at_chunk_start_of_a_broken_body_is_false(data: bytes) -> None:
    """Nothing of it is read any more."""
    body = ChunkedBody()
    body.feed(data)
    assert body.broken
    assert not body.at_chunk_start()


@given(st.data(), chunked_streams())
@settings(max_examples=200, deadline=None)
def test_any_chunks_in_any_pieces_give_the_payload(
    data: st.DataObject, stream: ChunkedStream
) -> None:
    """And their end."""
    pieces = data.draw(pieces_of(stream))
    assert read(ChunkedBody(), pieces) == Read(stream.payload, complete=True)


SCRAPS = st.sampled_from(
    [b"0", b"1", b"2", b"a", b"\r", b"\n", b"\r\n", b";", b" ", b"x", b"0\r\n", b"1\r\na\r\n"]
)


@given(st.lists(SCRAPS, max_size=12).map(b"".join), st.sets(st.integers(0, 30)))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_read_alike_in_any_pieces_and_by_h11(data: bytes, cuts: set[int]) -> None:
    """Save for the differences above; where both find a payload, it is the same."""
    found = read(ChunkedBody(), [data])
    assert read(ChunkedBody(), split(data, cuts)) == found
    assert read(ChunkedBody(), split(data, range(len(data)))) == found
    theirs = read_by_h11(data)
    assert theirs.payload.startswith(found.payload) or found.payload.startswith(theirs.payload)
    if found.complete and not theirs.refused:
        assert (theirs.payload, theirs.complete) == (found.payload, True)


# -- the other framings ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 6])
@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 200 OK"], ids=["nothing", "bytes"])
def test_sized_body_ends_with_its_last_byte(length: int, behind: bytes) -> None:
    """However it is split; what is behind it is dropped."""
    payload = b"abcdef"[:length]
    for pieces in each_split(payload + behind):
        assert read(SizedBody(length), pieces) == Read(payload, complete=True)
    theirs = read_by_h11(payload + behind, b"Content-Length: %d\r\n" % length)
    assert theirs == ReadByH11(payload, complete=True, refused=False, rest=behind)


@pytest.mark.parametrize("end", range(6))
def test_sized_body_that_is_cut_is_not_complete(end: int) -> None:
    """At any byte."""
    body = SizedBody(6)
    assert body.feed(b"abcdef"[:end]) == b"abcdef"[:end]
    assert (body.end(), body.over, body.at_chunk_start()) == (False, False, False)
    assert read_by_h11(b"abcdef"[:end], b"Content-Length: 6\r\n", closed=True).refused


def test_body_of_no_length_is_complete_from_its_beginning() -> None:
    """Nothing has to come."""
    body = SizedBody(0)
    assert (body.complete, body.over) == (True, True)
    assert (body.feed(b"abc"), body.end()) == (b"", True)


def test_body_to_the_close_ends_with_its_connection() -> None:
    """Before that nothing tells its end."""
    for pieces in each_split(b"abc"):
        body = BodyToClose()
        assert read(body, pieces) == Read(b"abc")
        assert not body.at_chunk_start()
        assert body.end()
        assert body.complete
    theirs = read_by_h11(b"abc", b"", closed=True)
    assert theirs == ReadByH11(b"abc", complete=True, refused=False, rest=b"")


Fields = list[tuple[bytes, bytes]]
LENGTH: Fields = [(b"X", b"1"), (b"content-LENGTH", b"6")]
CODING: Fields = [(b"Transfer-Encoding", b"chunked")]
FRAMINGS: dict[str, tuple[bytes, int, Fields, type[ResponseBody], bool]] = {
    "a length": (b"GET", 200, LENGTH, SizedBody, False),
    "a length of 0": (b"GET", 200, [(b"Content-Length", b"0")], SizedBody, True),
    "chunks": (b"POST", 200, CODING, ChunkedBody, False),
    "chunks of another spelling": (
        b"GET",
        200,
        [(b"tRANSFER-encoding", b"Chunked")],
        ChunkedBody,
        False,
    ),
    # RFC 9112 section 6.3: the coding overrides the length.
    "both": (b"GET", 200, [*LENGTH, *CODING], ChunkedBody, False),
    "neither": (b"GET", 200, [(b"X", b"1")], BodyToClose, False),
    "an error": (b"GET", 500, LENGTH, SizedBody, False),
    "HEAD with a length": (b"HEAD", 200, LENGTH, SizedBody, True),
    "HEAD with chunks": (b"HEAD", 200, CODING, SizedBody, True),
    "204": (b"GET", 204, LENGTH, SizedBody, True),
    "304": (b"GET", 304, LENGTH, SizedBody, True),
}


@pytest.mark.parametrize(
    ("method", "status", "fields", "kind", "complete"), FRAMINGS.values(), ids=FRAMINGS.keys()
)
def test_framing_of_a_response(
    method: bytes, status: int, fields: Fields, kind: type[ResponseBody], complete: bool
) -> None:
    """RFC 9112 section 6.3."""
    found = body_of(method, status, fields)
    assert (type(found), found.complete) == (kind, complete)


def test_framing_of_a_length_is_that_length() -> None:
    """Not a byte more."""
    assert body_of(b"GET", 200, LENGTH).feed(b"abcdefg") == b"abcdef"
