"""What a subscriber of a prediction is sent."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.core.predictions.events import Event, Lagged, Truncated
from proxy.core.sse import EventDecoder


def test_event_wire_is_cogs_frame_with_an_id() -> None:
    """The type and the data are as Cog has them."""
    assert Event(12, "output", b'{"x":1}').wire == b'id: 12\nevent: output\ndata: {"x":1}\n\n'


def test_event_wire_is_read_by_a_client() -> None:
    """Anybody's decoder gets what was put in."""
    (read,) = EventDecoder().feed(Event(7, "log", b'"a\ndata: "'.replace(b"\n", b" ")).wire)
    assert (read.id, read.event, read.data) == ("7", "log", '"a data: "')


@pytest.mark.parametrize("data", [b"", b"{}", b'"data: "', "é".encode()])
def test_event_data_is_what_was_put_in(data: bytes) -> None:
    """It is cut out of the frame."""
    assert Event(1, "start", data).data == data


def test_event_cannot_be_changed() -> None:
    """All subscribers have the same one."""
    event = Event(1, "start", b"{}")
    assert event == Event(1, "start", b"{}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.number = 2  # type: ignore[misc]


def test_truncated_wire_is_cogs() -> None:
    """Cog's text and members, and no id."""
    assert Truncated(1).wire == (
        b"event: error\n"
        b'data: {"error":"SSE stream replay truncated; events were dropped","skipped":1}\n\n'
    )


def test_lagged_wire_is_cogs() -> None:
    """Cog's text and members, and no id."""
    assert Lagged(14418).wire == (
        b"event: error\n"
        b'data: {"error":"SSE stream lagged; events were dropped","skipped":14418}\n\n'
    )


def test_dropped_says_what_and_how_many() -> None:
    """For the log."""
    dropped = Lagged(3)
    assert str(dropped) == "SSE stream lagged; events were dropped"
    assert dropped.skipped == 3
