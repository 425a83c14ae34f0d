"""Whether a llama-server is loaded, stuck in its load, or hung.

Owns the probes and their times. Knows neither processes nor states: it asks the control client and
looks at the signs of life that it is shown, and returns a verdict by returning.
"""

from __future__ import annotations

from http import HTTPStatus

import trio

from proxy.core.errors import UpstreamFailed
from proxy.runtime.outbound import ControlClient

# Between two probes of a load, however fast it logs: a probe costs llama-server a connection.
_MIN_GAP_S = 0.02
# Without log lines the gap doubles up to this; it is what a silent load is noticed late by, at
# most.
_MAX_GAP_S = 0.5


class SignsOfLife:
    """When something was last heard: a log line, or bytes of an answer.

    Args:
        now: Trio time; the beginning counts as a sign.
    """

    def __init__(self, now: float) -> None:
        self.last = now
        self._heard = trio.Event()

    def note(self, now: float) -> None:
        """Something was heard."""
        self.last = now
        self._heard.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next sign; return whether it came within `timeout_s`."""
        self._heard = trio.Event()
        with trio.move_on_after(timeout_s):
            await self._heard.wait()
        return self._heard.is_set()


async def wait_loaded(client: ControlClient, signs: SignsOfLife, timeout_s: float) -> None:
    """Return when `GET /health` answers 200.

    Args:
        client: Asks.
        signs: Wake the next probe early: what is logged may be that the load is done.
        timeout_s: For one probe.

    Cancellation: nothing is left behind.
    """
    gap_s = _MIN_GAP_S
    while await probe(client, timeout_s) != HTTPStatus.OK:
        before = signs.last
        await trio.sleep(_MIN_GAP_S)
        heard = signs.last > before or await signs.wait(gap_s - _MIN_GAP_S)
        gap_s = _MIN_GAP_S if heard else min(gap_s * 2, _MAX_GAP_S)


async def wait_stalled(signs: SignsOfLife, stall_s: float) -> None:
    """Return when nothing has been heard for `stall_s` seconds."""
    while True:
        deadline = signs.last + stall_s
        if trio.current_time() >= deadline:
            return
        await trio.sleep_until(deadline)


async def wait_hung(
    client: ControlClient, signs: SignsOfLife, *, interval_s: float, timeout_s: float, misses: int
) -> None:
    """Return when `misses` probes in a row had no answer and nothing else was heard meanwhile.

    Any answer will do, whatever its status. A llama-server that logs or sends is not hung, even
    when all of its HTTP threads are busy and none is left for the probe.
    """
    missed = 0
    while missed < misses:
        await trio.sleep(interval_s)
        asked = trio.current_time()
        answered = await probe(client, timeout_s) is not None
        missed = 0 if answered or signs.last >= asked else missed + 1


async def probe(client: ControlClient, timeout_s: float) -> int | None:
    """Return the status of `GET /health`; None when there was no answer in time."""
    with trio.move_on_after(timeout_s):
        try:
            return await client.health()
        except UpstreamFailed:
            return None
    return None
