"""All promises at once: thousands of exchanges that end in every way, and nothing is left."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.promises.churn.command import churned_proxy
from tests.promises.churn.plan import errands
from tests.promises.churn.run import MAY_GROW_BYTES, WARM_UP, Churn, settled

SEED = 20261121
EXCHANGES = 2000
# At these errands llama-server is killed.
KILLS = frozenset({800, 1400})
CAUSES = {
    *("finished", "client_disconnected", "client_too_slow"),
    *("cancelled_by_admin", "deadline_exceeded", "upstream_crashed"),
}


def test_plan_of_a_seed_is_always_the_same() -> None:
    """And that of another seed is another one."""
    assert list(islice(errands(1), 500)) == list(islice(errands(1), 500))
    assert list(islice(errands(1), 500)) != list(islice(errands(2), 500))


# Half a minute on two cores that do other work beside it.
@pytest.mark.timeout(180)
async def test_churn_leaves_nothing() -> None:
    """Exchanges, permits, slots, descriptors, children, tasks and memory are as they were."""
    async with churned_proxy() as proxy:
        churn = Churn(proxy, SEED)
        await churn.run(lambda number: number < WARM_UP)
        before = await proxy.holdings()

        def goes_on(number: int) -> bool:
            if number in KILLS:
                proxy.kill_engine()
            return number < EXCHANGES

        await churn.run(goes_on)
        assert await settled(proxy, before) == {}
        metrics = await proxy.metrics()
        assert {cause for cause in CAUSES if not metrics[cause]} == set()
        assert metrics["llama_proxy_engine_restarts_total"] == len(KILLS)
        assert proxy.resident_bytes() - before.resident_bytes < MAY_GROW_BYTES
        assert proxy.defects() == ""
        await proxy.stop()
