"""The metrics of one prediction.

Owns how one is changed, and the object that they make in a snapshot. Knows nothing of what is
measured.

Source: coglet 0.23.1: three modes, and dots in a name that nest.
"""

from __future__ import annotations

import math
from enum import StrEnum

from proxy.core.sound_text import sound_text

Scalar = int | float | str


class MetricMode(StrEnum):
    """What becomes of the value that a metric already has."""

    REPLACE = "replace"
    INCREMENT = "increment"
    APPEND = "append"


class Metrics:
    """The metrics by name. How many there are, and how long a list grows, is for its writer."""

    def __init__(self) -> None:
        self._values: dict[str, Scalar | list[Scalar]] = {}

    def add(self, name: str, value: Scalar, mode: MetricMode) -> bool:
        """Change a metric.

        What does not fit changes nothing: a number that is not finite, for which JSON has no word;
        a whole one that is longer than 64 bits, which few readers know; and a mode that the present
        value cannot be in.

        Args:
            name: Its name; `a.b` is the member `b` of `a`.
            value: A number, or a text.
            mode: Increment needs numbers; append makes a list of what was there.

        Returns:
            Whether it was changed.
        """
        if not _is_sound(value):
            return False
        name = sound_text(name)
        value = sound_text(value) if isinstance(value, str) else value
        if mode is MetricMode.INCREMENT:
            return self._increment(name, value)
        if mode is MetricMode.APPEND:
            present = self._values.setdefault(name, [])
            if not isinstance(present, list):
                self._values[name] = present = [present]
            present.append(value)
            return True
        self._values[name] = value
        return True

    def _increment(self, name: str, value: Scalar) -> bool:
        present = self._values.get(name, 0)
        if isinstance(value, str) or not isinstance(present, int | float):
            return False
        total = present + value
        if not _is_sound(total):
            return False
        self._values[name] = total
        return True

    def as_object(self) -> dict[str, object]:
        """Return them as in a snapshot, nested; of a name and one within it, the newer wins."""
        found: dict[str, object] = {}
        for name, value in self._values.items():
            *path, last = name.split(".")
            inner = found
            for part in path:
                inner = _member(inner, part)
            inner[last] = list(value) if isinstance(value, list) else value
        return found


def _member(found: dict[str, object], name: str) -> dict[str, object]:
    """Return the object that is a member of `found`; made, if there is none."""
    inner = found.get(name)
    if not isinstance(inner, dict):
        inner = found[name] = {}
    return inner


def _is_sound(value: Scalar) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or value.bit_length() <= 64
