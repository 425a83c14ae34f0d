"""The plain facts that a snapshot is built from.

Owns what has to be known of each thing, and what follows from it for an exchange: its counts, its
tags, its rates. It must never know where a fact comes from, or the shape that is answered
(`core.status.snapshot`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.core.status.about import RequestAbout
from proxy.core.status.progress import Progress
from proxy.core.status.timings import Timings


@dataclass(frozen=True, slots=True)
class ExchangeFacts:
    """One exchange as it is at the moment.

    Attributes:
        request_id: The `X-Request-Id` it answers.
        method: The request's method.
        route: The route's label.
        phase: How far it is, one of `Phase`.
        started_at: When it was accepted, in Unix seconds.
        elapsed_s: Since when it runs; how long it took once it has ended.
        uses_slot: Whether llama-server works for it. Others say nothing of what the model does.
        position: Its place in the queue, from 1; 0 for one that does not wait.
        cause: Why it ends; None as long as it does not.
        status: The status that its client was sent.
        about: What it asks for.
        key: The name of the API key that it came with.
        queued_s: How long it waited; None while it does.
        first_token_s: When the first token came, from the start.
        progress: How far prefill is, as far as is told.
        timings: What it took, as far as is told.
        seen_tokens: How many tokens have passed; what `timings` tell goes before.
        tokens_per_second: How fast they come at the moment.
        sent_bytes: What of the body its client was sent.
        text: What the model said so far; None where that is not shown.
        thought: What it thought so far; None where that is not shown.
        text_cut: Whether the beginning of either is missing.
        tells_prompt: Whether its prompt is told even where texts are not: it is news.
    """

    request_id: str
    method: str
    route: str
    phase: str
    started_at: float
    elapsed_s: float
    uses_slot: bool = True
    position: int = 0
    cause: str | None = None
    status: int | None = None
    about: RequestAbout = field(default_factory=RequestAbout)
    key: str | None = None
    queued_s: float | None = None
    first_token_s: float | None = None
    progress: Progress | None = None
    timings: Timings | None = None
    seen_tokens: int = 0
    tokens_per_second: float | None = None
    sent_bytes: int = 0
    text: str | None = None
    thought: str | None = None
    text_cut: bool = False
    tells_prompt: bool = False

    @property
    def _told(self) -> Timings | None:
        """Timings that know of the prompt: the end of a message does not."""
        found = self.timings
        return found if found is not None and found.prompt_tokens + found.cached_tokens else None

    @property
    def prompt_tokens(self) -> int | None:
        """All tokens of the prompt; None while nobody knows."""
        if self._told is not None:
            return self._told.prompt_tokens + self._told.cached_tokens
        return None if self.progress is None else self.progress.total

    @property
    def cached_tokens(self) -> int | None:
        """Those of them that were there from before; None while nobody knows."""
        if self._told is not None:
            return self._told.cached_tokens
        return None if self.progress is None else self.progress.cached

    @property
    def prefilled_tokens(self) -> int:
        """Those of them that were really prefilled, as far as is known."""
        if self._told is not None:
            return self._told.prompt_tokens
        done = self.progress
        return 0 if done is None else max(0, done.processed - done.cached)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer so far."""
        told = 0 if self.timings is None else self.timings.completion_tokens
        return told or self.seen_tokens

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """The rate of those that were really prefilled; None where nobody told times."""
        return None if self._told is None else self._told.prefill_tokens_per_second

    @property
    def decode_tokens_per_second(self) -> float | None:
        """The rate of the whole answer, as llama-server told or else as it was seen."""
        told = None if self.timings is None else self.timings.decode_tokens_per_second
        if told is not None or self.first_token_s is None or self.completion_tokens < 2:
            return told
        seconds = self.elapsed_s - self.first_token_s
        # The first token is where the time begins.
        return (self.completion_tokens - 1) / seconds if seconds > 0 else None

    @property
    def acceptance(self) -> float | None:
        """The part of the proposed tokens that was right; None without speculative decoding."""
        return None if self.timings is None else self.timings.acceptance

    @property
    def tags(self) -> tuple[str, ...]:
        """What the request told, and what turned out."""
        turned_out = {
            "cache_hit": bool(self.cached_tokens),
            "speculative": self.timings is not None and self.timings.draft_tokens > 0,
        }
        return (*self.about.tags, *(name for name, has in turned_out.items() if has))


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """llama-server as it is at the moment; docs/status.md says what each member means."""

    state: str
    model: str | None = None
    slots: int | None = None
    restarts: int = 0
    generation: int = 0
    uptime_s: float | None = None
    pid: int | None = None
    last_exit: str | None = None
    failure: str | None = None
    progress: float | None = None
    managed: bool = True
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateFacts:
    """One gate: who works and who waits. A name only where there are several models."""

    permits: int | None
    admitted: int
    queued: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class StreamTokenFacts:
    """Stream tokens that wait to be used, and those whose stream goes on."""

    waiting: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """This process as it is at the moment; docs/status.md says what each member means."""

    version: str
    uptime_s: float
    rss_bytes: int | None
    tasks: int
    connections: int
    viewers: int
