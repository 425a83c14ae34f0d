"""When webhooks are sent: transcripts of what happens and what is done, with the time of each."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.predictions.webhook_pacing import (
    MAX_RETRIES,
    Done,
    Pacing,
    Send,
    Wait,
    retry_delay_s,
)
from proxy.core.predictions.webhooks import ALL_EVENTS, WebhookEvent

START, OUTPUT, LOGS, COMPLETED = WebhookEvent
EVER = Wait(math.inf)
BEGAN = Send(START)
ENDED = Send(COMPLETED)

Line = tuple[float, WebhookEvent | None, list[Send | Wait | Done]]


def steps(pacing: Pacing, now: float) -> list[Send | Wait | Done]:
    """Do what is to be done at this moment, to the first step that is not to send."""
    found: list[Send | Wait | Done] = []
    while not found or isinstance(found[-1], Send):
        found.append(pacing.next_step(now))
    return found


TRANSCRIPTS: dict[str, tuple[frozenset[WebhookEvent], list[Line]]] = {
    "nothing happens": (ALL_EVENTS, [(0.0, None, [EVER]), (9.0, None, [EVER])]),
    "start is at once": (ALL_EVENTS, [(0.0, START, [BEGAN, EVER])]),
    "the first output is at once, also right after start": (
        ALL_EVENTS,
        [(0.0, START, [BEGAN, EVER]), (0.1, OUTPUT, [Send(OUTPUT), EVER])],
    ),
    "the second one waits, and is not lost": (
        ALL_EVENTS,
        [
            (1.0, OUTPUT, [Send(OUTPUT), EVER]),
            (1.1, OUTPUT, [Wait(1.5)]),
            (1.2, OUTPUT, [Wait(1.5)]),
            (1.5, None, [Send(OUTPUT), EVER]),
            (9.0, None, [EVER]),
        ],
    ),
    "the interval runs from the one before": (
        ALL_EVENTS,
        [
            (1.0, OUTPUT, [Send(OUTPUT), EVER]),
            (1.4, OUTPUT, [Wait(1.5)]),
            (1.7, None, [Send(OUTPUT), EVER]),
            (1.8, OUTPUT, [Wait(2.2)]),
            (2.2, None, [Send(OUTPUT), EVER]),
        ],
    ),
    "after the interval one is at once": (
        ALL_EVENTS,
        [(1.0, OUTPUT, [Send(OUTPUT), EVER]), (1.5, OUTPUT, [Send(OUTPUT), EVER])],
    ),
    "output and logs share a place": (
        ALL_EVENTS,
        [
            (1.0, LOGS, [Send(LOGS), EVER]),
            (1.1, OUTPUT, [Wait(1.5)]),
            (1.2, LOGS, [Wait(1.5)]),
            (1.5, None, [Send(LOGS), EVER]),
        ],
    ),
    "completed is at once, in place of what waits": (
        ALL_EVENTS,
        [
            (1.0, OUTPUT, [Send(OUTPUT), EVER]),
            (1.1, OUTPUT, [Wait(1.5)]),
            (1.2, COMPLETED, [ENDED, Done()]),
            (9.0, None, [Done()]),
        ],
    ),
    "completed without anything before": (ALL_EVENTS, [(0.0, COMPLETED, [ENDED, Done()])]),
    "after completed comes nothing": (
        ALL_EVENTS,
        [
            (1.0, COMPLETED, [ENDED, Done()]),
            (1.1, OUTPUT, [Done()]),
            (1.2, START, [Done()]),
            (1.3, COMPLETED, [Done()]),
        ],
    ),
    "what is not asked for is not sent": (
        frozenset({COMPLETED}),
        [
            (0.0, START, [EVER]),
            (0.1, OUTPUT, [EVER]),
            (0.2, LOGS, [EVER]),
            (0.3, COMPLETED, [ENDED, Done()]),
        ],
    ),
    "logs alone": (
        frozenset({LOGS}),
        [(0.0, OUTPUT, [EVER]), (0.1, LOGS, [Send(LOGS), EVER]), (0.2, OUTPUT, [EVER])],
    ),
    "without completed the last output is still sent": (
        frozenset({OUTPUT}),
        [
            (1.0, OUTPUT, [Send(OUTPUT), EVER]),
            (1.1, OUTPUT, [Wait(1.5)]),
            (1.2, COMPLETED, [Wait(1.5)]),
            (1.5, None, [Send(OUTPUT), Done()]),
        ],
    ),
    "no events at all": (
        frozenset(),
        [(0.0, START, [EVER]), (0.1, OUTPUT, [EVER]), (0.2, COMPLETED, [Done()])],
    ),
}


@pytest.mark.parametrize(("events", "lines"), TRANSCRIPTS.values(), ids=TRANSCRIPTS)
def test_pacing_follows_the_transcript(events: frozenset[WebhookEvent], lines: list[Line]) -> None:
    """At each moment: what has happened, and what is done."""
    pacing = Pacing(events)
    for now, happened, expected in lines:
        if happened is not None:
            pacing.notify(happened)
        assert steps(pacing, now) == expected, f"at {now}"


def test_start_that_is_late_is_before_completed() -> None:
    """A prediction that fails at once has a start, too."""
    pacing = Pacing(ALL_EVENTS)
    for event in (START, OUTPUT, COMPLETED):
        pacing.notify(event)
    assert steps(pacing, 0.0) == [BEGAN, ENDED, Done()]


def test_output_that_comes_while_start_is_sent_is_after_it() -> None:
    """Order is kept."""
    pacing = Pacing(ALL_EVENTS)
    pacing.notify(OUTPUT)
    pacing.notify(START)
    assert steps(pacing, 0.0) == [BEGAN, Send(OUTPUT), EVER]


@pytest.mark.parametrize(
    ("before", "event", "is_news"),
    [
        ([], START, True),
        ([], OUTPUT, True),
        ([OUTPUT], OUTPUT, False),
        ([OUTPUT], LOGS, False),
        ([OUTPUT], COMPLETED, True),
        ([COMPLETED], COMPLETED, False),
        ([COMPLETED], OUTPUT, False),
    ],
)
def test_news_is_what_changes_the_next_step(
    before: list[WebhookEvent], event: WebhookEvent, is_news: bool
) -> None:
    """So the sender is not woken for each token."""
    pacing = Pacing(ALL_EVENTS)
    for each in before:
        pacing.notify(each)
    assert pacing.notify(event) is is_news


def test_what_is_not_asked_for_is_no_news() -> None:
    """But the end, which ends the sender."""
    pacing = Pacing(frozenset({LOGS}))
    assert [pacing.notify(event) for event in (START, OUTPUT, COMPLETED)] == [False, False, True]


def test_other_interval_is_kept() -> None:
    """As the one who sends says."""
    pacing = Pacing(ALL_EVENTS, interval_s=2.0)
    pacing.notify(OUTPUT)
    assert steps(pacing, 1.0) == [Send(OUTPUT), EVER]
    pacing.notify(OUTPUT)
    assert steps(pacing, 1.0) == [Wait(3.0)]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([None, OUTPUT, LOGS])), min_size=1, max_size=60
    )
)
def test_pacing_loses_no_progress_and_keeps_its_distance(
    happenings: list[tuple[int, WebhookEvent | None]],
) -> None:
    """Whatever happens when: what came last is sent, and no two sends are too close."""
    pacing = Pacing(ALL_EVENTS, interval_s=5)
    now = 0
    sent_at: list[float] = []
    last_change: int | None = None
    for passed, happened in happenings:
        now += passed
        if happened is not None:
            pacing.notify(happened)
            last_change = len(sent_at)
        sent_at += [now for step in steps(pacing, now) if isinstance(step, Send)]
    final = steps(pacing, now)[-1]
    if isinstance(final, Wait) and final.until < math.inf:
        sent_at += [final.until for step in steps(pacing, final.until) if isinstance(step, Send)]
    assert all(late - early >= 5 for early, late in pairwise(sent_at))
    assert last_change is None or len(sent_at) > last_change


# -- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, 429, 500, 502, 503, 504])
def test_failure_that_may_pass_is_tried_again(status: int | None) -> None:
    """Those of Cog; None is no answer at all."""
    assert retry_delay_s(1, status) == 0.2


@pytest.mark.parametrize("status", [100, 301, 302, 307, 400, 401, 404, 408, 410, 413, 501, 505])
def test_answer_that_stays_is_given_up_at_once(status: int) -> None:
    """The same request would have the same answer; redirects are not followed."""
    assert retry_delay_s(1, status) is None


def test_delays_double_to_the_longest_and_end() -> None:
    """Cog's table, to the twelfth retry."""
    delays = [retry_delay_s(attempt, 503) for attempt in range(1, 14)]
    doubled = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4]
    assert [*filter(None, delays)] == pytest.approx([*doubled, 102.4, 102.4])
    assert delays[MAX_RETRIES:] == [None]


def test_delays_follow_another_first_one() -> None:
    """Half of the first delay is what they double."""
    assert [retry_delay_s(attempt, None, 0.5) for attempt in (1, 2, 3)] == [1.0, 2.0, 4.0]
