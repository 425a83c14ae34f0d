"""Tests for the fields that decide where a request ends, whom it is for, and if more follow."""

from __future__ import annotations

import pytest

from proxy.core.errors import BodyTooLarge, InvalidRequest
from proxy.core.request_fields import (
    Field,
    expects_continue,
    fields_to_hand_on,
    keeps_alive,
    read_body_length,
    read_host,
)
from proxy.core.request_limits import Limits

HOST = (b"Host", b"a")
CHUNKED = (b"Transfer-Encoding", b"chunked")
LIMITS = Limits(max_body=1000)


def test_host_is_found_whatever_its_case() -> None:
    """Field names are case-insensitive (RFC 9110 section 5.1)."""
    assert read_host([(b"hOST", b"a:1")], b"1.1", None) == b"a:1"


def test_host_is_replaced_by_that_of_the_target() -> None:
    """The authority of an absolute-form target wins (RFC 9112 section 3.2.2)."""
    assert read_host([HOST], b"1.1", b"b") == b"b"
    assert read_host([(b"Host", b"")], b"1.1", b"b") == b"b"


def test_host_may_be_missing_in_http_1_0() -> None:
    """HTTP/1.0 has no Host; none is invented."""
    assert read_host([], b"1.0", None) is None
    assert read_host([], b"1.0", b"b") == b"b"


@pytest.mark.parametrize(
    ("fields", "version", "authority"),
    [
        pytest.param([], b"1.1", None, id="missing"),
        pytest.param([], b"1.1", b"b", id="missing-with-absolute-form"),
        pytest.param([HOST, HOST], b"1.1", None, id="two"),
        pytest.param([HOST, HOST], b"1.0", b"b", id="two-http-1.0"),
        pytest.param([(b"Host", b"")], b"1.1", None, id="empty"),
        pytest.param([(b"Host", b"")], b"1.0", None, id="empty-http-1.0"),
        pytest.param([(b"Host", b"a b")], b"1.1", None, id="invalid"),
        pytest.param([(b"Host", b"a b")], b"1.1", b"b", id="invalid-with-absolute-form"),
    ],
)
def test_host_ambiguous_or_invalid_is_refused(
    fields: list[Field], version: bytes, authority: bytes | None
) -> None:
    """RFC 9112 section 3.2: a server MUST answer 400 to these."""
    with pytest.raises(InvalidRequest):
        read_host(fields, version, authority)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([], (None, False), id="no-body"),
        pytest.param([(b"content-length", b"7")], (7, False), id="length"),
        pytest.param([(b"Content-Length", b"0")], (0, False), id="zero"),
        pytest.param([(b"Content-Length", b"0" * 5000 + b"7")], (7, False), id="leading-zeros"),
        pytest.param([CHUNKED], (None, True), id="chunked"),
        pytest.param([(b"transfer-encoding", b"Chunked")], (None, True), id="chunked-any-case"),
    ],
)
def test_body_length_plain_is_read(fields: list[Field], expected: tuple[int | None, bool]) -> None:
    """One length or one coding says where the body ends; neither: there is none."""
    assert read_body_length(fields, b"1.1", LIMITS) == expected


@pytest.mark.parametrize("value", [b"1001", b"9" * 19, b"%d" % 2**64, b"9" * 5000], ids=len)
def test_body_length_over_the_limit_is_refused_as_too_large(value: bytes) -> None:
    """A valid length over the limit is 413, however many digits it has."""
    with pytest.raises(BodyTooLarge):
        read_body_length([(b"Content-Length", value)], b"1.1", LIMITS)


@pytest.mark.parametrize(
    "value", [b"", b"+1", b"-1", b"0x1", b"1,1", b"1, 2", b"1 1", b"1_0", b"1.0", b"a"], ids=str
)
def test_body_length_not_plain_digits_is_refused(value: bytes) -> None:
    """Content-Length is 1*DIGIT and nothing else (RFC 9110 section 8.6)."""
    with pytest.raises(InvalidRequest):
        read_body_length([(b"Content-Length", value)], b"1.1", LIMITS)


@pytest.mark.parametrize(
    "value", [b"", b"identity", b"gzip, chunked", b"chunked, chunked", b"chunked,", b"x"], ids=str
)
def test_transfer_coding_other_than_chunked_is_refused(value: bytes) -> None:
    """Chunked, once, is the one coding that is taken (RFC 9112 section 6.1)."""
    with pytest.raises(InvalidRequest):
        read_body_length([(b"Transfer-Encoding", value)], b"1.1", LIMITS)


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        pytest.param([(b"Content-Length", b"1")] * 2, b"1.1", id="two-equal-lengths"),
        pytest.param([CHUNKED, CHUNKED], b"1.1", id="two-codings"),
        pytest.param([CHUNKED, (b"Content-Length", b"1")], b"1.1", id="both"),
        pytest.param([(b"Content-Length", b"0"), CHUNKED], b"1.1", id="both-with-zero"),
        pytest.param([CHUNKED], b"1.0", id="coding-in-http-1.0"),
    ],
)
def test_body_length_said_twice_is_refused(fields: list[Field], version: bytes) -> None:
    """What could be read in two ways is refused (RFC 9112 sections 6.1 and 6.3)."""
    with pytest.raises(InvalidRequest):
        read_body_length(fields, version, LIMITS)


@pytest.mark.parametrize(
    ("values", "version", "expected"),
    [
        pytest.param([], b"1.1", False, id="none"),
        pytest.param([b"100-continue"], b"1.1", True, id="continue"),
        pytest.param([b"100-Continue"], b"1.1", True, id="any-case"),
        pytest.param([b"100-continue", b"100-continue"], b"1.1", True, id="twice"),
        pytest.param([b""], b"1.1", False, id="empty"),
        pytest.param([b"100-continue"], b"1.0", False, id="http-1.0"),
        pytest.param([b"x"], b"1.0", False, id="other-in-http-1.0"),
    ],
)
def test_expect_is_100_continue_or_nothing(
    values: list[bytes], version: bytes, expected: bool
) -> None:
    """HTTP/1.1 knows one expectation; in HTTP/1.0 all are ignored (RFC 9110 section 10.1.1)."""
    assert expects_continue([(b"Expect", value) for value in values], version) is expected


@pytest.mark.parametrize("value", [b"x", b"100-continue, x", b"100-continue=1"], ids=str)
def test_expect_anything_else_is_refused(value: bytes) -> None:
    """An expectation that we cannot meet is refused."""
    with pytest.raises(InvalidRequest):
        expects_continue([(b"Expect", value)], b"1.1")


@pytest.mark.parametrize(
    ("values", "version", "expected"),
    [
        pytest.param([], b"1.1", True, id="none"),
        pytest.param([b"keep-alive"], b"1.1", True, id="keep-alive"),
        pytest.param([b"close"], b"1.1", False, id="close"),
        pytest.param([b"x, Close"], b"1.1", False, id="close-in-a-list"),
        pytest.param([b"x", b"\tCLOSE ,"], b"1.1", False, id="close-in-a-second-field"),
        pytest.param([b"keep-alive, close"], b"1.1", False, id="both"),
        pytest.param([b"closed, not-close"], b"1.1", True, id="other-words"),
        pytest.param([], b"1.0", False, id="none-in-http-1.0"),
        pytest.param([b"Keep-Alive"], b"1.0", True, id="keep-alive-in-http-1.0"),
        pytest.param([b"keep-alive", b"close"], b"1.0", False, id="both-in-http-1.0"),
    ],
)
def test_connection_outlives_the_request_unless_it_says_close(
    values: list[bytes], version: bytes, expected: bool
) -> None:
    """HTTP/1.1 stays open unless `close`, HTTP/1.0 with `keep-alive` only (RFC 9112 9.3)."""
    assert keeps_alive([(b"connection", value) for value in values], version) is expected


def test_handed_on_fields_keep_order_and_spelling() -> None:
    """Fields that decide nothing here are unchanged, repeated ones too."""
    fields = [(b"X-b", b"1"), HOST, (b"x-A", b"2"), (b"X-b", b"3")]
    assert fields_to_hand_on(fields, b"1.1", b"a", None) == tuple(fields)


def test_handed_on_lengths_have_one_spelling() -> None:
    """Leading zeros and capitals, in which readers may differ, are gone."""
    assert fields_to_hand_on([(b"content-length", b"007")], b"1.0", None, 7) == (
        (b"content-length", b"7"),
    )
    assert fields_to_hand_on(
        [(b"TE", b"x"), (b"transfer-encoding", b"CHUNKED")], b"1.1", None, None
    ) == (
        (b"TE", b"x"),
        (b"transfer-encoding", b"chunked"),
    )


def test_handed_on_host_is_replaced_in_place() -> None:
    """The one Host is where it was, and first where there was none."""
    assert fields_to_hand_on([(b"X", b"1"), (b"host", b"a")], b"1.1", b"b", None) == (
        (b"X", b"1"),
        (b"host", b"b"),
    )
    assert fields_to_hand_on([(b"X", b"1")], b"1.0", b"b", None) == ((b"Host", b"b"), (b"X", b"1"))


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        pytest.param(b"Upgrade", [], id="only"),
        pytest.param(b"Upgrade, HTTP2-Settings", [], id="both"),
        pytest.param(b"close , upgrade", [(b"Connection", b"close")], id="other-first"),
        pytest.param(b"upgrade,Keep-Alive", [(b"Connection", b"Keep-Alive")], id="other-last"),
        pytest.param(b"a, b", [(b"Connection", b"a, b")], id="others"),
    ],
)
def test_handed_on_fields_have_nothing_of_an_upgrade(
    connection: bytes, expected: list[Field]
) -> None:
    """Upgrade is ignored, which RFC 9110 section 7.8 allows; the application never sees it."""
    fields = [(b"Connection", connection), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"A")]
    assert fields_to_hand_on(fields, b"1.1", None, None) == tuple(expected)


def test_handed_on_expect_is_kept_in_http_1_1_only() -> None:
    """An HTTP/1.0 client never waits for 100 Continue."""
    expect = (b"Expect", b"100-continue")
    assert fields_to_hand_on([expect], b"1.1", None, None) == (expect,)
    assert fields_to_hand_on([expect], b"1.0", None, None) == ()
