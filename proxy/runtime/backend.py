"""The backend: one engine, its gates and the exchanges on it. Both listeners serve the same one.

Owns how the engine's state moves the gates and ends exchanges:

    starting, first load   gates closed: 503 "Loading model", as llama-server itself answers
    ready                  gates open with the engine's slots
    crashed, restarting    exchanges of that launch end with `upstream_crashed`; gates held, who
                           comes waits
    failed                 gates closed: 503 with the reason
    stopping, stopped      gates held

A gated route takes a permit, one per slot; every other route passes a gate without a bound, which
is there so that it waits for a restart like the rest. With a router there is a gate for each model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlencode

import trio

from proxy.core.admission import retry_after_s
from proxy.core.causes import EndCause, Phase
from proxy.core.errors import (
    EngineError,
    HttpError,
    NotFound,
    Unavailable,
    UpstreamCrashed,
    UpstreamFailed,
)
from proxy.core.lifecycle import EngineState
from proxy.core.loglines import without_folders
from proxy.runtime.exchange import ExchangeRegistry
from proxy.runtime.external import ExternalServer
from proxy.runtime.gate import Gate
from proxy.runtime.outbound import ControlClient
from proxy.runtime.pump import Pump
from proxy.runtime.supervisor import LlamaServer

LOADING = "Loading model"
AWAY = "llama-server cannot be reached, or is still loading its model."
STOPPING = "The server is shutting down."
# A router may be asked for any name; beyond this many the models that nobody uses are forgotten.
MAX_MODEL_GATES = 256
# The kernel closes a dying process's sockets before it reports the process's end; between the two
# lie microseconds. This bounds the wait for the report, so that a crash is called a crash.
_EXIT_REPORT_S = 0.5
# Enough of the log to see why it failed; the operator has the rest under /proxy/logs.
_TOLD_LINES = 10
# llama-server answers questions about itself from memory, at once, even while it decodes.
_QUESTION_S = 2.0


Engine = LlamaServer | ExternalServer


class Backend:
    """One engine with its gates and exchanges.

    Args:
        engine: The llama-server behind us.
        max_queue: How many exchanges may wait at a gate.
        slots: Permits, where llama-server does not tell its slots; None for no bound then.
        router: Whether llama-server serves several models, each with slots of its own.
        drain_s: How long what is in flight may go on before a restart, in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int,
        slots: int | None = None,
        router: bool = False,
        drain_s: float = 30.0,
    ) -> None:
        self.engine = engine
        self.exchanges = ExchangeRegistry()
        self.pump = Pump(on_activity=engine.note_activity)
        self._max_queue = max_queue
        self._slots = slots
        self._router = router
        self._drain_s = drain_s
        self._shutting_down = False
        self._restarting = False
        self._restart_wanted = trio.Event()
        self.on_shut_down: Callable[[], None] = lambda: None
        self.first_ready = trio.Event()
        self._passage = self._make_gate(bounded=False)
        self._gates: dict[str, Gate] = {}
        self._permits: dict[str, int] = {}
        self._unwatch = engine.watch(self._engine_changed)
        self._engine_changed()

    async def run(self) -> None:
        """Move streams and carry out restarts, until cancelled; then leave the engine alone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump.run)
            await self._carry_out_restarts()

    async def _carry_out_restarts(self) -> None:
        try:
            while True:
                await self._restart_wanted.wait()
                # Whoever stopped it for good meanwhile is right: there is nothing to restart.
                with suppress(EngineError):
                    await self._restart()
                self._restart_wanted = trio.Event()
        finally:
            self._unwatch()

    @property
    def managed(self) -> LlamaServer:
        """The engine, where its process is ours.

        Raises:
            NotFound: When somebody else runs it.
        """
        if isinstance(self.engine, LlamaServer):
            return self.engine
        raise NotFound("This llama-server is run by somebody else: its log and its restart too.")

    def request_restart(self) -> None:
        """Have llama-server restarted, also out of `failed`, once what is in flight has drained.

        Asking again while a restart is under way changes nothing.

        Raises:
            NotFound: When llama-server is not ours to restart.
            Unavailable: When it has been stopped for good.
        """
        if self.managed.state is EngineState.STOPPED:
            raise Unavailable("llama-server has been stopped and stays so.")
        if self.managed.state is not EngineState.STOPPING:
            self._restart_wanted.set()

    async def _restart(self) -> None:
        engine = self.managed
        self._restarting = True
        self._engine_changed()
        with trio.move_on_after(self._drain_s):
            await self.exchanges.wait_none_on_engine()
        self.exchanges.end_all(
            EndCause.UPSTREAM_ERROR,
            lambda: UpstreamFailed("llama-server is being restarted by an administrator."),
            only=lambda exchange: exchange.generation is not None,
        )
        await self.exchanges.wait_none_on_engine()
        self._restarting = False
        await engine.restart()

    @property
    def shutting_down(self) -> bool:
        """Whether nothing new is taken on any more."""
        return self._shutting_down

    def shut_down(self) -> None:
        """Refuse what comes and end what waits from now on; what holds a permit goes on."""
        self._shutting_down = True
        self.on_shut_down()
        # Before the gates close: that would be a refusal, which counts as an answer.
        self.exchanges.end_all(
            EndCause.SHUTTING_DOWN, only=lambda exchange: exchange.phase is Phase.QUEUED
        )
        self._engine_changed()

    def gate_for(self, *, gated: bool, model: str | None) -> Gate:
        """Return the gate that an exchange has to pass.

        Args:
            gated: Whether its route uses a slot.
            model: The model that its body names; matters only with a router.
        """
        if not gated:
            return self._passage
        name = model or "" if self._router else ""
        if name not in self._gates:
            self._forget_idle_gates()
            self._gates[name] = self._make_gate(bounded=True)
            self._set_mood(self._gates[name], self._permits_of(name))
        return self._gates[name]

    def learn_slots(self, model: str, slots: int) -> None:
        """Set the permits of a router's model, once it is loaded and its slots are known."""
        self._permits[model] = slots
        if model in self._gates:
            self._set_mood(self._gates[model], slots)

    def knows_slots(self, model: str) -> bool:
        """Whether nothing more is to be learned of the model's slots."""
        return not self._router or model in self._permits

    @property
    def gates(self) -> dict[str, Gate]:
        """The gates in use, by model; without a router the only name is empty."""
        return dict(self._gates)

    def unavailable(self) -> HttpError:
        """Return why no request can be answered now, in one error for the client."""
        if self._shutting_down:
            return Unavailable(STOPPING)
        failure = self.engine.failure
        if failure is not None:
            return Unavailable(
                f"llama-server has failed: {failure.reason}",
                log_tail=tuple(without_folders(line) for line in failure.log_tail[-_TOLD_LINES:]),
            )
        if not self.first_ready.is_set():
            if isinstance(self.engine, ExternalServer):
                return Unavailable(AWAY, retry_after_s=5)
            return Unavailable(LOADING, retry_after_s=2)
        return Unavailable("llama-server is restarting. Try again in a moment.", retry_after_s=5)

    def obstacle(self) -> HttpError | None:
        """Return why the engine keeps requests waiting; None while it serves."""
        return None if self.engine.state is EngineState.READY else self.unavailable()

    def control(self) -> ControlClient:
        """Return what asks the engine about itself, in its current launch."""
        return ControlClient(self.engine.address, self.engine.api_key)

    async def ask_slots(self, model: str) -> None:
        """Learn the slots of a router's model from llama-server; silent when it does not tell."""
        with trio.move_on_after(_QUESTION_S), suppress(UpstreamFailed):
            props = await self.control().get_json("/props?" + urlencode({"model": model}))
            slots = props.get("total_slots") if isinstance(props, dict) else None
            if isinstance(slots, int) and slots > 0:
                self.learn_slots(model, slots)

    async def end_conversation(self, conversation: str) -> None:
        """Stop what llama-server goes on generating for a conversation whose client is gone."""
        with suppress(UpstreamFailed):
            await self.control().delete("/v1/stream?" + urlencode({"conv_id": conversation}))

    async def crashed(self, generation: int) -> bool:
        """Tell whether launch `generation` has ended, now that its connection broke.

        Waits a moment for the report of the process's end, which follows that of its sockets.
        """
        if self.engine.generation != generation:
            return True
        with trio.move_on_after(_EXIT_REPORT_S):
            await self.engine.wait_exited(generation)
            return True
        return False

    def crash_error(self) -> UpstreamCrashed:
        """Return what the client of an exchange on a crashed llama-server is told."""
        status = self.engine.last_exit
        how = f" ({status.describe()})" if status is not None else ""
        return UpstreamCrashed(f"llama-server crashed{how} during the exchange.")

    def _make_gate(self, *, bounded: bool) -> Gate:
        if not bounded:
            return Gate(max_queue=self._max_queue)
        return Gate(
            max_queue=self._max_queue,
            on_queue_full=lambda found: retry_after_s(found.queued, found.permits or 1),
        )

    def _permits_of(self, model: str) -> int | None:
        if self._router:
            # One at a time until the model is loaded: the first request loads it.
            return self._permits.get(model, 1)
        return self.engine.total_slots or self._slots

    def _engine_changed(self) -> None:
        if self.engine.state is EngineState.READY:
            self.first_ready.set()
        elif self.engine.state is EngineState.CRASHED:
            self.exchanges.end_all(
                EndCause.UPSTREAM_CRASHED,
                self.crash_error,
                only=lambda exchange: exchange.generation is not None,
            )
        self._set_mood(self._passage, None)
        for name, gate in self._gates.items():
            self._set_mood(gate, self._permits_of(name))

    def _set_mood(self, gate: Gate, permits: int | None) -> None:
        if self._shutting_down or self.engine.failure is not None or not self.first_ready.is_set():
            gate.close(self.unavailable)
        elif self.engine.state is EngineState.READY and not self._restarting:
            gate.open(permits)
        else:
            gate.hold()

    def _forget_idle_gates(self) -> None:
        if len(self._gates) < MAX_MODEL_GATES:
            return
        for name, gate in list(self._gates.items()):
            found = gate.statistics()
            if not found.admitted and not found.queued:
                del self._gates[name]
                self._permits.pop(name, None)
