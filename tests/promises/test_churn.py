"""All promises at once: thousands of exchanges that end in every way, and nothing is left."""

from __future__ import annotations

import os
from itertools import islice

import pytest

from tests.promises.churn.command import churned_proxy
from tests.promises.churn.plan import errands
from tests.promises.churn.run import Churn, settled

SEED = 20261121
EXCHANGES = int(os.environ.get("CHURN_EXCHANGES", "2000"))
# After so many every buffer, import and allocator arena is there.
WARM_UP = 400
KILLS = frozenset({EXCHANGES // 3, 2 * EXCHANGES // 3})
MAY_GROW_BYTES = 8 * 1024 * 1024


def test_plan_is_repeatable() -> None:
    """The same seed gives the same errands, another one others."""
    assert list(islice(errands(1), 500)) == list(islice(errands(1), 500))
    assert list(islice(errands(1), 500)) != list(islice(errands(2), 500))


@pytest.mark.timeout(180)
async def test_churn_leaves_nothing() -> None:
    """Exchanges, permits, slots, descriptors, children, tasks and memory are as before."""
    async with churned_proxy() as proxy:
        churn = Churn(proxy, SEED)
        await churn.run(lambda number: number < WARM_UP)
        before = await proxy.holdings()
        print(before)

        def goes_on(number: int) -> bool:
            if number in KILLS:
                proxy.kill_engine()
            return number < EXCHANGES

        await churn.run(goes_on)
        left = await settled(proxy, before)
        print(churn.outcomes)
        print(await proxy.metrics())
        print(proxy.resident_bytes() - before.resident_bytes)
        print(proxy.log()[-3000:])
        assert left == {}
        await proxy.stop()
