"""What `/status/json` answers and `/status/events` repeats, built from plain facts.

Owns the shape: each key, its rounding, and what the whole is at. It must never know where a fact
comes from. docs/status.md says what each key means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from proxy.core.causes import Phase
from proxy.core.status.facts import (
    EngineFacts,
    ExchangeFacts,
    GateFacts,
    ProxyFacts,
    StreamTokenFacts,
)
from proxy.core.status.history import HistoryEntry

Json = dict[str, object]

# What a request says that has no parameters.
_NO_PARAMETERS: Json = {
    "stream": False,
    "max_tokens": None,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "tools": 0,
    "response_format": None,
}
# Before the first prediction, and where there is none of a status.
_NO_PREDICTIONS = {"starting": 0, "processing": 0, "succeeded": 0, "failed": 0, "canceled": 0}


def snapshot_object(
    *,
    exchanges: Sequence[ExchangeFacts],
    total_requests: int,
    history: Iterable[HistoryEntry],
    engine: EngineFacts,
    gates: Iterable[GateFacts],
    stream_tokens: StreamTokenFacts,
    predictions: Mapping[str, int],
    proxy: ProxyFacts,
    tasks: Mapping[str, object],
    content: bool,
    with_texts: bool,
    now: float,
) -> Json:
    """Return the snapshot, for JSON.

    Args:
        exchanges: Those in flight, in order of arrival.
        total_requests: How many there have been, with those in flight.
        history: The last that ended, oldest first.
        engine: llama-server.
        gates: Each of them.
        stream_tokens: How many there are.
        predictions: How many there are of each status; of one that is left out there are none.
        proxy: This process.
        tasks: The root of the task tree, `{"name", "children"}`.
        content: Whether texts of people and the model are shown at all.
        with_texts: Whether this snapshot has them.
        now: Unix seconds.
    """
    at_work = current(exchanges)
    return {
        "phase": overall_phase(exchanges),
        "total_requests": total_requests,
        "current": None if at_work is None else exchange_object(at_work, with_texts=with_texts),
        "perf_history": [entry.as_object() for entry in history],
        "engine": _engine_object(engine),
        "exchanges": [exchange_object(found, with_texts=with_texts) for found in exchanges],
        "gates": [_gate_object(gate) for gate in gates],
        "stream_tokens": {"waiting": stream_tokens.waiting, "running": stream_tokens.running},
        "predictions": _NO_PREDICTIONS | dict(predictions),
        "proxy": _proxy_object(proxy),
        "tasks": tasks,
        "content": "full" if content else "none",
        "now": _rounded(now),
    }


def overall_phase(exchanges: Iterable[ExchangeFacts]) -> str:
    """Return what the model does: `decode`, `prefill`, or `idle` if it does neither."""
    at_work = current(exchanges)
    return "idle" if at_work is None else at_work.phase


def current(exchanges: Iterable[ExchangeFacts]) -> ExchangeFacts | None:
    """Return the oldest exchange in decode, else the oldest in prefill; None if there is none.

    Args:
        exchanges: In order of arrival.
    """
    working = [found for found in exchanges if found.uses_slot]
    for phase in (Phase.DECODE, Phase.PREFILL):
        for found in working:
            if found.phase == phase:
                return found
    return None


def exchange_object(facts: ExchangeFacts, *, with_texts: bool) -> Json:
    """Return an exchange, for JSON.

    Args:
        facts: What is known of it.
        with_texts: Whether it has its texts.
    """
    return {
        "request_id": facts.request_id,
        "method": facts.method,
        "route": facts.route,
        "phase": facts.phase,
        "position": facts.position,
        "cause": facts.cause,
        "status": facts.status,
        "model": facts.about.model,
        "parameters": _NO_PARAMETERS | facts.about.parameters,
        "session": facts.about.session,
        "key": facts.key,
        "tags": list(facts.tags),
        "started_at": _rounded(facts.started_at),
        "elapsed_s": _rounded(facts.elapsed_s),
        "queued_s": _rounded(facts.queued_s),
        "first_token_s": _rounded(facts.first_token_s),
        "progress": None if facts.progress is None else facts.progress.as_object(),
        "prompt_tokens": facts.prompt_tokens,
        "cached_tokens": facts.cached_tokens,
        "completion_tokens": facts.completion_tokens,
        "tokens_per_second": _rounded(facts.tokens_per_second),
        "acceptance": _rounded(facts.acceptance),
        "bytes": facts.sent_bytes,
        "prompt": facts.about.prompt if with_texts or facts.tells_prompt else None,
        "text": facts.text if with_texts else None,
        "thought": facts.thought if with_texts else None,
        "text_cut": facts.text_cut,
    }


def history_entry(facts: ExchangeFacts, *, cause: str, ended_at: float) -> HistoryEntry:
    """Return what is kept of an exchange that has ended.

    Args:
        facts: As they were at its end.
        cause: Why it ended, one of `EndCause`.
        ended_at: When, in Unix seconds.
    """
    return HistoryEntry(
        request_id=facts.request_id,
        route=facts.route,
        model=facts.about.model,
        cause=cause,
        ended_at=round(ended_at, 4),
        prefill_tokens=facts.prefilled_tokens,
        cached_tokens=facts.cached_tokens or 0,
        prefill_tokens_per_second=_rounded(facts.prefill_tokens_per_second),
        decode_tokens=facts.completion_tokens,
        decode_tokens_per_second=_rounded(facts.decode_tokens_per_second),
        acceptance=_rounded(facts.acceptance),
        first_token_s=_rounded(facts.first_token_s),
        total_s=round(facts.elapsed_s, 4),
        tags=facts.tags,
    )


def _engine_object(engine: EngineFacts) -> Json:
    return {
        "state": engine.state,
        "model": engine.model,
        "slots": engine.slots,
        "restarts": engine.restarts,
        "generation": engine.generation,
        "uptime_s": _rounded(engine.uptime_s),
        "pid": engine.pid,
        "last_exit": engine.last_exit,
        "failure": engine.failure,
        "progress": _rounded(engine.progress),
        "managed": engine.managed,
        "log": list(engine.log),
    }


def _gate_object(gate: GateFacts) -> Json:
    return {
        "model": gate.model,
        "permits": gate.permits,
        "admitted": gate.admitted,
        "queued": gate.queued,
    }


def _proxy_object(proxy: ProxyFacts) -> Json:
    return {
        "version": proxy.version,
        "uptime_s": _rounded(proxy.uptime_s),
        "rss_bytes": proxy.rss_bytes,
        "tasks": proxy.tasks,
        "connections": proxy.connections,
        "viewers": proxy.viewers,
    }


def _rounded(value: float | None) -> float | None:
    """Return it to four places: nobody sees more, and a snapshot is sent four times a second."""
    return None if value is None else round(value, 4)
