"""The event-stream codec."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.sse import Event, EventDecoder, EventTooLarge, comment, encode


def decode(*pieces: bytes, max_event_bytes: int = 1000) -> list[Event]:
    """Return the events of a stream that comes in `pieces`."""
    decoder = EventDecoder(max_event_bytes)
    return [event for piece in pieces for event in decoder.feed(piece)]


def message(data: str, **rest: object) -> Event:
    """Return an event without a type."""
    return Event("message", data, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"data: a\n\n", [message("a")], id="one event"),
        pytest.param(b"data:a\n\n", [message("a")], id="no blank after the colon"),
        pytest.param(b"data:  a\n\n", [message(" a")], id="only one blank is removed"),
        pytest.param(b"data: a: b\n\n", [message("a: b")], id="the first colon divides"),
        pytest.param(b"data: a\ndata: b\n\n", [message("a\nb")], id="data lines are joined"),
        pytest.param(b"data\n\n", [message("")], id="a name alone has an empty value"),
        pytest.param(b"data:\ndata:\n\n", [message("\n")], id="two empty lines"),
        pytest.param(b"data: a\n", [], id="an unfinished event is none"),
        pytest.param(b"data: a", [], id="an unfinished line is none"),
        pytest.param(b"event: e\n\ndata: a\n\n", [message("a")], id="a type without data is lost"),
        pytest.param(b"event: e\ndata: a\n\n", [Event("e", "a")], id="type"),
        pytest.param(b"event: e\nevent:\ndata: a\n\n", [message("a")], id="empty type"),
        pytest.param(b": hello\n\ndata: a\n:\n\n", [message("a")], id="comments"),
        pytest.param(b"odd: 1\nDATA: x\ndata: a\n\n", [message("a")], id="unknown fields"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [message("a")], id="BOM"),
        pytest.param(b"\n\xef\xbb\xbfdata: a\n\n", [], id="a BOM later on is a character"),
        pytest.param(b"data: \xff\n\n", [message("\ufffd")], id="malformed UTF-8"),
        pytest.param(b"data: a\r\rdata: b\r\n\r\n", [message("a"), message("b")], id="CR and CRLF"),
        pytest.param(
            b"data: a\x0b\x0cb\xe2\x80\xa8\n\n", [message("a\v\fb\u2028")], id="other ends"
        ),
        pytest.param(
            b"id: 1\ndata: a\n\ndata: b\n\n",
            [message("a", id="1"), message("b", id="1")],
            id="an id lasts",
        ),
        pytest.param(b"id: 1\nid\ndata: a\n\n", [message("a", id="")], id="an id is reset"),
        pytest.param(
            b"id: 1\n\ndata: a\n\n", [message("a", id="1")], id="an id without data counts"
        ),
        pytest.param(b"id: 1\nid: a\0b\ndata: a\n\n", [message("a", id="1")], id="no NUL in an id"),
        pytest.param(b"retry: 20\ndata: a\n\n", [message("a")], id="retry is ignored"),
    ],
)
@pytest.mark.parametrize("cut", ["whole", "bytes"])
def test_feed_stream_gives_events(cut: str, stream: bytes, events: list[Event]) -> None:
    """A stream gives the same events at once and byte by byte."""
    pieces = [stream] if cut == "whole" else [bytes([byte]) for byte in stream]
    assert decode(*pieces, max_event_bytes=10_000) == events


def test_feed_crlf_cut_in_two_is_one_line_end() -> None:
    """The LF of a CR LF that was cut does not end a second line."""
    assert decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [message("a\nb")]


def test_feed_cr_ends_an_event_at_once() -> None:
    """An event that ends with CR does not wait for the next byte."""
    assert decode(b"data: a\r\r") == [message("a")]


def test_feed_event_at_the_limit_passes() -> None:
    """The limit counts the bytes of the event's lines, with their ends."""
    assert decode(b"data: aaaa\n\n", max_event_bytes=12) == [message("aaaa")]


@pytest.mark.parametrize(
    "stream", [b"data: aaaaa\n\n", b"a" * 13, b"data\n" * 3, b": aaaaaaaaaaa"], ids=repr
)
def test_feed_beyond_the_limit_raises(stream: bytes) -> None:
    """A line without an end, many lines and a long one are bounded alike."""
    with pytest.raises(EventTooLarge, match="12 bytes"):
        decode(*[bytes([byte]) for byte in stream], max_event_bytes=12)


def test_feed_events_and_comments_do_not_add_up() -> None:
    """The limit is for one event: neither the events before nor heartbeats count."""
    assert len(decode(*[b"data: aaaa\n\n"] * 5, max_event_bytes=12)) == 5
    assert decode(*[b": ping\n"] * 50, b"data: a\n\n", max_event_bytes=12) == [message("a")]
    assert decode(*[b": ping\r\n"] * 50, b"data: a\n\n", max_event_bytes=12) == [message("a")]


def test_encode_all_fields_in_bytes() -> None:
    """Id and type come before the data."""
    assert encode("a\nb", event="e", id="7") == b"id: 7\nevent: e\ndata: a\ndata: b\n\n"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_encode_line_end_in_type_or_id_is_an_error(end: str) -> None:
    """Nothing can be smuggled into the stream through a name."""
    with pytest.raises(ValueError, match="one line"):
        encode("", event=f"a{end}b")
    with pytest.raises(ValueError, match="one line"):
        encode("", id=f"a{end}b")


def test_encode_nul_in_id_is_an_error() -> None:
    """A reader would ignore such an id."""
    with pytest.raises(ValueError, match="NUL"):
        encode("", id="a\0b")


@pytest.mark.parametrize(
    ("text", "written"), [("", b": \n\n"), ("queued", b": queued\n\n"), ("a\r\nb", b": a\n: b\n\n")]
)
def test_comment_is_no_event(text: str, written: bytes) -> None:
    """A comment shows nowhere, whatever its lines are."""
    assert comment(text) == written
    assert decode(comment(text)) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
LINE = TEXT.filter(lambda text: not {"\r", "\n", "\0"} & set(text))


@given(TEXT, st.none() | LINE.filter(bool), st.none() | LINE, st.lists(st.integers(0, 400)))
def test_decoding_what_was_encoded_gives_it_back_however_it_is_cut(
    data: str,
    event: str | None,
    event_id: str | None,
    cuts: list[int],
) -> None:
    """The codec loses nothing but the spelling of line ends."""
    raw = comment(data) + encode(data, event, event_id)
    marks = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in pairwise(marks)]
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert decode(*pieces) == [Event(event or "message", lines, event_id)]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_feed_any_bytes_do_not_depend_on_the_cut(stream: bytes, cut: int) -> None:
    """Garbage gives the same events wherever it is cut."""
    assert decode(stream) == decode(stream[:cut], stream[cut:])
