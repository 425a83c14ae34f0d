"""The snapshot: its shape, what the whole is at, and that each key is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.core.status.about import RequestAbout, describe_request
from proxy.core.status.facts import (
    EngineFacts,
    ExchangeFacts,
    GateFacts,
    ProxyFacts,
    StreamTokenFacts,
)
from proxy.core.status.progress import Progress
from proxy.core.status.snapshot import (
    current,
    exchange_object,
    history_entry,
    overall_phase,
    snapshot_object,
)
from proxy.core.status.timings import Timings

PAGE = Path(__file__).parents[3] / "docs" / "status.md"

BARE = ExchangeFacts(
    request_id="r1",
    method="POST",
    route="/v1/chat/completions",
    phase="decode",
    started_at=1000.00001,
    elapsed_s=2.0,
)
FULL = replace(
    BARE,
    about=RequestAbout(
        model="tiny", parameters={"stream": True}, session="s1", tags=("stream",), prompt="Hello!"
    ),
    key="lab",
    status=200,
    queued_s=0.25,
    first_token_s=0.5,
    progress=Progress(total=12, processed=12, cached=5),
    timings=Timings(7, 5, 70.0, 20, 400.0, 16, 12),
    tokens_per_second=50.00001,
    sent_bytes=4000,
    text="Hi",
    thought="Hm",
    text_cut=True,
)


def at(phase: str, request_id: str = "r1", *, uses_slot: bool = True) -> ExchangeFacts:
    """An exchange that is in this phase."""
    return replace(BARE, phase=phase, request_id=request_id, uses_slot=uses_slot)


def snapshot(*exchanges: ExchangeFacts, content: bool = True, with_texts: bool = True) -> Any:
    """A snapshot, as it arrives."""
    found = snapshot_object(
        exchanges=exchanges,
        total_requests=9,
        history=[history_entry(FULL, cause="finished", ended_at=1002.0)],
        engine=EngineFacts(state="ready", log=("one", "two"), uptime_s=1.00001),
        gates=[GateFacts(permits=4, admitted=1, queued=0)],
        stream_tokens=StreamTokenFacts(waiting=1, running=2),
        predictions={"processing": 3},
        proxy=ProxyFacts("1.0", 60.00001, None, tasks=2, connections=1, viewers=1),
        tasks={"name": "main", "children": [{"name": "child", "children": []}]},
        content=content,
        with_texts=with_texts,
        now=1002.00001,
    )
    return json.loads(json.dumps(found))


# -- the whole --


@pytest.mark.parametrize(
    ("phases", "phase", "position"),
    [
        ([], "idle", None),
        (["queued", "connecting", "ended"], "idle", None),
        (["queued", "prefill", "prefill"], "prefill", 1),
        (["prefill", "decode", "decode"], "decode", 1),
    ],
)
def test_whole_is_at_the_oldest_exchange_that_decodes_or_else_prefills(
    phases: list[str], phase: str, position: int | None
) -> None:
    """Who waits or has ended says nothing of what the model does."""
    exchanges = [at(each, str(number)) for number, each in enumerate(phases)]
    assert overall_phase(exchanges) == phase
    assert current(exchanges) == (None if position is None else exchanges[position])


def test_exchange_without_a_slot_says_nothing_of_the_model() -> None:
    """A question for the models is answered beside it."""
    assert overall_phase([at("decode", uses_slot=False), at("prefill")]) == "prefill"
    assert current([at("decode", uses_slot=False)]) is None


def test_snapshot_has_the_whole() -> None:
    """What is not told of an exchange is there all the same."""
    found = snapshot(FULL)
    assert found["phase"] == "decode"
    assert found["current"] == found["exchanges"][0]
    assert found["total_requests"] == 9
    assert found["engine"]["log"] == ["one", "two"]
    assert found["engine"]["uptime_s"] == 1.0
    assert found["gates"] == [{"model": "", "permits": 4, "admitted": 1, "queued": 0}]
    assert found["stream_tokens"] == {"waiting": 1, "running": 2}
    assert found["predictions"] == {
        "starting": 0,
        "processing": 3,
        "succeeded": 0,
        "failed": 0,
        "canceled": 0,
    }
    assert found["proxy"]["uptime_s"] == 60.0
    assert found["content"] == "full"
    assert snapshot(content=False)["content"] == "none"
    assert snapshot()["current"] is None


# -- an exchange --


def test_exchange_has_what_is_known() -> None:
    """Numbers are rounded, and tags tell what turned out."""
    assert exchange_object(FULL, with_texts=True) == {
        "request_id": "r1",
        "method": "POST",
        "route": "/v1/chat/completions",
        "phase": "decode",
        "position": 0,
        "cause": None,
        "status": 200,
        "model": "tiny",
        "parameters": {
            "stream": True,
            "max_tokens": None,
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "tools": 0,
            "response_format": None,
        },
        "session": "s1",
        "key": "lab",
        "tags": ["stream", "cache_hit", "speculative"],
        "started_at": 1000.0,
        "elapsed_s": 2.0,
        "queued_s": 0.25,
        "first_token_s": 0.5,
        "progress": {"total": 12, "processed": 12, "cached": 5},
        "prompt_tokens": 12,
        "cached_tokens": 5,
        "completion_tokens": 20,
        "tokens_per_second": 50.0,
        "acceptance": 0.75,
        "bytes": 4000,
        "prompt": "Hello!",
        "text": "Hi",
        "thought": "Hm",
        "text_cut": True,
    }


def test_exchange_without_texts_has_none() -> None:
    """They were sent before; tokens go on."""
    found = exchange_object(FULL, with_texts=False)
    assert [found[name] for name in ("prompt", "text", "thought")] == [None, None, None]


def test_what_nobody_told_is_unknown() -> None:
    """And not zero."""
    found = exchange_object(BARE, with_texts=True)
    names = ("progress", "prompt_tokens", "cached_tokens", "acceptance", "tokens_per_second")
    assert {found[name] for name in names} == {None}


def test_prompt_is_known_from_progress_until_timings_tell() -> None:
    """The end of a message has no prompt's tokens either."""
    in_prefill = replace(BARE, progress=Progress(100, 40, 10))
    of_message = replace(in_prefill, timings=Timings(completion_tokens=3))
    for facts in (in_prefill, of_message):
        assert (facts.prompt_tokens, facts.cached_tokens) == (100, 10)
        assert facts.prefilled_tokens == 30
        assert facts.prefill_tokens_per_second is None
        assert facts.tags == ("cache_hit",)


def test_seen_tokens_count_until_timings_tell() -> None:
    """Those who are asked for timings count better."""
    assert replace(BARE, seen_tokens=3).completion_tokens == 3
    assert replace(FULL, seen_tokens=3).completion_tokens == 20


# -- the history --


def test_history_has_what_an_exchange_took() -> None:
    """Rates are of what was really prefilled and decoded."""
    found = history_entry(FULL, cause="finished", ended_at=1002.0).as_object()
    assert found == {
        "request_id": "r1",
        "route": "/v1/chat/completions",
        "model": "tiny",
        "cause": "finished",
        "ended_at": 1002.0,
        "prefill_tokens": 7,
        "cached_tokens": 5,
        "prefill_tokens_per_second": 100.0,
        "decode_tokens": 20,
        "decode_tokens_per_second": 50.0,
        "acceptance": 0.75,
        "first_token_s": 0.5,
        "total_s": 2.0,
        "tags": ["stream", "cache_hit", "speculative"],
    }


def test_full_cache_hit_has_a_prefill_of_zero() -> None:
    """Not an infinite one."""
    facts = replace(BARE, timings=Timings(0, 12, 0.0, 20, 400.0))
    found = history_entry(facts, cause="finished", ended_at=1002.0)
    assert (found.prefill_tokens, found.cached_tokens) == (0, 12)
    assert found.prefill_tokens_per_second == 0.0


def test_decode_that_nobody_timed_has_the_rate_that_was_seen() -> None:
    """Of a message, or of an answer that was cut short: 30 tokens after the first, in 1.5 s."""
    facts = replace(BARE, first_token_s=0.5, seen_tokens=31)
    assert facts.decode_tokens_per_second == pytest.approx(20.0)


@pytest.mark.parametrize(
    "facts",
    [
        BARE,
        replace(BARE, seen_tokens=9),
        replace(BARE, first_token_s=0.5, seen_tokens=1),
        replace(BARE, first_token_s=2.0, seen_tokens=9),
    ],
    ids=["nothing", "no first token", "one token", "no time"],
)
def test_decode_that_cannot_be_measured_has_no_rate(facts: ExchangeFacts) -> None:
    """None, and never an infinite one."""
    assert facts.decode_tokens_per_second is None


# -- the documentation --


def keys(found: object, path: str = "") -> Iterator[str]:
    """Each key with its way from the top; a list's items are `[]`."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield f"{path}{name}"
            yield from keys(value, f"{path}{name}.")
    elif isinstance(found, list):
        for value in found:
            yield from keys(value, f"{path.removesuffix('.')}[].")


def documented_keys() -> set[str]:
    """Each key of the page's tables: the first cell of a row."""
    return set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))


def test_every_key_of_the_snapshot_is_documented() -> None:
    """`current` is one of the exchanges; a task's children are tasks."""
    found = {key for key in keys(snapshot(FULL)) if not key.startswith("current.")}
    found = {key for key in found if not key.startswith("tasks.children[].")}
    assert found - documented_keys() == set()


def test_every_tag_is_documented() -> None:
    """Those of a request that asks for everything, and those that turn out."""
    fields = {"stream": True, "tools": [{}], "reasoning_effort": "high"}
    asked = describe_request(
        BARE.route, fields, session=None, fast_path=True, prediction=True, content=False
    )
    tags = set(replace(FULL, about=asked).tags)
    assert len(tags) == 7
    assert tags - documented_keys() == set()
