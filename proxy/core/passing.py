"""What passes of one answer of llama-server's: its last pieces, and a way to watch it.

Owns what is kept of an answer that is passed on: enough to find at its end what it took, and to
show a part of it to somebody who begins to watch. Nothing is parsed here, and as long as nobody
watches a piece costs one append.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

# A token's event has 200 to 400 bytes. So many of them are worth showing to who comes late; large
# pieces are cut, so that it never is more than a third of what promise P4 allows for a client.
_KEPT_PIECES = 24
_KEPT_BYTES_OF_ONE = 4096
# Payload has no CRLF where it was passed on with its framing: llama-server writes none.
_BETWEEN_CHUNKS = re.compile(rb"(?:\A|\r\n)[0-9A-Fa-f]{1,8}\r\n")


class Passing:
    """One answer on its way.

    Attributes:
        forgotten: Whether something has passed that is not kept.
        watch: Called with each piece, as llama-server sent it, chunk framing and all where that is
            passed on too; None while nobody watches. It must not raise.
    """

    __slots__ = ("_pieces", "forgotten", "watch")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque(maxlen=_KEPT_PIECES)
        self.forgotten = False
        self.watch: Callable[[bytes], None] | None = None

    def note(self, data: bytes) -> None:
        """Take a piece that passes; it may be cut anywhere."""
        pieces = self._pieces
        if len(data) > _KEPT_BYTES_OF_ONE:
            pieces.append(data[-_KEPT_BYTES_OF_ONE:])
            self.forgotten = True
        else:
            self.forgotten = self.forgotten or len(pieces) == _KEPT_PIECES
            pieces.append(data)
        if self.watch is not None:
            self.watch(data)

    @property
    def recent(self) -> bytes:
        """The last pieces, without chunk framing; the beginning may be anywhere in an event."""
        return _BETWEEN_CHUNKS.sub(b"", b"".join(self._pieces))

    def tail(self, size: int) -> bytes:
        """Return the last bytes.

        Args:
            size: How many, at most `_KEPT_BYTES_OF_ONE`.
        """
        return self.recent[-size:]
