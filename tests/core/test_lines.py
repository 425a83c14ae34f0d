"""Tests for the strict line reader and the shape of a field line."""

from __future__ import annotations

import pytest

from proxy.core.errors import HeadTooLarge, InvalidRequest
from proxy.core.lines import LineReader, split_field_line


def too_long() -> HeadTooLarge:
    """Return the error that these tests use for a line over the limit."""
    return HeadTooLarge("too long")


def reader_of(data: bytes) -> LineReader:
    """Return a reader that has received `data`."""
    reader = LineReader()
    reader.receive(data)
    return reader


def test_take_line_complete_gives_it_without_crlf_and_leaves_the_rest() -> None:
    """A line is given out without its CRLF; what follows stays."""
    reader = reader_of(b"one\r\ntwo\r\n")
    assert reader.take_line(100, too_long) == b"one"
    assert reader.take_line(100, too_long) == b"two"
    assert len(reader) == 0


def test_take_line_incomplete_waits_also_for_the_lf() -> None:
    """Without its whole CRLF a line is not complete."""
    reader = LineReader()
    for byte in (b"o", b"ne", b"\r"):
        reader.receive(byte)
        assert reader.take_line(100, too_long) is None
    reader.receive(b"\n")
    assert reader.take_line(100, too_long) == b"one"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"a\n", "bare LF", id="lf"),
        pytest.param(b"\n", "bare LF", id="lf-first"),
        pytest.param(b"a\rb", "bare CR", id="cr"),
        pytest.param(b"a\r\r\n", "bare CR", id="cr-cr-lf"),
        pytest.param(b"a\x00", "control", id="nul"),
        pytest.param(b"a\x0b", "control", id="vertical-tab"),
        pytest.param(b"a\x1f", "control", id="unit-separator"),
        pytest.param(b"a\x7f", "control", id="delete"),
    ],
)
def test_take_line_with_a_faulty_byte_is_refused_at_that_byte(data: bytes, words: str) -> None:
    """A faulty byte is refused before the line it stands in is complete."""
    with pytest.raises(InvalidRequest, match=words):
        reader_of(data).take_line(100, too_long)


def test_take_line_with_tab_and_obs_text_is_taken() -> None:
    """HTAB and bytes over 0x7F may stand in a line; what they mean is for others to say."""
    assert reader_of(b"a\t\x80\xff\r\n").take_line(100, too_long) == b"a\t\x80\xff"


def test_take_line_at_the_limit_is_taken_and_one_byte_over_is_not() -> None:
    """The limit counts the CRLF."""
    assert reader_of(b"abc\r\n").take_line(5, too_long) == b"abc"
    with pytest.raises(HeadTooLarge):
        reader_of(b"abcd\r\n").take_line(5, too_long)


def test_take_line_without_end_is_refused_before_it_ends() -> None:
    """A line that cannot fit any more is refused without waiting for its end."""
    with pytest.raises(HeadTooLarge):
        reader_of(b"abcd").take_line(5, too_long)


def test_take_ignores_what_the_bytes_are() -> None:
    """A run of a known length may have any bytes; the search for a line starts anew behind it."""
    reader = reader_of(b"x")
    assert reader.take_line(100, too_long) is None
    reader.receive(b"\x00\nyz\r\n")
    assert reader.take(3) == b"x\x00\n"
    assert reader.take_line(100, too_long) == b"yz"
    assert reader.take(5) == b""


def test_clear_drops_everything() -> None:
    """After `clear` the reader is as new."""
    reader = reader_of(b"abc")
    assert reader.take_line(100, too_long) is None
    reader.clear()
    reader.receive(b"\r\n")
    assert reader.take_line(100, too_long) == b""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"Name: value", (b"Name", b"value"), id="plain"),
        pytest.param(b"nAmE:value", (b"nAmE", b"value"), id="spelling-kept"),
        pytest.param(b"a: \t b c\t ", (b"a", b"b c"), id="outer-white-space"),
        pytest.param(b"a:", (b"a", b""), id="empty-value"),
        pytest.param(b"a:b:c", (b"a", b"b:c"), id="first-colon"),
        pytest.param(b"!#$%&'*+-.^_`|~09: x", (b"!#$%&'*+-.^_`|~09", b"x"), id="every-tchar"),
    ],
)
def test_split_field_line_valid_gives_name_and_value(
    line: bytes, expected: tuple[bytes, bytes]
) -> None:
    """A field line is a token, a colon, and a value without the white space around it."""
    assert split_field_line(line) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b" a: b", "begins with white space", id="obs-fold"),
        pytest.param(b"\ta: b", "begins with white space", id="obs-fold-tab"),
        pytest.param(b"ab", "no colon", id="no-colon"),
        pytest.param(b"a : b", "white space before", id="space-before-colon"),
        pytest.param(b"a\t: b", "white space before", id="tab-before-colon"),
        pytest.param(b": b", "name", id="empty-name"),
        pytest.param(b"a b: c", "name", id="space-in-name"),
        pytest.param(b"a@: b", "name", id="delimiter-in-name"),
        pytest.param(b"\xe9: b", "name", id="non-ascii-name"),
    ],
)
def test_split_field_line_malformed_is_refused(line: bytes, words: str) -> None:
    """What RFC 9112 section 5 does not allow is refused with a sentence that says what it is."""
    with pytest.raises(InvalidRequest, match=words):
        split_field_line(line)
