"""The exchanges that ended last, in memory only.

Owns how many are kept and what is told of one. Nothing that people or the model wrote is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One exchange that has ended; docs/status.md says what each member means."""

    request_id: str
    route: str
    model: str | None
    cause: str
    ended_at: float
    prefill_tokens: int
    cached_tokens: int
    prefill_tokens_per_second: float | None
    decode_tokens: int
    decode_tokens_per_second: float | None
    acceptance: float | None
    first_token_s: float | None
    total_s: float
    tags: tuple[str, ...]

    def as_object(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "request_id": self.request_id,
            "route": self.route,
            "model": self.model,
            "cause": self.cause,
            "ended_at": self.ended_at,
            "prefill_tokens": self.prefill_tokens,
            "cached_tokens": self.cached_tokens,
            "prefill_tokens_per_second": self.prefill_tokens_per_second,
            "decode_tokens": self.decode_tokens,
            "decode_tokens_per_second": self.decode_tokens_per_second,
            "acceptance": self.acceptance,
            "first_token_s": self.first_token_s,
            "total_s": self.total_s,
            "tags": list(self.tags),
        }


class History:
    """The last exchanges.

    Args:
        max_count: How many are kept, at least 1.
    """

    def __init__(self, max_count: int = 50) -> None:
        self._entries: deque[HistoryEntry] = deque(maxlen=max_count)

    def add(self, entry: HistoryEntry) -> None:
        """Keep an entry, and forget the oldest one where they are too many."""
        self._entries.append(entry)

    @property
    def entries(self) -> tuple[HistoryEntry, ...]:
        """What is kept, oldest first."""
        return tuple(self._entries)
