"""One stream on its way between two sockets: what is received, made of it, sent and left over.

Owns the steps of a flow. Each is one system call or two and says what the flow waits for next; who
waits, and how, is the pump's (`runtime.pump`). What becomes of the bytes is the passage's.
"""

from __future__ import annotations

import math
import socket
from enum import Enum, auto
from typing import Protocol

from proxy.core.errors import ProxyError

# A token's event is 200 to 300 bytes; this is what an upstream that is ahead hands over at once. Of
# a client that does not read, so much is held and no more.
READ_SIZE = 64 * 1024


class PumpError(ProxyError):
    """A flow did not come to its proper end."""


class SourceBroken(PumpError):
    """The source closed or broke before the stream's proper end."""


class SourceMalformed(PumpError):
    """The passage did not understand the source."""


class SinkGone(PumpError):
    """The sink hung up or broke."""


class SinkStalled(PumpError):
    """The sink took no byte for the send timeout."""


class Passage(Protocol):
    """What becomes of a flow's bytes between its source and its sink."""

    over: bool
    """Whether nothing more is to come: the flow then ends as soon as all is sent."""

    @property
    def complete(self) -> bool:
        """Whether it is over because the stream's proper end has come, and not misunderstood."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Return what is to be sent for what was received; may be empty."""
        ...

    def end(self) -> bool:
        """Take the end of the source; return whether it is the stream's proper end."""
        ...


class Unchanged:
    """The passage of a flow whose bytes are the sink's as they are, to the source's end."""

    over = False
    complete = False

    def feed(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def end(self) -> bool:
        """Take the end of the source."""
        return True


class Wish(Enum):
    """What a flow waits for."""

    SOURCE = auto()
    SINK = auto()
    NOTHING = auto()


class Flow:
    """One stream on its way from a source to a sink; one use.

    Args:
        source: A connected non-blocking stream socket to read from.
        sink: One to write to, to which nobody else writes meanwhile.
        passage: What becomes of the bytes.
        send_timeout_s: How long the sink may take no byte while there are some for it, in seconds.

    Attributes:
        torn: Whether the sink has the beginning of something whose rest was not sent: nothing can
            be added to it any more.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        passage: Passage | None = None,
        *,
        send_timeout_s: float = math.inf,
    ) -> None:
        self.source = source
        self.sink = sink
        self.passage: Passage = Unchanged() if passage is None else passage
        self.send_timeout_s = send_timeout_s
        self.torn = False
        self._error: Exception | None = None
        self._pending = memoryview(b"")

    def begin(self) -> Wish:
        """Tell what it waits for first: nothing, if its passage is over already."""
        return self._go_on()

    def advance_source(self, buffer: memoryview) -> Wish:
        """Receive once, and send what came of it.

        Args:
            buffer: To receive into. What is kept of an event is then as large as the event: a piece
                that was received as up to 64 KiB leaves a hole of that size in the heap.
        """
        try:
            taken = self.source.recv_into(buffer)
        except BlockingIOError:
            return Wish.SOURCE
        except OSError as error:
            return self._fail(SourceBroken("the source broke"), error)
        if not taken:
            return self._end_source()
        out = self.passage.feed(bytes(buffer[:taken]))
        return self._send(out) if out else self._go_on()

    def advance_sink(self) -> Wish:
        """Send what is left of what was received."""
        # Once it is sent, nobody holds it any more.
        pending, self._pending = self._pending, memoryview(b"")
        return self._send(pending)

    def hang_up(self) -> Wish:
        """Take that the sink's peer is gone."""
        return self._fail(SinkGone("the sink hung up"), None)

    def stop_for(self, defect: Exception) -> Wish:
        """Take what its passage raised, for `result` to raise again."""
        return self._fail(defect, defect.__cause__)

    def result(self) -> None:
        """Raise what ended it, if it was no proper end.

        Raises:
            PumpError: See the subclasses.
        """
        if self._error is not None:
            raise self._error

    def _send(self, out: bytes | memoryview) -> Wish:
        try:
            taken = self.sink.send(out)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            return self._fail(SinkGone("the sink broke"), error)
        if taken < len(out):
            self._pending = memoryview(out)[taken:]
            self.torn = self.torn or taken > 0
            return Wish.SINK
        self.torn = False
        return self._go_on()

    def _go_on(self) -> Wish:
        passage = self.passage
        if not passage.over:
            return Wish.SOURCE
        if passage.complete:
            return Wish.NOTHING
        return self._fail(SourceMalformed("the source was not understood"), None)

    def _end_source(self) -> Wish:
        if self.passage.end():
            return Wish.NOTHING
        return self._fail(SourceBroken("the source closed before the stream's end"), None)

    def _fail(self, error: Exception, cause: BaseException | None) -> Wish:
        self._error = error
        error.__cause__ = cause
        return Wish.NOTHING
