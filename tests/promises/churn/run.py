"""A churn: many clients at once, each with an errand from the plan, until enough have come.

Owns the workers, the count of what came out, and the killing of llama-server now and then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import trio

from tests.promises.churn.client import Outcome, run_errand
from tests.promises.churn.command import ChurnedProxy, Holdings
from tests.promises.churn.plan import End, Errand, errands

# Four times the slots: some are served, some wait, and now and then the queue overflows.
CONCURRENCY = 32
# A refused client comes again later (`Retry-After` says seconds; this churn has no such time).
_RETRY_S = 0.2
# llama-server ends an answer that nobody waits for within a second; a busy machine takes longer.
_SETTLE_S = 20.0
# While it restarts it cannot be looked at either.
_LOOK_AGAIN_S = 0.05
# Until every buffer, import and allocator arena is there.
WARM_UP = 400
# Measured: under 1 MiB in 1,600 exchanges. Were the buffer of each (64 KiB) kept it would be 100,
# were it its objects only (10 KiB) it would be 16.
MAY_GROW_BYTES = 8 * 1024 * 1024


class Churn:
    """Clients of one proxy.

    Args:
        proxy: The proxy.
        seed: Of the plan.

    Attributes:
        outcomes: How often each end that was planned had each outcome.
        begun: How many errands have begun.
    """

    def __init__(self, proxy: ChurnedProxy, seed: int) -> None:
        self.outcomes: Counter[tuple[End, Outcome]] = Counter()
        self.begun = 0
        self._proxy = proxy
        self._port = proxy.port
        self._seed = seed
        self._plan = errands(seed)

    async def run(self, goes_on: Callable[[int], bool]) -> None:
        """Send clients as long as `goes_on(number)` says so for the next; returns at their end.

        Raises:
            Dishonest: When an answer looks complete and is not.
        """
        planned = self._take(goes_on)
        async with trio.open_nursery() as nursery:
            for _ in range(CONCURRENCY):
                nursery.start_soon(self._work, planned)

    def _take(self, goes_on: Callable[[int], bool]) -> Iterator[Errand]:
        while goes_on(self.begun):
            self.begun += 1
            yield next(self._plan)

    async def _work(self, planned: Iterator[Errand]) -> None:
        for errand in planned:
            request_id = f"churn-{self._seed}-{errand.number}"
            outcome = await run_errand(errand, self._port, request_id)
            self.outcomes[errand.end, outcome] += 1
            if outcome is Outcome.REFUSED:
                await trio.sleep(_RETRY_S)


async def settled(proxy: ChurnedProxy, before: Holdings) -> dict[str, object]:
    """Wait until the proxy holds what it held before; return what is left if it does not."""
    left: dict[str, object] = {"nothing": "was seen"}
    with trio.move_on_after(_SETTLE_S):
        while left := (await proxy.holdings()).left(before):
            await trio.sleep(_LOOK_AGAIN_S)
    return left
