"""The history: how many are kept, in which order."""

from __future__ import annotations

from proxy.core.status.history import History, HistoryEntry


def entry(request_id: str) -> HistoryEntry:
    """An exchange that ended."""
    return HistoryEntry(
        request_id=request_id,
        route="/v1/messages",
        model=None,
        cause="finished",
        ended_at=1000.0,
        prefill_tokens=7,
        cached_tokens=5,
        prefill_tokens_per_second=100.0,
        decode_tokens=20,
        decode_tokens_per_second=None,
        acceptance=None,
        first_token_s=0.5,
        total_s=1.5,
        tags=("stream",),
    )


def test_entries_are_the_last_oldest_first() -> None:
    """The fifty-first pushes the first one out."""
    history = History()
    for number in range(51):
        history.add(entry(str(number)))
    assert [found.request_id for found in history.entries] == [str(n) for n in range(1, 51)]


def test_entry_has_its_keys() -> None:
    """As the snapshot has it."""
    assert entry("a").as_object() == {
        "request_id": "a",
        "route": "/v1/messages",
        "model": None,
        "cause": "finished",
        "ended_at": 1000.0,
        "prefill_tokens": 7,
        "cached_tokens": 5,
        "prefill_tokens_per_second": 100.0,
        "decode_tokens": 20,
        "decode_tokens_per_second": None,
        "acceptance": None,
        "first_token_s": 0.5,
        "total_s": 1.5,
        "tags": ["stream"],
    }
