"""`scripts/soak`: the churn for some minutes, with a live line of counts and a table at the end.

Exit: 0 nothing was left; 1 something was, or an answer was not honest; 2 usage. Ctrl-C ends the
churn in order, and what was seen until then is judged.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping

import trio

from tests.promises.churn.client import Dishonest
from tests.promises.churn.command import ChurnedProxy, Holdings, churned_proxy
from tests.promises.churn.run import MAY_GROW_BYTES, WARM_UP, Churn, settled

# The restart policy forgets a crash after 60 s: so each is restarted as promptly as the first.
_KILL_EVERY_S = 65.0
# A question to llama-server that takes longer waits for its restart.
_RESTARTS_AFTER_S = 0.5
_MIB = 1024 * 1024
# To a file or a pipe a line now and then is enough.
_LINE_EVERY_S = (1.0, 10.0)


class Soak:
    """A churn that somebody watches.

    Args:
        proxy: The proxy.
        seed: Of the churn's plan.
        minutes: How long.
    """

    def __init__(self, proxy: ChurnedProxy, seed: int, minutes: float) -> None:
        self._proxy = proxy
        self._churn = Churn(proxy, seed)
        self._ends_at = trio.current_time() + minutes * 60
        self._asked_to_stop = False
        self._before: Holdings | None = None

    async def run(self) -> list[str]:
        """Run it; return what is wrong, one sentence each."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._listen)
            nursery.start_soon(self._show)
            await self._churn.run(lambda number: number < WARM_UP and not self._asked_to_stop)
            self._before = await self._proxy.holdings()
            nursery.start_soon(self._kill_engine)
            await self._churn.run(lambda _: self._goes_on())
            nursery.cancel_scope.cancel()
        left = await settled(self._proxy, self._before)
        await self._show_table(await self._proxy.holdings())
        return self._judge(left)

    def _goes_on(self) -> bool:
        return trio.current_time() < self._ends_at and not self._asked_to_stop

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as arrived:
            task_status.started()
            async for _ in arrived:
                self._asked_to_stop = True

    async def _kill_engine(self) -> None:
        while True:
            await trio.sleep(_KILL_EVERY_S)
            self._proxy.kill_engine()

    async def _show(self) -> None:
        on_terminal = sys.stdout.isatty()
        while True:
            await trio.sleep(_LINE_EVERY_S[not on_terminal])
            line = await _line(self._proxy)
            print(f"\r\033[K{line}" if on_terminal else line, end="", flush=True)
            if not on_terminal:
                print()

    async def _show_table(self, after: Holdings) -> None:
        before = self._before or after
        metrics = await self._proxy.metrics()
        print(f"\n\n{self._churn.begun} errands\n\nended, as the proxy counts")
        for cause, count in _causes(metrics).items():
            print(f"  {cause:<24}{count:>8}")
        print("\nplanned, and what its client saw")
        for (end, outcome), count in sorted(self._churn.outcomes.items()):
            print(f"  {end:<24}{outcome:<24}{count:>8}")
        print("\nheld                     before   after")
        for name in ("in_flight", "admitted", "queued", "busy_slots", "children"):
            print(f"  {name:<22}{getattr(before, name):>7}{getattr(after, name):>8}")
        for name, held in (("descriptors", _descriptors), ("tasks", _tasks), ("MiB", _mebibytes)):
            print(f"  {name:<22}{held(before):>7}{held(after):>8}")

    def _judge(self, left: Mapping[str, object]) -> list[str]:
        wrong = [f"{name} are not as they were: {found}" for name, found in left.items()]
        before = self._before.resident_bytes if self._before is not None else 0
        grown = self._proxy.resident_bytes() - before
        if grown > MAY_GROW_BYTES:
            wrong.append(f"its memory has grown by {grown / _MIB:.1f} MiB.")
        if self._proxy.defects():
            wrong.append(f"its log has a traceback:\n{self._proxy.defects()}")
        return wrong


async def _line(proxy: ChurnedProxy) -> str:
    metrics = await proxy.metrics()
    busy: int | None = None
    with trio.move_on_after(_RESTARTS_AFTER_S):
        busy = await proxy.busy_slots()
    causes = " ".join(f"{cause} {count}" for cause, count in _causes(metrics).items())
    return (
        f"{causes} | in flight {metrics['llama_proxy_exchanges_in_flight']:.0f}"
        f" queued {metrics['llama_proxy_gate_queued']:.0f}"
        f" slots busy {'-' if busy is None else busy}"
        f" | {proxy.resident_bytes() / _MIB:.1f} MiB"
        f" | descriptors {proxy.descriptors()}"
        f" | restarts {metrics['llama_proxy_engine_restarts_total']:.0f}"
    )


def _causes(metrics: Mapping[str, float]) -> dict[str, int]:
    ours = {name: int(value) for name, value in metrics.items() if not name.startswith("llama_")}
    return dict(sorted(ours.items()))


def _descriptors(holdings: Holdings) -> int:
    return sum(holdings.descriptors.values())


def _tasks(holdings: Holdings) -> int:
    return holdings.tasks.count("\n")


def _mebibytes(holdings: Holdings) -> str:
    return f"{holdings.resident_bytes / _MIB:.1f}"


async def _soak(minutes: float, seed: int) -> int:
    async with churned_proxy() as proxy:
        wrong = await Soak(proxy, seed, minutes).run()
        await proxy.stop()
    for sentence in wrong:
        print(f"soak: {sentence}", file=sys.stderr)
    print("\nnothing is left" if not wrong else "\nsomething is wrong")
    return 1 if wrong else 0


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the plan (1)")
    options = parser.parse_args()
    try:
        return trio.run(_soak, options.minutes, options.seed)
    except* Dishonest as group:
        print(f"\nsoak: {group.exceptions}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
