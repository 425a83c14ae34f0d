"""JSON as Cog writes it.

Owns the bytes: compact, keys in alphabetical order at every level, UTF-8 that is not escaped, one
line. Knows nothing of what they mean.

No text can make it fail. A lone surrogate, which a client can put into JSON by an escape and which
UTF-8 has no bytes for, becomes U+FFFD.

Source: coglet 0.23.1, as it answers.
"""

from __future__ import annotations

import json

from proxy.core.sound_text import sound_text

# Made once: `json.dumps` would make one for each event.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)


def to_json(value: object) -> bytes:
    """Return a JSON value as one line of Cog's JSON.

    Args:
        value: Objects with string keys, lists, strings, numbers, booleans and None.

    Raises:
        ValueError: A number is not finite: JSON has no word for it.
    """
    return sound_text(_ENCODER.encode(value)).encode()
