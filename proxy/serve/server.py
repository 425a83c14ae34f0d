"""A running proxy, as who opened it sees it, and the order of its shutdown.

Shutdown, in this order: nothing new is accepted; what is in flight may finish; what is left is
ended with `shutting_down` and told so; what is left then is reset; the engine stops last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from proxy.core.causes import EndCause
from proxy.runtime.backend import Backend
from proxy.runtime.stream_tokens import StreamTokens

if TYPE_CHECKING:
    from proxy.http1.guard import Guard
    from proxy.predictions.book import PredictionBook

# After the drain time each client left is told why and then cut; this is how long the telling may
# take.
FAREWELL_S = 1.0


class ProxyServer:
    """A running proxy, as `open_proxy` yields it.

    Attributes:
        url: Its base URL, for this machine.
        port: Its TCP port.
        fast_url: The fast path's base URL, for this machine; None without a fast path.
        stream_tokens: Makes one-time tokens for the fast path.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        backend: Backend,
        stream_tokens: StreamTokens,
        predictions: PredictionBook,
        *,
        url: str,
        port: int,
        fast_url: str | None,
        drain_s: float,
    ) -> None:
        self.url = url
        self.port = port
        self.fast_url = fast_url
        self.stream_tokens = stream_tokens
        self._guards = tuple(guards)
        self._backend = backend
        self._predictions = predictions
        self._drain_s = drain_s

    @property
    def in_flight(self) -> int:
        """How many exchanges are under way."""
        return len(self._backend.exchanges)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return sum(guard.connections for guard in self._guards)

    async def drain(self) -> None:
        """Stop accepting, let what is in flight finish for the drain time, then end what is left.

        Exchanges that are left are ended with `shutting_down`, which their clients are told.
        Returns when every connection is gone.

        Cancellation: what is left is reset at once.
        """
        self._backend.shut_down()
        try:
            with trio.move_on_after(self._drain_s):
                await self._drain_guards()
                await self._predictions.wait_none_left()
            self._backend.exchanges.end_all(EndCause.SHUTTING_DOWN)
            with trio.move_on_after(FAREWELL_S):
                await self._drain_guards()
                await self._predictions.wait_none_left()
        finally:
            for guard in self._guards:
                guard.abort()
        await self._drain_guards()

    async def _drain_guards(self) -> None:
        async with trio.open_nursery() as nursery:
            for guard in self._guards:
                nursery.start_soon(guard.drain)
