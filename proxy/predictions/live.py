"""A prediction that runs: on the engine, with whoever follows it, until it has ended.

Owns the prediction's life: it outlives the request that made it, and ends by the engine, by a
cancel, or because those whom it was for have left. What a prediction is, and its events, are
`core.predictions`'s; how its text is had from llama-server is `generation`'s.

The order at the end is promise P1's: the connection is closed and the permit is back before anybody
is told that it has ended, so that the next request finds the slot free.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

import trio

from proxy.core.causes import EndCause
from proxy.core.ends import cause_of
from proxy.core.errors import HttpError, InternalError, InvalidRequest, Unavailable, UpstreamFailed
from proxy.core.predictions.event_log import Cursor
from proxy.core.predictions.inputs import UpstreamRequest
from proxy.core.predictions.prediction import Prediction
from proxy.core.predictions.webhooks import WebhookEvent
from proxy.predictions.generation import generate
from proxy.predictions.line import Line
from proxy.relay.connecting import end_broken
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange

logger = logging.getLogger("proxy.predictions")

# Somebody wanted each of these, so it was no failure.
_CANCELED = frozenset(
    {EndCause.CLIENT_DISCONNECTED, EndCause.CANCELLED_BY_CLIENT, EndCause.CANCELLED_BY_ADMIN}
)


class MadeFor(Enum):
    """Whose leaving ends a prediction."""

    CALLER = auto()
    """The one request that waits for it."""
    FOLLOWERS = auto()
    """All that follow its events."""
    ITSELF = auto()
    """Nobody's: it goes on."""


class LivePrediction:
    """One that runs; its own `Teller`.

    Args:
        prediction: What it is.
        exchange: What it holds; with its ticket at the gate.
        made_for: Whose leaving ends it.

    Attributes:
        on_event: Called after each of its events of these kinds.
    """

    def __init__(
        self,
        prediction: Prediction,
        exchange: Exchange,
        made_for: MadeFor,
    ) -> None:
        self.prediction = prediction
        self.exchange = exchange
        self.on_event: Callable[[WebhookEvent], None] = lambda _: None
        self._made_for = made_for
        self._lines: dict[Line, None] = {}
        self._ended = trio.Event()

    async def run(
        self,
        backend: Backend,
        asked: UpstreamRequest,
        *,
        queue_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        """Have it made; returns when it has ended, whatever ended it.

        Args:
            backend: The engine with its gates.
            asked: What llama-server is asked.
            queue_timeout_s: How long it may wait for a slot, in seconds.
            request_timeout_s: How long it may take as a whole, in seconds; 0 for no bound.

        Cancellation: it fails, as by a shutdown.
        """
        exchange = self.exchange
        if request_timeout_s:
            exchange.end_at(exchange.started_at + request_timeout_s, EndCause.DEADLINE_EXCEEDED)
        with backend.exchanges.open(exchange):
            try:
                with exchange.scope:
                    await self._generate(backend, asked, queue_timeout_s)
                exchange.note_deadline()
            except Exception:
                logger.exception("a prediction failed", extra={"request_id": exchange.request_id})
                exchange.end_by_defect(InternalError("The proxy made a mistake."))
            finally:
                exchange.release()
                self._conclude()

    async def _generate(
        self, backend: Backend, asked: UpstreamRequest, queue_timeout_s: float
    ) -> None:
        exchange = self.exchange
        try:
            await generate(backend, exchange, asked, self, queue_timeout_s=queue_timeout_s)
        except UpstreamFailed as error:
            await end_broken(backend, exchange, error)
        except HttpError as error:
            exchange.end(cause_of(error), error)
        else:
            exchange.finish()

    def _conclude(self) -> None:
        exchange, now = self.exchange, trio.current_time()
        if exchange.cause is EndCause.FINISHED and exchange.error is None:
            self.prediction.succeed(now)
        elif exchange.cause in _CANCELED:
            self.prediction.cancel(now)
        else:
            error = exchange.reply() or Unavailable("The server is shutting down.")
            self.prediction.fail(now, error.message)
        self._ended.set()
        for line in self._lines:
            line.wake()
        self.on_event(WebhookEvent.COMPLETED)

    @property
    def ending(self) -> bool:
        """Whether it is decided how it ends."""
        return self.exchange.cause is not None

    # -- what is told of it --

    def began(self) -> None:
        """Take that it has its slot."""
        self.prediction.start(trio.current_time())
        self.on_event(WebhookEvent.START)
        self.flush()

    def said(self, text: str) -> None:
        """Take a piece of its output."""
        if not self.prediction.add_output(text, trio.current_time()):
            raise InvalidRequest("The output is larger than a prediction may hold.")
        self.on_event(WebhookEvent.OUTPUT)

    def thought(self, text: str) -> None:
        """Take a piece of what the model thought before."""
        self.prediction.add_log(text)
        self.on_event(WebhookEvent.LOGS)

    def measured(self, metrics: dict[str, int | float]) -> None:
        """Take what llama-server measured."""
        for name, value in metrics.items():
            self.prediction.add_metric(name, value)
        self.flush()

    def flush(self) -> None:
        """Let everybody who follows it have what is new."""
        for line in self._lines:
            line.deliver()

    # -- who follows it --

    def unfollow(self, cursor: Cursor, *, left: bool) -> None:
        """Take that nobody reads `cursor` any more.

        Args:
            cursor: Whose; idempotent.
            left: Whether its reader went away by itself.
        """
        nobody_waits = cursor.leave()
        if left and nobody_waits and self._made_for is MadeFor.FOLLOWERS:
            self.end(EndCause.CLIENT_DISCONNECTED)

    def caller_left(self) -> None:
        """Take that the request that made it is gone."""
        if self._made_for is MadeFor.CALLER:
            self.end(EndCause.CLIENT_DISCONNECTED)

    def end(self, cause: EndCause) -> None:
        """End it for `cause`, at once; a later cause changes nothing."""
        self.exchange.end(cause)

    @contextmanager
    def heard_on(self, line: Line) -> Iterator[None]:
        """Deliver news to `line` while the block runs; ask first whether there are some already."""
        self._lines[line] = None
        try:
            yield
        finally:
            del self._lines[line]

    async def wait_ended(self) -> None:
        """Wait until it has ended."""
        await self._ended.wait()
