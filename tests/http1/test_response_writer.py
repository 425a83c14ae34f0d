"""The bytes of one response, and whether its connection can be kept."""

from __future__ import annotations

import pytest

from proxy.http1.response_writer import Field, ResponseMisframed, ResponseWriter

LENGTH: list[Field] = [(b"Content-Length", b"3")]


def written(
    writer: ResponseWriter, headers: list[Field], *pieces: bytes, status: int = 200
) -> bytes:
    """Return a whole response."""
    head = writer.head(status, headers)
    return head + b"".join(writer.data(piece) for piece in pieces) + writer.end()


def kept(method: bytes = b"GET", version: bytes = b"1.1") -> ResponseWriter:
    """Return the writer of a response after which the connection may be kept."""
    return ResponseWriter(method, version, keep_alive=True)


def test_response_with_a_length_is_written_as_it_is() -> None:
    """Header spelling, order and duplicates are kept."""
    headers = [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"3"), *LENGTH]
    writer = kept()
    assert written(writer, headers, b"ab", b"c") == (
        b"HTTP/1.1 200 OK\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert writer.keeps_alive


def test_response_without_a_length_is_chunked() -> None:
    """A chunk for each piece, and the end."""
    writer = kept()
    assert written(writer, [], b"ab", b"c").endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert writer.keeps_alive


def test_response_to_http_1_0_without_a_length_ends_with_the_connection() -> None:
    """It knows no chunks."""
    writer = ResponseWriter(b"GET", b"1.0", keep_alive=False)
    found = written(writer, [], b"ab")
    assert found.endswith(b"\r\n\r\nab")
    assert b"chunked" not in found
    assert not writer.keeps_alive


def test_response_to_head_has_no_body() -> None:
    """The length is that of what GET would get."""
    writer = kept(b"HEAD")
    assert written(writer, LENGTH, b"abc").endswith(b"Content-Length: 3\r\n\r\n")
    assert writer.keeps_alive


@pytest.mark.parametrize("status", [204, 304])
def test_response_whose_status_has_no_body_has_none(status: int) -> None:
    """RFC 9112 section 6.3; the connection is kept."""
    writer = kept()
    assert written(writer, [], b"abc", status=status).endswith(b"\r\n\r\n")
    assert writer.keeps_alive


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (404, None, b"404 Not Found"),
        (404, b"Nowhere", b"404 Nowhere"),
        (299, None, b"299 "),
        (200, b"", b"200 "),
    ],
)
def test_reason_is_the_given_one_or_the_usual(
    status: int, reason: bytes | None, line: bytes
) -> None:
    """What llama-server said, an empty one too; otherwise what everybody says."""
    assert kept().head(status, LENGTH, reason).startswith(b"HTTP/1.1 " + line + b"\r\n")


def test_response_that_may_not_keep_its_connection_says_so() -> None:
    """The client does not send another request into the void."""
    writer = ResponseWriter(b"GET", b"1.1", keep_alive=False)
    assert b"\r\nconnection: close" in written(writer, LENGTH, b"abc").lower()
    assert not writer.keeps_alive


def test_unfinished_response_keeps_nothing() -> None:
    """Nobody could tell where the next one begins."""
    writer = kept()
    writer.head(200, [])
    writer.data(b"a")
    assert not writer.keeps_alive


@pytest.mark.parametrize("body", [b"ab", b"abcd"], ids=["shorter", "longer"])
def test_body_of_another_length_than_said_is_a_defect(body: bytes) -> None:
    """It is never passed off as whole."""
    with pytest.raises(ResponseMisframed):
        written(kept(), LENGTH, body)


@pytest.mark.parametrize(
    "field",
    [(b"X", b"a\r\nSet-Cookie: b"), (b"X", b"a\nb"), (b"X\r", b"a"), (b"X", b"a\0b")],
    ids=["a line", "LF", "CR", "NUL"],
)
def test_field_that_would_be_two_is_a_defect(field: Field) -> None:
    """Whoever could write a line end into a field could write a response of his own."""
    with pytest.raises(ResponseMisframed):
        kept().head(200, [field])


def test_what_an_application_says_of_the_connection_is_ours_to_say() -> None:
    """Its coding is dropped, and its wish to close is followed."""
    writer = kept()
    found = written(writer, [(b"Connection", b"Close"), (b"Transfer-Encoding", b"gzip")], b"a")
    assert found == (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"1\r\na\r\n0\r\n\r\n"
    )
    assert not writer.keeps_alive
