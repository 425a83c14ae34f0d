"""Who tells a prediction's receiver, made when the first one has a webhook.

Owns when `webhook_sender` is imported: httpx takes a fifth of a second, and no other request needs
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from proxy.core.predictions.prediction import Prediction
from proxy.core.predictions.webhooks import WebhookEvent, WebhookUrl

if TYPE_CHECKING:
    from types import ModuleType

    from proxy.predictions.webhook_sender import WebhookSender


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """How receivers are told; the operator's.

    Attributes:
        token: What receivers know us by; None for nothing. Secret.
        allow_private: Whether they may be on this machine and in private networks.
    """

    token: str | None = None
    allow_private: bool = False


async def make_sender(
    url: WebhookUrl,
    events: frozenset[WebhookEvent],
    prediction: Prediction,
    settings: ReportSettings,
    trace: Mapping[str, str],
) -> WebhookSender:
    """Return who tells a prediction's receiver; its `run` has to run.

    Args:
        url: Where the receiver is.
        events: What it is to be told of.
        prediction: Whose state it is told.
        settings: How.
        trace: `traceparent` and `tracestate` of the request that made the prediction, if any.

    Cancellation: an import under way is waited for.
    """
    await trio.to_thread.run_sync(_import_sender)
    from proxy.predictions.webhook_client import WebhookRules
    from proxy.predictions.webhook_sender import WebhookSender

    return WebhookSender(
        url,
        events,
        lambda: bytes(prediction.snapshot_json()),
        name=prediction.id,
        trace=trace,
        rules=WebhookRules(token=settings.token, allow_private=settings.allow_private),
    )


def _import_sender() -> ModuleType:
    from proxy.predictions import webhook_sender

    return webhook_sender
