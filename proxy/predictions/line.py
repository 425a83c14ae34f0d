"""The line to one client that follows a prediction: written to past its task, while it keeps up.

Owns what becomes of news: written at once where the client's socket takes them; else its task is
woken, which can wait. Waking a task for each event of each client costs three times what the
writing does.

Who writes: the prediction, by `deliver`, while the client's task is in `wait_needed`; its task at
all other times. It never blocks, and never raises into the prediction.
"""

from __future__ import annotations

import socket

import trio

from proxy.core.predictions.event_log import Cursor
from proxy.core.predictions.events import EventsDropped

# What is handed to the kernel at once.
AT_ONCE_BYTES = 64 * 1024


class Line:
    """One client's.

    Args:
        cursor: Its place in the prediction's events.
        sock: Its socket, for chunks of the response's body; None where it cannot be written to
            directly: its task is then woken for all news.
    """

    def __init__(self, cursor: Cursor, sock: socket.socket | None) -> None:
        self._cursor = cursor
        self._socket = sock
        self._needed = trio.Event()
        # Nobody waits yet: it is the task's turn.
        self._needed.set()
        self._silent_since = 0.0
        self._dropped: EventsDropped | None = None
        self._torn = b""
        self._body = b""

    def deliver(self) -> None:
        """Write what is new, or wake the task."""
        if self._needed.is_set():
            return
        if self._socket is None or not self._write(self._socket):
            self._needed.set()

    def wake(self) -> None:
        """Wake the task: what comes now, it has to do."""
        self._needed.set()

    async def wait_needed(self, silence_s: float) -> bool:
        """Let news be written until the task is needed; False where it is for silence.

        Args:
            silence_s: How long nothing may be written before the task is needed, in seconds.

        Raises:
            EventsDropped: The client missed some.

        Cancellation: it is the task's turn again.
        """
        self._needed = trio.Event()
        self._silent_since = trio.current_time()
        try:
            while (due := self._silent_since + silence_s) > trio.current_time():
                with trio.move_on_at(due):
                    await self._needed.wait()
                    break
        finally:
            needed = self._needed.is_set()
            self._needed.set()
        if self._dropped is not None:
            raise self._dropped
        return needed

    def take_torn(self) -> bytes:
        """Return the rest of a chunk that the socket took in part; it comes before all else."""
        torn, self._torn = self._torn, b""
        return torn

    def take_body(self) -> bytes:
        """Return bytes of the body that are to be sent in pieces."""
        body, self._body = self._body, b""
        return body

    def _write(self, sock: socket.socket) -> bool:
        """Write what is new; return whether that is all that was to be done."""
        try:
            events = self._cursor.take(AT_ONCE_BYTES)
        except EventsDropped as dropped:
            self._dropped = dropped
            return False
        if not events:
            return True
        body = events[0].wire if len(events) == 1 else b"".join([each.wire for each in events])
        if len(body) > AT_ONCE_BYTES:
            self._body = body
            return False
        chunk = b"%x\r\n%b\r\n" % (len(body), body)
        try:
            sent = sock.send(chunk)
        except OSError:
            # No room, or no client: the task can wait, and is told.
            sent = 0
        self._silent_since = trio.current_time()
        self._torn = chunk[sent:]
        return not self._torn
