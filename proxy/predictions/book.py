"""The predictions there are: those that run, and those that have ended and are kept a while.

Owns the ids, the nursery in which predictions run, and their webhooks. A prediction belongs to the
key that made it: another key neither sees it nor stands in the way of its id.

State: a prediction is in `_live` from when it has its place in the queue until it has ended, and
in `_finished` after that, for as long as `core.predictions.retention` keeps it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from proxy.core.errors import QueueFull, Unavailable
from proxy.core.predictions.event_log import MAX_EVENTS, EventLog
from proxy.core.predictions.inputs import UpstreamRequest
from proxy.core.predictions.prediction import Prediction, Status
from proxy.core.predictions.refusals import AtCapacity, IdInUse, NotSetUp
from proxy.core.predictions.requests import PredictionRequest
from proxy.core.predictions.retention import MAX_BYTES, FinishedPredictions
from proxy.core.status.about import describe_request
from proxy.predictions.generation import model_of
from proxy.predictions.live import LivePrediction, MadeFor
from proxy.predictions.reporting import ReportSettings, make_sender
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.gate import Ticket

logger = logging.getLogger("proxy.predictions")

# The route of their exchanges, in logs and metrics.
ROUTE = "/predictions"
# A dead receiver keeps what it is to be told for minutes: so many of them are waited for, and as
# many bytes as predictions that have ended may have.
_MAX_ONLY_TELLING = 1000
_MAX_TELLING_BYTES = MAX_BYTES


@dataclass(frozen=True, slots=True)
class PredictionSettings:
    """How predictions are treated; times in seconds, 0 for none.

    Attributes:
        queue_timeout_s: How long one may wait for a slot.
        request_timeout_s: How long one may take as a whole.
        reports: How receivers of webhooks are told.
        show_content: Keep of each what the status page shows of its prompt.
        history: How many events of a prediction are kept for those who come late or lag; 0: nothing
            is replayed, and a lag is bounded as usual.
    """

    queue_timeout_s: float = 120.0
    request_timeout_s: float = 0.0
    reports: ReportSettings = field(default_factory=ReportSettings)
    show_content: bool = False
    history: int = MAX_EVENTS


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be done for a prediction."""

    asked: UpstreamRequest
    request: PredictionRequest
    trace: Mapping[str, str]


Place = tuple[str | None, str]
"""Whose it is, and its id."""


class PredictionBook:
    """All predictions of one backend.

    `run` has to run meanwhile.

    Args:
        backend: The engine with its gates.
        settings: How they are treated.

    Attributes:
        settings: How they are treated.
    """

    def __init__(self, backend: Backend, settings: PredictionSettings | None = None) -> None:
        self._backend = backend
        self.settings = PredictionSettings() if settings is None else settings
        self._live: dict[Place, LivePrediction] = {}
        self._finished: FinishedPredictions[Place] = FinishedPredictions()
        # Those that are held only until their receivers are told, with their sizes.
        self._telling: dict[Prediction, int] = {}
        self._kept_one = trio.Event()
        self._tasks = 0
        self._none_left = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let predictions run until this is cancelled.

        Cancellation: those that run fail; webhooks that are still to be sent are not.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._forget_expired()

    async def _forget_expired(self) -> None:
        while True:
            self._finished.drop_expired(trio.current_time())
            expiry = self._finished.next_expiry()
            if expiry is not None:
                await trio.sleep_until(expiry)
                continue
            self._kept_one = trio.Event()
            await self._kept_one.wait()

    @property
    def counts(self) -> Counter[str]:
        """How many there are, by status; those that have ended as long as they are kept."""
        found = [live.prediction for live in self._live.values()]
        return Counter(prediction.status.value for prediction in (*found, *self._finished))

    async def wait_none_left(self) -> None:
        """Wait until none runs and no webhook is to be sent.

        Cancellation: nothing changes.
        """
        while self._tasks:
            # Several may wait: each event is everybody's.
            if self._none_left.is_set():
                self._none_left = trio.Event()
            await self._none_left.wait()

    def live(self, place: Place) -> LivePrediction | None:
        """Return one that runs."""
        return self._live.get(place)

    def finished(self, place: Place) -> Prediction | None:
        """Return one that has ended and is kept."""
        return self._finished.get(place, trio.current_time())

    def create(
        self,
        place: Place,
        request: PredictionRequest,
        asked: UpstreamRequest,
        made_for: MadeFor,
        *,
        request_id: str,
        trace: Mapping[str, str] | None = None,
    ) -> LivePrediction:
        """Make a prediction; it runs from now on.

        Args:
            place: Whose it is, and its id.
            request: What its client wants.
            asked: What llama-server is asked for it.
            made_for: Whose leaving ends it.
            request_id: The id of the request that makes it, for logs.
            trace: Its `traceparent` and `tracestate`, for the webhook.

        Raises:
            IdInUse: There is one with this id.
            AtCapacity: As many as may wait for a slot.
            NotSetUp: There is no engine to wait for.
            HttpError: We are shutting down.
        """
        if self._nursery is None:
            raise RuntimeError("run is not running")
        if place in self._live or self.finished(place) is not None:
            raise IdInUse
        exchange = Exchange(request_id, ROUTE, "POST", trio.current_time())
        exchange.key_name, exchange.upstream_route = place[0], asked.path
        exchange.uses_slot = True
        exchange.about = describe_request(
            asked.path,
            # What its client asked for: llama-server is always asked for a stream.
            {**asked.fields, "stream": made_for is MadeFor.FOLLOWERS},
            session=None,
            fast_path=False,
            prediction=True,
            content=self.settings.show_content,
        )
        history = self.settings.history
        log = EventLog(history or MAX_EVENTS, replay=history > 0)
        live = LivePrediction(Prediction(place[1], exchange.started_at, log), exchange, made_for)
        # Last: what fails before it holds no permit, and from here on the task gives it back.
        exchange.ticket = self._enter_gate(model_of(asked))
        self._live[place] = live
        self._tasks += 1
        job, name = _Job(asked, request, trace or {}), f"prediction {place[1]}"
        self._nursery.start_soon(self._run_one, place, live, job, name=name)
        return live

    def _enter_gate(self, model: str | None) -> Ticket:
        gate = self._backend.gate_for(gated=True, model=model)
        try:
            return gate.enter()
        except QueueFull as error:
            raise AtCapacity(error.retry_after_s or 1) from error
        except Unavailable as error:
            if self._backend.shutting_down:
                raise
            raise NotSetUp from error

    async def _run_one(self, place: Place, live: LivePrediction, job: _Job) -> None:
        settings = self.settings
        try:
            async with trio.open_nursery() as nursery:
                reports = await self._begin_reports(nursery, live, job)
                try:
                    await live.run(
                        self._backend,
                        job.asked,
                        queue_timeout_s=settings.queue_timeout_s,
                        request_timeout_s=settings.request_timeout_s,
                    )
                finally:
                    self._retire(place, live.prediction)
                if reports and not self._may_go_on_telling(live.prediction):
                    logger.warning("too many webhooks wait for their receivers; one is given up")
                    nursery.cancel_scope.cancel()
                elif live.prediction.status is Status.SUCCEEDED:
                    await self._learn_slots(job.asked)
        finally:
            self._telling.pop(live.prediction, None)
            self._tasks -= 1
            if not self._tasks:
                self._none_left.set()

    async def _begin_reports(self, nursery: trio.Nursery, live: LivePrediction, job: _Job) -> bool:
        """Have its receiver told from now on; return whether there is one."""
        request = job.request
        url, events, prediction = request.webhook, request.webhook_events_filter, live.prediction
        if url is None or not events:
            return False
        # Cancelled here it would never have an end. An import cannot be broken off anyway.
        with trio.CancelScope(shield=True):
            sender = await make_sender(url, events, prediction, self.settings.reports, job.trace)
        live.on_event = sender.notify
        nursery.start_soon(sender.run, name=f"webhook of prediction {prediction.id}")
        return True

    async def _learn_slots(self, asked: UpstreamRequest) -> None:
        model = model_of(asked)
        if model is not None and not self._backend.knows_slots(model):
            await self._backend.ask_slots(model)

    def _may_go_on_telling(self, prediction: Prediction) -> bool:
        """Count it among those that are held for their receivers, if the others leave room."""
        held = self._telling.values()
        if len(held) >= _MAX_ONLY_TELLING or sum(held) > _MAX_TELLING_BYTES:
            return False
        self._telling[prediction] = prediction.size
        return True

    def _retire(self, place: Place, prediction: Prediction) -> None:
        del self._live[place]
        self._finished.add(place, prediction, trio.current_time())
        self._kept_one.set()
