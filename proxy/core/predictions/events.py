"""What a subscriber of a prediction is sent: its events, and the frame that ends a broken stream.

Owns the frames as bytes. Knows nothing of what an event means
or which are held (`core.predictions.event_log`).

Source: coglet 0.23.1 for frames and texts; the ids are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.core.errors import ProxyError
from proxy.core.predictions.shapes import to_json


class EventsDropped(ProxyError):
    """What a subscriber should get next is no longer held: its stream ends with this.

    Args:
        skipped: How many events it misses, from 1.
    """

    text: ClassVar[str]

    def __init__(self, skipped: int) -> None:
        super().__init__(self.text)
        self.skipped = skipped

    @property
    def wire(self) -> bytes:
        """The last frame of the stream.

        It has no id: a client that comes back with the last one it has resumes where it was.
        """
        data = to_json({"error": self.text, "skipped": self.skipped})
        return b"event: error\ndata: %s\n\n" % data


class Truncated(EventsDropped):
    """It was gone when the subscriber came; `skipped` counts what was gone by then."""

    text = "SSE stream replay truncated; events were dropped"


class Lagged(EventsDropped):
    """It went while the subscriber was there; `skipped` counts what has gone up to now."""

    text = "SSE stream lagged; events were dropped"


@dataclass(frozen=True, slots=True, init=False)
class Event:
    """One event.

    Args:
        number: Its place, from 1: the frame's id.
        name: Its type, one line.
        data: Its data, one line.

    Attributes:
        number: Its place, from 1.
        name: Its type.
        wire: The whole frame, made once for all subscribers.
    """

    number: int
    name: str
    wire: bytes

    def __init__(self, number: int, name: str, data: bytes) -> None:
        wire = b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), data)
        object.__setattr__(self, "number", number)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "wire", wire)

    @property
    def data(self) -> bytes:
        """The data alone, cut out of the frame, which is all that is held."""
        return bytes(self.view_data())

    def view_data(self) -> memoryview:
        """Return the data within the frame: the same bytes for all who look at them."""
        field = b"\ndata: "
        return memoryview(self.wire)[self.wire.index(field) + len(field) : -2]
