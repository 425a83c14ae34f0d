"""How a prediction is answered: as a whole, at once, or as a stream.

Owns the reading of `Accept`, `Prefer` and `Last-Event-ID`. Must never know what a prediction is.

Cog reads the first line of a header alone and compares case-sensitively, `Prefer` as a whole. HTTP
has lists for both, over any number of lines, and names without case: so it is read here.

Source: RFC 9110 sections 5.3 and 8.3.1; RFC 7240 section 4.1; WHATWG HTML section 9.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

Field = tuple[bytes, bytes]

# More events than that no prediction has; and Python converts no more than 4300 digits.
_EVENT_ID = re.compile(rb"[0-9]{1,18}")


class Mode(StrEnum):
    """What the client waits for."""

    BLOCKING = "blocking"
    ASYNC = "async"
    STREAM = "stream"


def mode_of(headers: Iterable[Field]) -> Mode:
    """Return the mode that a request's header asks for; a stream beats all else.

    Args:
        headers: Its fields, in their order.
    """
    fields = list(headers)
    if b"text/event-stream" in _members(fields, b"accept"):
        return Mode.STREAM
    if b"respond-async" in _members(fields, b"prefer"):
        return Mode.ASYNC
    return Mode.BLOCKING


def last_event_id(headers: Iterable[Field]) -> int | None:
    """Return the number of the last event that the client has; None if it names none of ours.

    Args:
        headers: The request's fields; of several lines the first counts.
    """
    found = next((value for name, value in headers if name.lower() == b"last-event-id"), b"")
    return int(found) if _EVENT_ID.fullmatch(found) else None


def _members(fields: Iterable[Field], name: bytes) -> Iterator[bytes]:
    """Yield the members of a list field, in lower case and without their parameters."""
    for found, value in fields:
        if found.lower() == name:
            for member in value.split(b","):
                yield member.partition(b";")[0].strip(b" \t").lower()
