"""Text that has bytes: what UTF-8 has no form of is replaced.

A lone surrogate, half a character, comes into a text by an escape in somebody's JSON. Nothing that
we send on may fail for it.
"""

from __future__ import annotations


def sound_text(text: str) -> str:
    """Return a text with U+FFFD for each lone surrogate; most texts are returned as they are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # By way of UTF-16, where two halves that stand side by side are one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
