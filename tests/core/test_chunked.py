"""Tests for the chunked transfer coding."""

from __future__ import annotations

import pytest

from proxy.core.chunked import ChunkedReader
from proxy.core.errors import BodyTooLarge, HeadTooLarge, InvalidRequest
from proxy.core.lines import LineReader
from proxy.core.request_limits import Limits

LIMITS = Limits(max_body=300, max_chunk_line=40, max_chunk_extensions=60, max_trailers=40)


def read(*pieces: bytes) -> tuple[bytes, bool, int]:
    """Return the payload in the pieces, whether the body is done, and how many bytes are left."""
    source, reader, payload = LineReader(), ChunkedReader(LIMITS), b""
    for piece in pieces:
        source.receive(piece)
        while (run := reader.read(source)) is not None:
            payload += run
    return payload, reader.done, len(source)


def test_body_without_payload_is_the_last_chunk() -> None:
    """A size of 0 and an empty line end a body."""
    assert read(b"0\r\n\r\n") == (b"", True, 0)


def test_body_ends_where_it_ends() -> None:
    """What follows the body is left alone."""
    assert read(b"3\r\nabc\r\n0\r\n\r\nGET /") == (b"abc", True, 5)


@pytest.mark.parametrize("size", [b"a", b"A", b"0a", b"000000000000000a"], ids=str)
def test_size_is_hexadecimal(size: bytes) -> None:
    """A size is 1 to 16 hex digits, in either case."""
    assert read(size + b"\r\n0123456789\r\n0\r\n\r\n") == (b"0123456789", True, 0)


def test_payload_may_have_any_bytes_and_come_in_pieces() -> None:
    """Payload is not looked at; a CRLF in it is data."""
    data = b"4\r\n\r\n\x00\n\r\n0\r\n\r\n"
    pieces = [data[i : i + 1] for i in range(len(data))]
    assert read(*pieces) == read(data) == (b"\r\n\x00\n", True, 0)


@pytest.mark.parametrize(
    "extension",
    [b";a", b";a=b", b" ;\ta = b", b';a="b;\\" \t\xff"', b';a="";b'],
    ids=["name", "value", "white-space", "quoted", "two"],
)
def test_extension_well_formed_is_ignored(extension: bytes) -> None:
    """An extension that nobody here knows is ignored (RFC 9112 section 7.1.1)."""
    assert read(b"1" + extension + b"\r\na\r\n0" + extension + b"\r\n\r\n") == (b"a", True, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"g",
        b" 1",
        b"1 ",
        b"+1",
        b"-1",
        b"0x1",
        b"1_0",
        b"1.0",
        b"1;",
        b"1;=a",
        b"1;a=",
        b"1;a b",
        b'1;a="b',
        b"1,a",
        b"00000000000000001",
        b"\xd9\xa1",
    ],
    ids=str,
)
def test_size_line_malformed_is_refused(line: bytes) -> None:
    """A size line outside the grammar, or with more digits than 64 bits have, is refused."""
    with pytest.raises(InvalidRequest):
        read(line + b"\r\n")


@pytest.mark.parametrize("end", [b"x", b"\n", b"\rx", b"0\r\n\r\n"], ids=repr)
def test_data_not_followed_by_crlf_is_refused(end: bytes) -> None:
    """A chunk ends where its size says, with CRLF."""
    with pytest.raises(InvalidRequest, match="does not end where"):
        read(b"1\r\na" + end)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"12d\r\n", id="one-chunk"),
        pytest.param(b"1\r\na\r\n12c\r\n", id="all-chunks"),
        pytest.param(b"ffffffffffffffff\r\n", id="64-bits"),
    ],
)
def test_body_over_the_limit_is_refused_when_it_is_announced(data: bytes) -> None:
    """What a size announces counts, before the data comes."""
    with pytest.raises(BodyTooLarge):
        read(data)


def test_extension_over_the_line_limit_is_refused() -> None:
    """A size line has a limit, extensions included."""
    with pytest.raises(InvalidRequest, match="extensions"):
        read(b"1;" + b"a" * 40)


def test_extensions_over_their_limit_are_refused_though_each_is_short() -> None:
    """All extensions of a body have a limit together (RFC 9112 section 7.1.1)."""
    with pytest.raises(InvalidRequest, match="extensions"):
        read(b"1;aaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 3)


def test_trailers_are_read_over() -> None:
    """Trailers are checked and dropped."""
    assert read(b"0\r\nX-A: b\r\nX-C:\r\n\r\nx") == (b"", True, 1)


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1", b" a: b", b"a : b", b": b", b"content-LENGTH: 1", b"Host: a"],
    ids=str,
)
def test_trailer_malformed_or_forbidden_is_refused(line: bytes) -> None:
    """A trailer is a field line, and none that belongs into the head (RFC 9110 section 6.5.1)."""
    with pytest.raises(InvalidRequest):
        read(b"0\r\n" + line + b"\r\n")


def test_trailers_over_their_limit_are_refused() -> None:
    """The trailer section has a limit of its own."""
    with pytest.raises(HeadTooLarge):
        read(b"0\r\n" + b"X-A: b\r\n" * 5)


def test_reader_that_is_done_reads_nothing_more() -> None:
    """After the end nothing is consumed."""
    source, reader = LineReader(), ChunkedReader(LIMITS)
    source.receive(b"0\r\n\r\n1\r\n")
    while reader.read(source) is not None:
        pass
    assert reader.done
    assert reader.read(source) is None
    assert len(source) == 3
