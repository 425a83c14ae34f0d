"""When a webhook is sent, and for how long it is tried: the decisions of one prediction.

Owns what is still to be told and in which order; never a clock, a task or a payload. Whoever sends
(`predictions.webhook_sender`) asks for the next step, does it, and asks again: so one request is
under way at a time, and the receiver gets them in order.

Output and logs share one place in the queue, as the same snapshot tells both: whatever comes while
a request is under way, or too soon after the last one, is in the one that follows.

Source: Cog, `docs/http.md` (Webhooks): at most one every 500 ms. `crates/coglet/src/webhook.rs`:
retries of the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from proxy.core.predictions.webhooks import WebhookEvent

INTERVAL_S = 0.5
# Cog's: 200, 400, 800 ms, ... up to 102.4 s, twelve times.
BACKOFF_S = 0.1
MAX_RETRIES = 12
_MAX_DOUBLINGS = 10
# Each says that the next attempt may have another answer.
RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Send:
    """Tell the receiver of `event` now."""

    event: WebhookEvent


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until` (infinity: ever), unless there is news."""

    until: float


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more will be told."""


class Pacing:
    """What is still to be told to one prediction's receiver.

    Args:
        events: What it wants to be told of.
        interval_s: How long output and logs are at least apart, in seconds.
    """

    def __init__(self, events: frozenset[WebhookEvent], interval_s: float = INTERVAL_S) -> None:
        self._events = events
        self._interval_s = interval_s
        self._start = False
        self._progress: WebhookEvent | None = None
        self._progress_at = -math.inf
        self._last = False
        self._over = False

    def notify(self, event: WebhookEvent) -> bool:
        """Take what has happened; tell whether the next step is another one by that.

        After `COMPLETED` nothing changes any more.
        """
        if self._over or (event not in self._events and event is not WebhookEvent.COMPLETED):
            return False
        if event is WebhookEvent.COMPLETED:
            self._complete()
        elif event is WebhookEvent.START:
            self._start = True
        else:
            known, self._progress = self._progress, event
            return known is None
        return True

    def _complete(self) -> None:
        self._over = True
        self._last = WebhookEvent.COMPLETED in self._events
        if self._last:
            # It tells all that they would.
            self._progress = None

    def next_step(self, now: float) -> Send | Wait | Done:
        """Return what is to be done; what is to be sent counts as sent.

        Args:
            now: The time in seconds, on any clock that does not run backwards.
        """
        if self._start:
            self._start = False
            return Send(WebhookEvent.START)
        if self._last:
            self._last = False
            return Send(WebhookEvent.COMPLETED)
        if self._progress is None:
            return Done() if self._over else Wait(math.inf)
        if now < self._progress_at:
            return Wait(self._progress_at)
        event, self._progress = self._progress, None
        self._progress_at = now + self._interval_s
        return Send(event)


def retry_delay_s(attempt: int, status: int | None, backoff_s: float = BACKOFF_S) -> float | None:
    """Return how long to wait before `completed` is sent again; None if it is given up.

    Args:
        attempt: Which one has failed, from 1.
        status: What was answered, not of 2xx; None if nothing was.
        backoff_s: Half of the first delay, in seconds.
    """
    if attempt > MAX_RETRIES or (status is not None and status not in RETRIED_STATUSES):
        return None
    return float(backoff_s * 2 ** min(attempt, _MAX_DOUBLINGS))
