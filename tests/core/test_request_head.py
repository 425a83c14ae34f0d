"""Tests for reading a head, and for what is handed on of it."""

from __future__ import annotations

import pytest

from proxy.core.errors import HeadTooLarge, InvalidRequest
from proxy.core.lines import LineReader
from proxy.core.request_head import HeadReader, RequestHead
from proxy.core.request_limits import Limits
from tests.core.framing_transcript import written_head

LIMITS = Limits(max_head=200, max_headers=3, max_target=20)


def read(data: bytes, limits: Limits = LIMITS) -> RequestHead | None:
    """Return what a new reader makes of `data`."""
    source = LineReader()
    source.receive(data)
    return HeadReader(limits).read(source)


def read_complete(data: bytes) -> RequestHead:
    """Return the head that is in `data`."""
    head = read(data)
    assert head is not None
    return head


def test_head_complete_is_given_out_with_all_its_parts() -> None:
    """A head is given out as it is handed on, with what was understood of it."""
    data = b"POST /a?b HTTP/1.1\r\nhOST:a\r\nContent-Length: 07\r\nX-A:\t b \r\n\r\n"
    headers = ((b"hOST", b"a"), (b"Content-Length", b"7"), (b"X-A", b"b"))
    assert read(data) == RequestHead(
        method=b"POST",
        target=b"/a?b",
        version=b"1.1",
        headers=headers,
        content_length=7,
        chunked=False,
        expects_continue=False,
        keep_alive=True,
    )


def test_head_with_absolute_form_is_handed_on_in_origin_form() -> None:
    """The application sees a path and one Host, in HTTP/1.0 too."""
    head = read_complete(b"GET http://b:1/c HTTP/1.0\r\n\r\n")
    assert (head.target, head.headers) == (b"/c", ((b"Host", b"b:1"),))


def test_head_that_was_handed_on_is_read_as_the_same() -> None:
    """What is normalised stays as it is."""
    head = read_complete(b"\r\nGET http://b HTTP/1.7\r\nHost:\r\nConnection: upgrade\r\n\r\n")
    assert read(written_head(head)) == head


def test_head_incomplete_is_none() -> None:
    """Without its empty line a head is not complete."""
    assert read(b"GET / HTTP/1.1\r\nHost: a\r\n") is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(b"Content-Length: 1\r\n", True, id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", True, id="chunked"),
        pytest.param(b"Content-Length: 0\r\n", False, id="empty-body"),
        pytest.param(b"", False, id="no-body"),
    ],
)
def test_head_with_expectation_waits_only_if_a_body_follows(fields: bytes, expected: bool) -> None:
    """Nobody waits for 100 Continue without a body to send."""
    head = read_complete(
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + fields + b"\r\n"
    )
    assert head.expects_continue is expected


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/2.0",
        b"GET / HTTP/0.9",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1.",
        b"GET / HTTP/11",
        b"GET / http/1.1",
        b"PRI * HTTP/2.0",
        b"GET /",
        b"GET",
        b"GET  HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"get / HTTP/1.1",
        b"GeT / HTTP/1.1",
        b"G:T / HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"TRACE / HTTP/1.1",
    ],
    ids=str,
)
def test_request_line_malformed_or_not_served_is_refused(line: bytes) -> None:
    """A request line that is not ours to serve is refused as soon as it is there."""
    with pytest.raises(InvalidRequest):
        read(line + b"\r\n")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /" + b"a" * 20 + b" HTTP/1.1\r\n", id="target"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4, id="count"),
        pytest.param(b"GET / HTTP/1.1\r\na: " + b"b" * 182, id="bytes"),
        pytest.param(b"GET /" + b"a" * 195, id="bytes-of-the-request-line"),
    ],
)
def test_head_over_a_limit_is_refused_before_it_ends(data: bytes) -> None:
    """A head is refused as soon as it cannot be within its limits any more."""
    with pytest.raises(HeadTooLarge):
        read(data)


def test_head_limit_counts_every_byte() -> None:
    """A head of exactly its limit is taken, one byte more is not."""
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"
    value = b"x" * (LIMITS.max_head - len(start) - len(end))
    assert read(start + value + end) is not None
    with pytest.raises(HeadTooLarge):
        read(start + value + b"x" + end)


def test_reader_is_untouched_until_the_request_line_is_read() -> None:
    """An empty line before the request line is not yet a request."""
    source = LineReader()
    reader = HeadReader(LIMITS)
    source.receive(b"\r\n")
    reader.read(source)
    assert reader.untouched
    source.receive(b"GET / HTTP/1.1\r\n")
    reader.read(source)
    assert not reader.untouched
