"""How many tokens an answer took, found at its end without parsing the rest.

Owns the two numbers that metrics and log lines have of each exchange. Where llama-server tells them
is `core.status.timings`'s to know.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.status.timings import Timings, find_timings

# The last events of a stream: timings are 400 bytes, `response.completed` repeats the whole answer
# but has its timings at its end.
TAIL_BYTES = 4096


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
    found = find_timings(tail) or Timings()
    return Usage(found.prompt_tokens + found.cached_tokens, found.completion_tokens)
