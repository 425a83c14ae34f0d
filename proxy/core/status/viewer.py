"""What one viewer of the status page is still to be sent.

Owns the order, and what is left out for a viewer that takes less than there is: a status that is no
news any more, and the oldest tokens. So a viewer's memory is bounded and nobody waits for it. It
knows nothing of what is in a frame; a frame is sent whole or not at all.
"""

from __future__ import annotations

from collections import deque

# A minute of a fast stream.
MAX_TOKEN_BYTES = 256 * 1024


class ViewerQueue:
    """The frames that wait for one viewer.

    The first status of all is never replaced: it alone has the texts so far. Any other is replaced
    by the next one, in its place, so that each token stays behind the status that told of its
    exchange first.

    Args:
        max_token_bytes: How much of token frames may wait.

    Attributes:
        lost: How many token frames were left out.
    """

    def __init__(self, max_token_bytes: int = MAX_TOKEN_BYTES) -> None:
        self._max_token_bytes = max_token_bytes
        self._first: bytes | None = None
        self._status = b""
        # The tokens before `_status` and those after it; all are before it while there is none.
        self._before: deque[bytes] = deque()
        self._after: deque[bytes] = deque()
        self._token_bytes = 0
        self.lost = 0

    def put_status(self, frame: bytes) -> None:
        """Have a status sent, instead of the one that waits."""
        if self._first is None:
            self._first = frame
        else:
            self._status = frame

    def put_token(self, frame: bytes) -> None:
        """Have a token sent; the oldest ones are left out where they are too many."""
        (self._after if self._status else self._before).append(frame)
        self._token_bytes += len(frame)
        while self._token_bytes > self._max_token_bytes:
            self._token_bytes -= len((self._before or self._after).popleft())
            self.lost += 1

    def take(self) -> bytes:
        """Return all that waits, in order; it waits no more. Empty where nothing does."""
        frames = [self._first or b"", *self._before, self._status, *self._after]
        if self._first is not None:
            self._first = b""
        self._status = b""
        self._before.clear()
        self._after.clear()
        self._token_bytes = 0
        return b"".join(frames)
