"""Who tells a prediction's receiver: made when there is one, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.prediction import Prediction
from proxy.core.predictions.webhooks import ALL_EVENTS, WebhookEvent, check_url
from proxy.predictions.book import PredictionSettings
from proxy.predictions.reporting import ReportSettings, make_sender
from tests.fakes.webhook_receiver import webhook_receiver
from tests.left_behind import Leftovers
from tests.predictions.predicted import before, saying

CHECKOUT = Path(__file__).parents[2]
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
PRIVATE = ReportSettings(token="t", allow_private=True)

# Serves one prediction, and prints whether httpx was imported for it.
_SERVES_ONE = """
import sys, trio
from proxy.predictions.book import PredictionSettings
from proxy.predictions.reporting import ReportSettings
from tests.predictions.predicted import before, saying

async def main(**webhook):
    settings = PredictionSettings(reports=ReportSettings(allow_private=True))
    async with before(saying("b"), settings) as server:
        assert (await server.ask("/predictions", **webhook)).status == 200

trio.run(lambda: main(**%r))
print("httpx" in sys.modules)
"""
# Nobody listens there, and START may get lost: nothing is waited for.
_NOBODY = {"webhook": "http://127.0.0.1:1/", "webhook_events_filter": ["start"]}


@pytest.mark.parametrize(
    ("webhook", "imported"),
    [({}, "False"), ({**_NOBODY, "webhook_events_filter": []}, "False"), (_NOBODY, "True")],
    ids=["no webhook", "no events", "webhook"],
)
def test_httpx_is_imported_for_webhooks_only(webhook: dict[str, object], imported: str) -> None:
    """It takes a fifth of a second, and no other request needs it."""
    done = subprocess.run(
        [sys.executable, "-c", _SERVES_ONE % (webhook,)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == (imported, 0), done.stderr


async def test_receiver_is_told_with_token_and_trace(leftovers: Leftovers) -> None:
    """The operator's and the request's; and with the prediction as it is when it is told."""
    prediction = Prediction("p", 0.0, EventLog())
    async with webhook_receiver() as receiver:
        url = check_url(receiver.url, allow_private=True)
        events = frozenset({WebhookEvent.COMPLETED})
        sender = await make_sender(url, events, prediction, PRIVATE, TRACE)
        prediction.start(0.0)
        prediction.add_output("b", 1.0)
        prediction.succeed(2.0)
        sender.notify(WebhookEvent.COMPLETED)
        await sender.run()
    (delivery,) = receiver.deliveries
    assert delivery.fields["authorization"] == "Bearer t"
    assert delivery.fields["traceparent"] == TRACE["traceparent"]
    assert (delivery.json["id"], delivery.json["output"]) == ("p", ["b"])


async def test_receiver_in_a_private_network_is_told_only_if_allowed(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where its address was not seen to be one when the request came."""
    prediction = Prediction("p", 0.0, EventLog())
    async with webhook_receiver() as receiver:
        url = check_url(receiver.url, allow_private=True)
        sender = await make_sender(url, ALL_EVENTS, prediction, ReportSettings(), {})
        prediction.cancel(1.0)
        sender.notify(WebhookEvent.COMPLETED)
        await sender.run()
    assert receiver.deliveries == []
    assert "not allowed" in caplog.text


async def test_receiver_is_told_of_a_whole_prediction(leftovers: Leftovers) -> None:
    """From its request on, over real sockets: start first, completed last."""
    settings = PredictionSettings(reports=PRIVATE)
    async with webhook_receiver() as receiver, before(saying("b", "c"), settings) as server:
        assert (await server.ask("/predictions", webhook=receiver.url)).status == 200
        await server.book.wait_none_left()
    statuses = [each["status"] for each in receiver.told]
    assert (statuses[0], statuses[-1]) == ("processing", "succeeded")
    assert receiver.told[-1]["output"] == ["b", "c"]
