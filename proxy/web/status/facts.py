"""Where the facts of the status page come from: the backend, its engine, this process.

Owns the look at each of them, and the history. It asks nobody and waits for nothing; what is made
of the facts is `core.status`'s.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import trio

from proxy._version import __version__
from proxy.core.causes import EndCause, Phase
from proxy.core.lifecycle import EngineState
from proxy.core.loglines import without_folders
from proxy.core.status.facts import (
    EngineFacts,
    ExchangeFacts,
    GateFacts,
    ProxyFacts,
    StreamTokenFacts,
)
from proxy.core.status.history import History
from proxy.core.status.snapshot import history_entry, snapshot_object
from proxy.predictions.book import PredictionBook
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.stream_tokens import StreamTokens
from proxy.runtime.supervisor import LlamaServer
from proxy.runtime.task_tree import TaskNode, task_tree
from proxy.web.status.shown import Shown

_LOG_LINES = 20
_RUNNING = frozenset({EngineState.STARTING, EngineState.READY, EngineState.STOPPING})
_STATM = Path("/proc/self/statm")
# The tree of a thousand tasks takes milliseconds, and nobody reads it that fast.
_TREE_PERIOD_S = 1.0


class Facts:
    """Finds what is told of a backend.

    Args:
        backend: The engine with its gates.
        book: The predictions.
        tokens: The stream tokens.
        content: Whether texts are shown.

    Attributes:
        count_connections: Returns how many clients are connected.
        count_viewers: Returns how many watch.
    """

    def __init__(
        self, backend: Backend, book: PredictionBook, tokens: StreamTokens, *, content: bool
    ) -> None:
        self._backend = backend
        self._book = book
        self._tokens = tokens
        self._content = content
        self._history = History()
        self._began_at = trio.current_time()
        self._tree: TaskNode | None = None
        self._tree_at = 0.0
        self.count_connections: Callable[[], int] = lambda: 0
        self.count_viewers: Callable[[], int] = lambda: 0

    def note_ended(self, exchange: Exchange) -> None:
        """Keep what is told of an exchange that used a slot and is over now."""
        if exchange.uses_slot:
            cause = (exchange.cause or EndCause.SHUTTING_DOWN).value
            facts = _exchange_facts(exchange, None)
            self._history.add(history_entry(facts, cause=cause, ended_at=_unix_now()))

    def snapshot(self, shown: Mapping[Exchange, Shown], *, with_texts: bool) -> dict[str, object]:
        """Return everything there is to know.

        Args:
            shown: What is shown of those in flight.
            with_texts: Whether texts are in it, where they are shown at all.
        """
        backend, tree = self._backend, self._task_tree()
        return snapshot_object(
            exchanges=[
                _exchange_facts(each, shown.get(each), news=not with_texts)
                for each in backend.exchanges
            ],
            total_requests=backend.exchanges.total,
            history=self._history.entries,
            engine=_engine_facts(backend),
            gates=_gate_facts(backend),
            stream_tokens=StreamTokenFacts(self._tokens.outstanding, self._tokens.running),
            predictions=self._book.counts,
            proxy=self._proxy_facts(tree),
            tasks=tree.as_object(),
            content=self._content,
            with_texts=with_texts and self._content,
            now=_unix_now(),
        )

    def _task_tree(self) -> TaskNode:
        now = trio.current_time()
        if self._tree is None or now - self._tree_at >= _TREE_PERIOD_S:
            self._tree, self._tree_at = task_tree(), now
        return self._tree

    def _proxy_facts(self, tree: TaskNode) -> ProxyFacts:
        return ProxyFacts(
            version=__version__,
            uptime_s=trio.current_time() - self._began_at,
            rss_bytes=_resident_bytes(),
            tasks=tree.count(),
            connections=self.count_connections(),
            viewers=self.count_viewers(),
        )


def _exchange_facts(
    exchange: Exchange, shown: Shown | None, *, news: bool = False
) -> ExchangeFacts:
    now = trio.current_time()
    first = exchange.first_byte_at
    seen = exchange.sent.events
    if shown is not None and exchange.phase is Phase.DECODE:
        shown.rate.add(now, seen)
    return ExchangeFacts(
        request_id=exchange.request_id,
        method=exchange.method,
        route=exchange.route,
        phase=exchange.phase.value,
        started_at=_unix_now() - (now - exchange.started_at),
        elapsed_s=now - exchange.started_at,
        uses_slot=exchange.uses_slot,
        position=0 if exchange.ticket is None else exchange.ticket.position,
        cause=None if exchange.cause is None else exchange.cause.value,
        status=exchange.status,
        about=exchange.about,
        key=exchange.key_name,
        queued_s=_since(exchange.started_at, exchange.admitted_at),
        first_token_s=_since(exchange.started_at, first),
        progress=exchange.progress,
        timings=exchange.timings,
        seen_tokens=seen,
        tokens_per_second=None if shown is None else shown.rate.per_second,
        sent_bytes=exchange.sent.bytes,
        text=None if shown is None else shown.texts["text"],
        thought=None if shown is None else shown.texts["thought"],
        text_cut=shown is not None and shown.cut,
        tells_prompt=news and shown is not None and shown.take_prompt(),
    )


def _gate_facts(backend: Backend) -> list[GateFacts]:
    found = [
        GateFacts(gate.permits, gate.admitted, gate.queued, model)
        for model, gate in ((model, gate.statistics()) for model, gate in backend.gates.items())
    ]
    # Nobody has come to it yet.
    return found or [GateFacts(backend.engine.total_slots, 0, 0)]


def _engine_facts(backend: Backend) -> EngineFacts:
    engine = backend.engine
    managed = engine if isinstance(engine, LlamaServer) else None
    since = engine.launched_at if engine.state in _RUNNING else None
    return EngineFacts(
        state=engine.state.value,
        model=engine.model,
        slots=engine.total_slots,
        restarts=engine.restarts,
        generation=engine.generation,
        uptime_s=None if since is None else trio.current_time() - since,
        pid=None if managed is None else managed.pid,
        last_exit=None if engine.last_exit is None else engine.last_exit.describe(),
        failure=None if engine.failure is None else engine.failure.reason,
        progress=None if managed is None else managed.load_progress,
        managed=managed is not None,
        log=()
        if managed is None
        else tuple(without_folders(line) for line in managed.logs.tail(_LOG_LINES)),
    )


def _since(start: float, end: float | None) -> float | None:
    return None if end is None else end - start


def _unix_now() -> float:
    return datetime.now(UTC).timestamp()


def _resident_bytes() -> int | None:
    """Return the process's resident set; None where the kernel does not tell it so (proc(5))."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * mmap.PAGESIZE
