"""Reading JSON that others wrote: what is of the right type, and nothing else.

Owns the rule that a wrong type is left out and never an error, and that a text can be sent on
whatever was in it. It must never know what the members mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

from proxy.core.sound_text import sound_text

# Beyond it JavaScript counts wrongly; no count of ours comes near it.
_MAX_NUMBER = 2**53

_DECODER = json.JSONDecoder()


def objects_from_end(data: bytes, name: str) -> Iterator[dict[str, object]]:
    """Return the objects that are members called `name`, the last one first.

    One that is cut off is left out. Searching costs nothing to speak of where there is none.

    Args:
        data: A part of some JSON, cut anywhere, as llama-server writes it: without spaces. A name
            inside of a string does not count, for there a quotation mark has a backslash before it.
        name: The member's name.
    """
    key = b'"%s":{' % name.encode()
    end = len(data)
    while (start := data.rfind(key, 0, end)) >= 0:
        found = _object_in(data[start + len(key) - 1 : end])
        if found is not None:
            yield found
        end = start


def _object_in(data: bytes) -> dict[str, object] | None:
    try:
        found, _ = _DECODER.raw_decode(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def count_in(found: Mapping[str, object], name: str) -> int | None:
    """Return a member that counts something; None where there is no such number."""
    number = number_in(found, name)
    return int(number) if number is not None and number >= 0 else None


def number_in(found: Mapping[str, object], name: str) -> float | None:
    """Return a member that is a number, as it was written; None where there is no such number."""
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN compares as false; an integer may be too large to become a float.
    return value if -_MAX_NUMBER <= value <= _MAX_NUMBER and math.isfinite(value) else None


def text_in(found: Mapping[str, object], name: str, max_length: int) -> str | None:
    """Return a member that is a text and not empty, cut; None where there is none.

    Args:
        found: The object.
        name: The member's name.
        max_length: In characters.
    """
    value = found.get(name)
    return sound_text(value[:max_length]) if isinstance(value, str) and value else None


def object_in(found: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a member that is an object; an empty one where there is none."""
    value = found.get(name)
    return value if isinstance(value, dict) else {}
