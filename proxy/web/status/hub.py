"""Who watches what the model does, and when they are told.

Owns the viewers. They are told when an exchange gets into another phase, and regularly besides; of
the text that passes, what is new. It is read only while somebody watches, and nobody waits for a
viewer. What is told is `facts`'s and `core.status`'s.

Whoever tells the hub is in the middle of an exchange, or decides on the engine: a defect here must
not be theirs. It is logged, and costs the viewers their connections, which they open anew.

State: `_shown` has what is shown of each exchange in flight while there is a viewer, and is empty
otherwise. The history is kept always, for whoever comes.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from functools import partial

import trio

from proxy.core.sound_text import sound_text
from proxy.core.sse import encode
from proxy.core.status.viewer import ViewerQueue
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.web.status.facts import Facts
from proxy.web.status.shown import Shown

logger = logging.getLogger("proxy.status")

# A page shows no more than that, and reads it without effort.
_STATUS_PERIOD_S = 0.25
# While nothing goes on, only memory and times change.
_IDLE_PERIOD_S = 1.0
# Tokens, and phases that follow each other faster, are told together.
_LEAST_GAP_S = 0.05
# One that reads has its last words in a millisecond; a shutdown does not wait for others.
_LAST_WORDS_S = 0.5


class Viewer:
    """One that watches.

    Attributes:
        queue: What it is still to be sent.
        over: Whether nothing more comes into the queue.
        life: What it is served in; cancelled when it is gone, or takes too long over its end.
    """

    def __init__(self) -> None:
        self.queue = ViewerQueue()
        self.over = False
        self.life = trio.CancelScope()
        self._news = trio.lowlevel.ParkingLot()

    def tell(self) -> None:
        """Have it look into its queue."""
        self._news.unpark_all()

    def end(self) -> None:
        """Have it served what is in its queue, and no more."""
        self.over = True
        self.life.deadline = trio.current_time() + _LAST_WORDS_S
        self.tell()

    async def wait_news(self) -> None:
        """Wait until there is something in its queue, or it is over; look first."""
        await self._news.park()


class StatusHub:
    """Tells viewers; an observer of the backend's exchanges.

    `run` has to run meanwhile.

    Args:
        backend: The engine with its gates.
        facts: Finds what is told.
        content: Whether texts are shown.
    """

    def __init__(self, backend: Backend, facts: Facts, *, content: bool) -> None:
        self._backend = backend
        self._facts = facts
        self._content = content
        self._viewers: dict[Viewer, None] = {}
        self._shown: dict[Exchange, Shown] = {}
        self._number = 0
        self._status_due_at = math.inf
        self._wake = trio.Event()
        self._closed = False
        self._defects_stay = _DefectsStay(self._send_away)
        facts.count_viewers = lambda: len(self._viewers)
        backend.exchanges.observer = self
        backend.on_shut_down = self.close

    async def run(self) -> None:
        """Tell the viewers until cancelled."""
        forget = self._backend.engine.watch(self._status_changed)
        try:
            while True:
                with trio.move_on_at(self._status_due_at):
                    await self._wake.wait()
                self._wake = trio.Event()
                with self._defects_stay:
                    self._tell()
                await trio.sleep(_LEAST_GAP_S)
        finally:
            forget()

    # -- viewers --

    def attach(self) -> Viewer:
        """Return a new viewer, which has everything there is to know in its queue.

        The text in it is what has been read; what has not is told to all.
        """
        viewer, is_first = Viewer(), not self._viewers
        self._viewers[viewer] = None
        try:
            for exchange in self._backend.exchanges if is_first else ():
                self._show(exchange)
                # The first status has it.
                self._shown[exchange].take_prompt()
            viewer.queue.put_status(self._status_frame(with_texts=True))
        except BaseException:
            self.detach(viewer)
            raise
        if self._closed:
            viewer.end()
        self._status_due_at = min(self._status_due_at, trio.current_time() + _STATUS_PERIOD_S)
        self._wake.set()
        return viewer

    def detach(self, viewer: Viewer) -> None:
        """Forget a viewer; harmless for one that is forgotten."""
        self._viewers.pop(viewer, None)
        if not self._viewers:
            for shown in self._shown.values():
                shown.end()
            self._shown.clear()
            self._status_due_at = math.inf

    def close(self) -> None:
        """Let the viewers end: a shutdown does not wait for who only watches."""
        self._closed = True
        for viewer in self._viewers:
            viewer.end()

    def snapshot(self) -> dict[str, object]:
        """Return everything there is to know, with the texts so far."""
        if self._viewers:
            return self._facts.snapshot(self._shown, with_texts=True)
        shown = {found: Shown(found, content=self._content) for found in self._backend.exchanges}
        return self._facts.snapshot(shown, with_texts=True)

    # -- the exchanges' observer --

    def opened(self, exchange: Exchange) -> None:
        """Take that there is a new exchange."""
        if self._viewers:
            with self._defects_stay:
                self._show(exchange)
                self._status_changed()

    def changed(self, exchange: Exchange) -> None:  # noqa: ARG002 - an observer's form
        """Take that one has another phase, or a cause."""
        self._status_changed()

    def ended(self, exchange: Exchange) -> None:
        """Take that one is over."""
        shown = self._shown.pop(exchange, None)
        with self._defects_stay:
            self._facts.note_ended(exchange)
            if shown is not None:
                shown.end()
                self._tell_tokens_of(shown)
                self._status_changed()

    def _show(self, exchange: Exchange) -> None:
        shown = self._shown[exchange] = Shown(exchange, content=self._content)
        if self._content:
            exchange.passing.watch = partial(self._passed, shown)

    def _passed(self, shown: Shown, data: bytes) -> None:
        with self._defects_stay:
            shown.take(data)
            self._wake.set()

    # -- telling --

    def _status_changed(self) -> None:
        if self._viewers:
            self._status_due_at = trio.current_time()
            self._wake.set()

    def _send_away(self) -> None:
        for viewer in tuple(self._viewers):
            viewer.end()
            self.detach(viewer)

    def _tell(self) -> None:
        # In this order: a token is told after the status that told of its exchange first.
        if trio.current_time() >= self._status_due_at:
            self._tell_status()
        self._tell_tokens()

    def _tell_status(self) -> None:
        busy = bool(self._shown)
        period = _STATUS_PERIOD_S if busy else _IDLE_PERIOD_S
        self._status_due_at = trio.current_time() + period if self._viewers else math.inf
        if self._viewers:
            frame = self._status_frame(with_texts=False)
            for viewer in self._viewers:
                viewer.queue.put_status(frame)
                viewer.tell()

    def _status_frame(self, *, with_texts: bool) -> bytes:
        self._number += 1
        snapshot = self._facts.snapshot(self._shown, with_texts=with_texts)
        return encode(compact_json(snapshot), event="status", id=str(self._number))

    def _tell_tokens(self) -> None:
        for shown in self._shown.values():
            self._tell_tokens_of(shown)

    def _tell_tokens_of(self, shown: Shown) -> None:
        for piece in shown.read():
            told = {
                "request_id": shown.exchange.request_id,
                "text": piece.text,
                "kind": piece.kind,
            }
            frame = encode(compact_json(told), event="token")
            for viewer in self._viewers:
                viewer.queue.put_token(frame)
                viewer.tell()


class _DefectsStay:
    """Ends an exception of its block, as a class for what is entered with each event.

    Args:
        after: What is done then.
    """

    __slots__ = ("_after",)

    def __init__(self, after: Callable[[], None]) -> None:
        self._after = after

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        logger.error("The status page's viewers are sent away.", exc_info=error)
        self._after()
        return True


def compact_json(value: object) -> str:
    """Return an object as JSON that can be sent, whatever names and log lines have in them."""
    return sound_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
