"""What is shown of one exchange while somebody watches: its text so far, and what is new of it.

Owns the text, bounded, and the reading of what passes. It is read when viewers are told, and not
as it passes: then an event costs an append.
"""

from __future__ import annotations

from proxy.core.status.rate import LiveRate
from proxy.core.status.text import Piece, TextReader
from proxy.runtime.exchange import Exchange

# What a page shows of an answer: more is read elsewhere.
_MAX_TEXT = 64 * 1024
# What passes in the time between two readings; one that is faster is shown with gaps.
_MAX_UNREAD = 1024 * 1024


class Shown:
    """What is shown of one exchange.

    Args:
        exchange: Which; what has passed of it before is shown as far as it is kept.
        content: Whether its text is shown.

    Attributes:
        rate: Its tokens per second.
        texts: Its text so far by kind, `text` and `thought`; the beginning may be missing.
        cut: Whether it is.
    """

    def __init__(self, exchange: Exchange, *, content: bool) -> None:
        self.exchange = exchange
        self.rate = LiveRate()
        self.texts = {"text": "", "thought": ""}
        self.cut = False
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._reader: TextReader | None = None
        self._prompt_told = False
        if content and (recent := exchange.passing.recent):
            # Where more has passed than is kept, it begins somewhere.
            self.cut = exchange.passing.forgotten
            self.take(recent)
            self.read()

    def take_prompt(self) -> bool:
        """Return whether its prompt is to be told now: once, as soon as it is known."""
        if self._prompt_told or self.exchange.about.prompt is None:
            return False
        self._prompt_told = True
        return True

    def take(self, data: bytes) -> None:
        """Take a piece that passes."""
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _MAX_UNREAD:
            self._unread, self._unread_bytes, self.cut = [], 0, True

    def read(self) -> list[Piece]:
        """Read what is new; return it, one piece for each change between text and thought."""
        if not self._unread:
            return []
        if self._reader is None:
            # Not before: what a request asks for is known once it is read.
            self._reader = TextReader(self.exchange.upstream_route or "")
        data, self._unread, self._unread_bytes = b"".join(self._unread), [], 0
        found: list[Piece] = []
        for piece in self._reader.feed(data):
            if found and found[-1].kind == piece.kind:
                found[-1] = Piece(piece.kind, found[-1].text + piece.text)
            else:
                found.append(piece)
        for piece in found:
            whole = self.texts[piece.kind] + piece.text
            self.cut = self.cut or len(whole) > _MAX_TEXT
            self.texts[piece.kind] = whole[-_MAX_TEXT:]
        return found

    def end(self) -> None:
        """Say that nobody watches any more."""
        self.exchange.passing.watch = None
