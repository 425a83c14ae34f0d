"""What passes of one answer of llama-server's."""

from __future__ import annotations

import tracemalloc

import pytest

from proxy.core.passing import Passing
from tests.core.chunked_streams import chunk


@pytest.mark.parametrize("again", [1, 100])
@pytest.mark.parametrize("framed", [True, False])
def test_tail_is_the_last_bytes_without_framing(again: int, framed: bool) -> None:
    """Of whatever passed, in pieces of its own or several at once."""
    event = b"data: 0123456789\n\n"
    passing = Passing()
    passing.note((chunk(event) if framed else event) * again)
    assert passing.tail(12).removesuffix(b"\r\n").endswith(b"456789\n\n")


def test_recent_is_of_several_events() -> None:
    """A last event without a token does not hide the one that tells them."""
    passing = Passing()
    for number in range(10):
        passing.note(chunk(b"%d\n\n" % number))
    assert passing.recent == b"".join(b"%d\n\n" % number for number in range(10)) + b"\r\n"


def test_what_is_kept_of_a_long_stream_is_bounded() -> None:
    """Its last events, and not those before (promise P4); of a large piece its end."""
    passing = Passing()
    tracemalloc.start()
    try:
        for number in range(1000):
            passing.note(b"data: %d%b\n\n" % (number, b"x" * 40_000))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200_000
    assert passing.recent.endswith(b"x\n\n")


def test_watch_gets_each_piece_as_it_passes() -> None:
    """From when it is there until it is taken away."""
    passing, seen = Passing(), list[bytes]()
    passing.note(b"a")
    passing.watch = seen.append
    passing.note(b"b")
    passing.watch = None
    passing.note(b"c")
    assert (seen, passing.recent) == ([b"b"], b"abc")
