"""What an answer took, found at its end without parsing the rest, and the rates that follow.

Owns where llama-server tells it: `timings` in the last event of a stream and in an answer in one
piece, or in each event for a request with `timings_per_token`; `usage` where a dialect has no
timings (`/v1/messages`), and then nobody tells times.

Source: llama.cpp `tools/server/README.md`, "timings"; `usage` of OpenAI and Anthropic.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.status.members import count_in, number_in, object_in, objects_from_end


@dataclass(frozen=True, slots=True)
class Timings:
    """Tokens and times of one answer.

    Attributes:
        prompt_tokens: Tokens of the prompt that were really prefilled.
        cached_tokens: Those that were there from before.
        prompt_ms: How long prefill took; None where that is not told.
        completion_tokens: Tokens of the answer.
        decode_ms: How long decode took; None where that is not told.
        draft_tokens: Tokens that speculative decoding proposed.
        accepted_tokens: Those of them that were right.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_ms: float | None = None
    completion_tokens: int = 0
    decode_ms: float | None = None
    draft_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Really prefilled tokens per second: 0 with a full cache hit, None if nobody knows."""
        return None if self.prompt_ms is None else _rate(self.prompt_tokens, self.prompt_ms)

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Tokens of the answer per second; None if nobody knows.

        The first token is prefill's: of an answer that has no other there is nothing to measure.
        """
        if self.decode_ms is None or self.completion_tokens == 1:
            return None
        return _rate(self.completion_tokens, self.decode_ms)

    @property
    def acceptance(self) -> float | None:
        """The part of the proposed tokens that was right, 0 to 1; None if none were proposed."""
        return min(1.0, self.accepted_tokens / self.draft_tokens) if self.draft_tokens else None


def find_timings(tail: bytes) -> Timings | None:
    """Return what the end of an answer tells; None where it tells nothing.

    Args:
        tail: Its last bytes, cut anywhere.
    """
    timings = next((found for found in objects_from_end(tail, "timings") if found), None)
    return _from_timings(timings) if timings is not None else _from_usage(tail)


def _from_timings(found: dict[str, object]) -> Timings:
    return Timings(
        prompt_tokens=count_in(found, "prompt_n") or 0,
        cached_tokens=count_in(found, "cache_n") or 0,
        prompt_ms=number_in(found, "prompt_ms"),
        completion_tokens=count_in(found, "predicted_n") or 0,
        decode_ms=number_in(found, "predicted_ms"),
        draft_tokens=count_in(found, "draft_n") or 0,
        accepted_tokens=count_in(found, "draft_n_accepted") or 0,
    )


def _from_usage(tail: bytes) -> Timings | None:
    told: dict[str, object] = {}
    for found in objects_from_end(tail, "usage"):
        # A message tells the prompt's tokens when it starts and its own at its end.
        told = {**found, **told}
    if not told:
        return None
    cached, prompt = _cached(told), _first(told, "prompt_tokens", "input_tokens")
    if "cache_read_input_tokens" in told:
        # Anthropic counts these beside the prompt's; OpenAI among them.
        prompt += cached
    return Timings(
        prompt_tokens=max(0, prompt - cached),
        cached_tokens=cached,
        completion_tokens=_first(told, "completion_tokens", "output_tokens"),
    )


def _cached(told: dict[str, object]) -> int:
    details = object_in(told, "prompt_tokens_details") or object_in(told, "input_tokens_details")
    return count_in(details, "cached_tokens") or count_in(told, "cache_read_input_tokens") or 0


def _first(told: dict[str, object], *names: str) -> int:
    return next((count for name in names if (count := count_in(told, name))), 0)


def _rate(tokens: int, milliseconds: float) -> float | None:
    """Return tokens per second; None for some in no time."""
    if not tokens:
        return 0.0
    return 1000 * tokens / milliseconds if milliseconds > 0 else None
