"""The predictions that are over and still kept.

Owns which of them are, by age, number and bytes. It keeps them for those who ask again with an id:
nothing runs twice then. Knows nothing of those that run.

They all are kept equally long, so the oldest expires first, and no call looks at more than it
drops.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.core.predictions.prediction import Prediction

Key = TypeVar("Key", bound=Hashable)

# What the interface promises.
KEEP_S = 600.0
MAX_COUNT = 1000
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    prediction: Prediction
    size: int
    expires_at: float


class FinishedPredictions(Generic[Key]):
    """The finished predictions by key: an id, or whatever tells them apart.

    Args:
        keep_s: How long each is kept, in seconds, from 0 (nothing is).
        max_count: How many are kept, from 0.
        max_bytes: How many bytes all of them may hold, from 0.
    """

    def __init__(
        self, keep_s: float = KEEP_S, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES
    ) -> None:
        self._keep_s = keep_s
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._size = 0

    @property
    def count(self) -> int:
        """How many are kept."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """The bytes that they hold."""
        return self._size

    def __iter__(self) -> Iterator[Prediction]:
        return (kept.prediction for kept in self._kept.values())

    def add(self, key: Key, prediction: Prediction, now: float) -> bool:
        """Keep a prediction; the oldest ones go where it would be too many or too much.

        One that alone is over `max_bytes` is not kept, and drives nobody out. Another one with the
        same key is replaced in any case.

        Args:
            key: What it is found by.
            prediction: One that is over.
            now: Monotonic seconds, not before those of the last call.

        Returns:
            Whether it is kept.

        Raises:
            ValueError: It is not over.
        """
        if not prediction.terminal:
            raise ValueError("a prediction that is not over cannot be kept as a finished one")
        self.drop_expired(now)
        if key in self._kept:
            self._drop(key)
        size = prediction.size
        if size > self._max_bytes or not self._max_count or self._keep_s <= 0:
            return False
        while len(self._kept) >= self._max_count or self._size + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = _Kept(prediction, size, now + self._keep_s)
        self._size += size
        return True

    def get(self, key: Key, now: float) -> Prediction | None:
        """Return a prediction that is kept; None where there is none, or it has expired.

        Args:
            key: What it is found by.
            now: Monotonic seconds.
        """
        kept = self._kept.get(key)
        return kept.prediction if kept is not None and now < kept.expires_at else None

    def drop_expired(self, now: float) -> int:
        """Let go of what has expired, and return how many that were.

        Args:
            now: Monotonic seconds.
        """
        before = len(self._kept)
        while self._kept:
            oldest_key, oldest = next(iter(self._kept.items()))
            if now < oldest.expires_at:
                break
            self._drop(oldest_key)
        return before - len(self._kept)

    def next_expiry(self) -> float | None:
        """Return when the next one expires, in monotonic seconds; None where none is kept."""
        return next(iter(self._kept.values())).expires_at if self._kept else None

    def _drop(self, key: Key) -> None:
        self._size -= self._kept.pop(key).size
