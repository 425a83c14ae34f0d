"""How many tokens an answer took, found at its end without parsing the rest.

Owns where llama-server tells it: `timings` in the last event of a stream and in an answer in one
piece; `usage` where a dialect has no timings (`/v1/messages`).

Source: llama.cpp `tools/server/README.md`, "timings"; Anthropic's and OpenAI's `usage`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

# The last events of a stream: timings are 400 bytes, `response.completed` repeats the whole answer
# but has its timings at its end.
TAIL_BYTES = 4096

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one exchange: really prefilled or cached ones of the prompt, and of the answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


def find_usage(tail: bytes) -> Usage:
    """Return what the end of an answer tells; zeros where it tells nothing.

    Args:
        tail: Its last bytes, cut anywhere.
    """
    timings = _last_object(tail, "timings")
    if timings:
        return Usage(
            _count(timings, "prompt_n") + _count(timings, "cache_n"), _count(timings, "predicted_n")
        )
    usage = _last_object(tail, "usage")
    return Usage(
        _count(usage, "prompt_tokens") or _count(usage, "input_tokens"),
        _count(usage, "completion_tokens") or _count(usage, "output_tokens"),
    )


def _last_object(tail: bytes, name: str) -> dict[str, object]:
    text = tail.decode("utf-8", "replace")
    start = text.rfind(f'"{name}":{{')
    if start < 0:
        return {}
    try:
        found, _ = _DECODER.raw_decode(text, start + len(name) + 3)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _count(found: dict[str, object], name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
