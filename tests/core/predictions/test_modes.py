"""What a request's header says of how a prediction is to be answered."""

from __future__ import annotations

import pytest

from proxy.core.predictions.modes import Mode, last_event_id, mode_of

ASYNC = (b"Prefer", b"respond-async")


def accepting(*values: str) -> list[tuple[bytes, bytes]]:
    """Return a header with one `Accept` line for each value."""
    return [(b"Accept", value.encode()) for value in values]


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "application/json, text/event-stream",
        "text/event-stream;q=0.5, */*",
        "text/event-stream; charset=utf-8",
        "TEXT/Event-Stream",
    ],
)
def test_mode_with_the_event_stream_among_what_is_accepted_is_a_stream(accept: str) -> None:
    """Whatever stands beside it, and in whatever case."""
    assert mode_of(accepting(accept)) is Mode.STREAM


def test_mode_with_the_event_stream_on_a_second_line_is_a_stream() -> None:
    """Lines of one name are one list."""
    assert mode_of(accepting("application/json", "text/event-stream")) is Mode.STREAM


@pytest.mark.parametrize("accept", ["text/*", "*/*", "text/event-streams", "x-text/event-stream"])
def test_mode_without_the_event_stream_itself_is_blocking(accept: str) -> None:
    """A range that has it among others does not ask for it."""
    assert mode_of(accepting(accept)) is Mode.BLOCKING


@pytest.mark.parametrize(
    "prefer", ["respond-async", "respond-async, wait=5", "wait=5,Respond-Async", "respond-async; x"]
)
def test_mode_with_the_preference_is_async(prefer: str) -> None:
    """Whatever other preferences there are."""
    assert mode_of([(b"Prefer", prefer.encode())]) is Mode.ASYNC


def test_mode_with_another_preference_is_blocking() -> None:
    """It is none of those that are known."""
    assert mode_of([(b"prefer", b"wait=5")]) is Mode.BLOCKING


def test_mode_with_both_is_a_stream() -> None:
    """The stream beats the preference."""
    assert mode_of([ASYNC, *accepting("text/event-stream")]) is Mode.STREAM


def test_mode_without_a_header_is_blocking() -> None:
    """The default of Cog."""
    assert mode_of([]) is Mode.BLOCKING


def test_last_event_id_that_is_a_number_is_returned() -> None:
    """It is the number of an event."""
    assert last_event_id([(b"last-event-ID", b"17")]) == 17


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1.5", b"+1", b"\xb2", b"9" * 19])
def test_last_event_id_that_is_none_of_ours_is_ignored(value: bytes) -> None:
    """Then the stream begins at its beginning, and nothing is lost."""
    assert last_event_id([(b"Last-Event-ID", value)]) is None


def test_last_event_id_without_the_header_is_none() -> None:
    """A first connection has none."""
    assert last_event_id([ASYNC]) is None
