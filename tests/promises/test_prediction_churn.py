"""Predictions under all promises at once: followers that come, leave, lag and resume, and crashes.

500 predictions in every mode, with llama-server killed twice: whoever stays is told exactly one
end, and nothing is left.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from itertools import islice

import pytest
import trio

import proxy
from proxy import Phase
from proxy.core.predictions.prediction import Prediction
from proxy.predictions.book import ROUTE
from tests.left_behind import Leftovers
from tests.promises.churn.prediction_client import Outcome, Party
from tests.promises.churn.prediction_plan import Habit, Making, Mode, makings
from tests.promises.observe import leaves_nothing, until

SEED = 20261127
PREDICTIONS = 500
# At these llama-server is killed.
KILLS = frozenset({180, 340})
# Three times the slots: some run, some wait.
CONCURRENCY = 24
# Short, so that it is not a matter of thousands of events to come too late.
HISTORY = 128
# With room for an answer of any length, in each slot.
ENGINE_OPTIONS = ("-np", "8", "-c", "65536")
CAUSES = {"finished", "client_disconnected", "cancelled_by_client", "upstream_crashed"}
OUTCOMES = {
    *((habit, Outcome.COMPLETED) for habit in Habit),
    (Mode.BLOCKING, Outcome.ANSWERED),
    (Mode.BLOCKING, Outcome.LEFT),
    (Mode.ASYNC, Outcome.ANSWERED),
    (Habit.LEAVES, Outcome.LEFT),
    (Habit.LAGS, Outcome.LAGGED),
    (Habit.STAYS, Outcome.TRUNCATED),
}


def test_plan_of_a_seed_is_always_the_same() -> None:
    """And that of another seed is another one."""
    assert list(islice(makings(1), 200)) == list(islice(makings(1), 200))
    assert list(islice(makings(1), 200)) != list(islice(makings(2), 200))


# A quarter of a minute on two cores that do other work beside it.
@pytest.mark.timeout(120)
async def test_churn_of_predictions_leaves_nothing(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """Exchanges, permits, followers, tasks, descriptors: all are back; each end was told once."""
    caplog.set_level(logging.WARNING)
    async with (
        proxy.open_llama_server(extra_args=ENGINE_OPTIONS) as engine,
        proxy.open_proxy(engine, port=0, prediction_history=HISTORY) as server,
    ):
        async with leaves_nothing(server):
            outcomes = await churn(engine, server)
            await until(lambda: server.in_flight == 0)
        book = server._predictions
        assert book.counts.total() == PREDICTIONS
        assert not book.counts.keys() - {"succeeded", "canceled", "failed"}
        assert sum(kept.log.subscribers for kept in kept_predictions(server)) == 0
        assert "succeeded" not in {status(server, name) for name in abandoned()}
        counted = causes(server)
        assert counted.total() == PREDICTIONS
        assert set(counted) == CAUSES
        assert engine.restarts == len(KILLS)
    assert OUTCOMES - set(outcomes) == set()
    assert [record for record in caplog.records if record.exc_info] == []


async def churn(
    engine: proxy.LlamaServer, server: proxy.ProxyServer
) -> Counter[tuple[Mode | Habit, Outcome]]:
    """Play the plan; return what its clients have seen."""
    planned = islice(makings(SEED), PREDICTIONS)
    outcomes: Counter[tuple[Mode | Habit, Outcome]] = Counter()

    async def work() -> None:
        for making in planned:
            if making.number in KILLS:
                await until(lambda: decodes(server))
                os.kill(engine.pid or 0, signal.SIGKILL)
            outcomes.update(await played(server, making))

    async with trio.open_nursery() as nursery:
        for _ in range(CONCURRENCY):
            nursery.start_soon(work)
    return outcomes


def decodes(server: proxy.ProxyServer) -> bool:
    """Return whether there is output under way."""
    return any(found.phase is Phase.DECODE for found in server._backend.exchanges)


async def played(
    server: proxy.ProxyServer, making: Making
) -> Counter[tuple[Mode | Habit, Outcome]]:
    """Play one prediction with all its clients; return what they have seen."""
    party = Party(server, making)
    await party.run()
    return party.outcomes


def kept_predictions(server: proxy.ProxyServer) -> list[Prediction]:
    """Return all that have ended: in this churn none is forgotten."""
    found = list(server._predictions._finished)
    assert len(found) == PREDICTIONS
    return found


def abandoned() -> list[str]:
    """Return the ids of those whose only client leaves long before their end; there are some."""
    found = [making.name for making in islice(makings(SEED), PREDICTIONS) if making.is_abandoned]
    assert len(found) > 5
    return found


def status(server: proxy.ProxyServer, name: str) -> str:
    """Return how a prediction has ended."""
    found = server._predictions.finished((None, name))
    assert found is not None
    return found.status.value


def causes(server: proxy.ProxyServer) -> Counter[str]:
    """Return how the exchanges of predictions have ended, as metrics count them."""
    counted = server._backend.exchanges.measures.exchanges
    return Counter({cause: count for (route, cause), count in counted.items() if route == ROUTE})
