"""What is shown of one exchange: its text, bounded, and what is new of it."""

from __future__ import annotations

import json

import pytest

from proxy.core.status.text import Piece
from proxy.runtime.exchange import Exchange
from proxy.web.status.shown import Shown
from tests.web.status.staged_hub import CHAT, chunk, event


def exchange(route: str | None = CHAT) -> Exchange:
    """Return one that runs nowhere."""
    return Exchange("r1", route or "/", "POST", 0.0, upstream_route=route)


def shown(of: Exchange | None = None) -> Shown:
    """Return what is shown of one."""
    return Shown(of or exchange(), content=True)


def test_new_text_is_read_once() -> None:
    """And is part of the whole from then on."""
    found = shown()
    found.take(event("a"))
    found.take(event("b"))
    assert found.read() == [Piece("text", "ab")]
    assert found.read() == []
    found.take(event("c"))
    assert found.read() == [Piece("text", "c")]
    assert found.texts == {"text": "abc", "thought": ""}


def test_half_an_event_is_read_when_it_is_whole() -> None:
    """However it is cut."""
    found, data = shown(), event("äöü")
    read = []
    for at in range(len(data)):
        found.take(data[at : at + 1])
        read += found.read()
    assert read == [Piece("text", "äöü")]


def test_pieces_change_between_text_and_thought() -> None:
    """Neighbours of a kind are one piece."""
    found = shown()
    for kind in ("reasoning_content", "reasoning_content", "content", "reasoning_content"):
        found.take(event("a", kind))
    assert found.read() == [Piece("thought", "aa"), Piece("text", "a"), Piece("thought", "a")]
    assert found.texts == {"text": "a", "thought": "aaa"}


def test_chunk_framing_is_no_text() -> None:
    """Pieces come with it or without."""
    found = shown()
    found.take(chunk(event("a")) + chunk(event("b")))
    found.take(event("c"))
    found.take(chunk(event("d")))
    assert found.read() == [Piece("text", "abcd")]


def test_what_passed_before_is_part_of_the_text() -> None:
    """It is not new."""
    of = exchange()
    of.passing.note(chunk(event("a")))
    of.passing.note(event("b"))
    found = shown(of)
    assert found.texts["text"] == "ab"
    assert not found.cut
    assert found.read() == []


def test_what_passed_before_and_is_half_is_read_with_its_rest() -> None:
    """At the seam nothing is missing and nothing twice."""
    of, data = exchange(), event("b")
    of.passing.note(event("a") + data[:20])
    found = shown(of)
    found.take(data[20:])
    assert found.read() == [Piece("text", "b")]
    assert found.texts["text"] == "ab"


def test_what_is_not_kept_any_more_is_said_to_be_cut() -> None:
    """The end of what passed is there."""
    of = exchange()
    for number in range(100):
        of.passing.note(event(f"{number} "))
    found = shown(of)
    assert found.cut
    assert found.texts["text"].endswith(" 98 99 ")


def test_text_keeps_its_end() -> None:
    """64 Ki characters of each kind."""
    found = shown()
    found.take(event("a" * 65_536))
    found.read()
    assert not found.cut
    found.take(event("b"))
    assert found.read() == [Piece("text", "b")]
    assert len(found.texts["text"]) == 65_536
    assert found.texts["text"].endswith("ab")
    assert found.cut


def test_unread_bytes_are_bounded() -> None:
    """One that is faster than it is read loses some, which is said."""
    found = shown()
    for _ in range(100):
        found.take(b"x" * 20_000)
        assert found._unread_bytes <= 1024 * 1024
    assert found.cut


def test_without_content_nothing_is_read() -> None:
    """Not even what passed before."""
    of = exchange()
    of.passing.note(event("secret"))
    found = Shown(of, content=False)
    assert found.texts == {"text": "", "thought": ""}
    assert not found.cut


def test_route_is_looked_at_when_something_passes() -> None:
    """What a request asks for is not known when its exchange begins."""
    of = exchange(None)
    found = shown(of)
    of.upstream_route = "/completion"
    found.take(b"data: " + json.dumps({"content": "a"}).encode() + b"\n\n")
    assert found.read() == [Piece("text", "a")]


@pytest.mark.parametrize("route", [None, "/v1/embeddings"])
def test_route_that_generates_no_text_has_none(route: str | None) -> None:
    """Whatever passes."""
    found = shown(exchange(route))
    found.take(event("a"))
    assert found.read() == []


def test_end_takes_the_watch_away() -> None:
    """Nobody is told any more."""
    of = exchange()
    found = shown(of)
    of.passing.watch = found.take
    found.end()
    assert of.passing.watch is None
