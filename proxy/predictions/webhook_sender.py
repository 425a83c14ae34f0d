"""What one prediction's receiver is told, in order, by one task.

Owns the task between the prediction, which only leaves a note, and the receiver, which may take
its time or be dead. When something is sent and how often it is tried is
`core.predictions.webhook_pacing`'s; how it is sent is `webhook_client`'s. It must never know what a
prediction is: it asks for a snapshot when it needs one.

Imports httpx: import it in a worker thread, when a prediction has a webhook.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from proxy.core.predictions.webhook_pacing import (
    BACKOFF_S,
    INTERVAL_S,
    Done,
    Pacing,
    Wait,
    retry_delay_s,
)
from proxy.core.predictions.webhooks import WebhookEvent, WebhookUrl
from proxy.predictions.webhook_client import (
    AddressRefused,
    Unanswered,
    WebhookClient,
    WebhookRules,
)

logger = logging.getLogger("proxy.predictions")

# All retries of a receiver that answers at once take under seven minutes.
_DELIVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often is sent, in seconds.

    Attributes:
        interval_s: How long output and logs are at least apart.
        backoff_s: Half of the delay before the first retry, which doubles with each.
        delivery_s: How long `completed` is tried in all.
    """

    interval_s: float = INTERVAL_S
    backoff_s: float = BACKOFF_S
    delivery_s: float = _DELIVERY_S


@dataclass(frozen=True, slots=True)
class _Answered:
    """What became of a request: the status of the answer, None if there was none, and in words."""

    status: int | None
    told: str

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookSender:
    """Tells one receiver of one prediction.

    Args:
        url: Where the receiver is.
        events: What it wants to be told of.
        snapshot: Makes the JSON that tells the prediction's state at this moment; called once for
            each request that is sent, and not for its retries.
        name: What the prediction is called in the log.
        rules: How webhooks are sent.
        trace: `traceparent` and `tracestate` of the request that made the prediction, if any.
        rhythm: How often is sent.
    """

    def __init__(
        self,
        url: WebhookUrl,
        events: frozenset[WebhookEvent],
        snapshot: Callable[[], bytes],
        *,
        name: str,
        rules: WebhookRules | None = None,
        trace: Mapping[str, str] | None = None,
        rhythm: Rhythm | None = None,
    ) -> None:
        self._host = url.host
        self._events = events
        self._snapshot = snapshot
        self._name = name
        self._rhythm = rhythm or Rhythm()
        self._client = WebhookClient(url, rules or WebhookRules(), trace or {})
        self._pacing = Pacing(events, self._rhythm.interval_s)
        self._at_start = b""
        self._news = trio.lowlevel.ParkingLot()
        self._attempts = 0

    def notify(self, event: WebhookEvent) -> None:
        """Take that something has happened; never blocks, and costs next to nothing."""
        if not self._pacing.notify(event):
            return
        if event is WebhookEvent.START:
            # Now, as the state that it tells may be over when the task gets to it.
            self._at_start = self._snapshot()
        self._news.unpark_all()

    async def run(self) -> None:
        """Tell the receiver until `completed` was delivered or is given up.

        Raises nothing: what the receiver makes of us, or we of it, is not the prediction's matter.

        Cancellation: the connection is closed, and what is not delivered is given up.
        """
        try:
            await self._tell_all()
        except AddressRefused:
            self._log_given_up("leads to this machine or a private network, which is not allowed")
        except Exception:
            logger.exception("a webhook failed", extra={"prediction": self._name})
        except trio.Cancelled:
            if WebhookEvent.COMPLETED in self._events:
                self._log_given_up("stopped")
            raise

    async def _tell_all(self) -> None:
        while not isinstance(step := self._pacing.next_step(trio.current_time()), Done):
            if isinstance(step, Wait):
                with trio.move_on_at(step.until):
                    await self._news.park()
            elif step.event is WebhookEvent.COMPLETED:
                await self._deliver()
            else:
                await self._try_once(step.event)

    async def _try_once(self, event: WebhookEvent) -> None:
        """Send what the next request tells too: whether it arrives is no matter."""
        answered = await self._post(
            self._at_start if event is WebhookEvent.START else self._snapshot()
        )
        if not answered.is_success:
            logger.debug(
                "a webhook was not delivered: %s",
                answered.told,
                extra={"prediction": self._name, "host": self._host, "event": event.value},
            )

    async def _deliver(self) -> None:
        """Send `completed` until it arrives or is given up."""
        body = self._snapshot()
        failure = "no time"
        with trio.move_on_after(self._rhythm.delivery_s):
            while not (answered := await self._post(body)).is_success:
                self._attempts += 1
                failure = answered.told
                delay_s = retry_delay_s(self._attempts, answered.status, self._rhythm.backoff_s)
                if delay_s is None:
                    break
                await trio.sleep(delay_s)
            else:
                return
        self._log_given_up(failure)

    async def _post(self, body: bytes) -> _Answered:
        try:
            status = await self._client.post(body)
        except Unanswered as error:
            return _Answered(None, str(error))
        return _Answered(status, f"status {status}")

    def _log_given_up(self, failure: str) -> None:
        logger.warning(
            "a webhook was given up: %s",
            failure,
            extra={"prediction": self._name, "host": self._host, "attempts": self._attempts},
        )
