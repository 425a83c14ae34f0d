"""The proxy answers predictions as Cog's own server does, but for what its documentation lists.

Each case is played at both, over real sockets, and what it saw is compared (`case.py`).
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import trio

from tests.conformance import rows
from tests.conformance.case import Case, Outcome
from tests.conformance.cases.all import ALL
from tests.conformance.sides import Pair, Side

PAGE = Path(__file__).parents[2] / "docs" / "predictions.md"
CASES = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in ALL])


async def play(case: Case, side: Side, prediction: str, outcomes: dict[Side, Outcome]) -> None:
    """Play a case at one side."""
    if case.idle:
        await side.wait_health("READY")
    outcomes[side] = await case.play(side, prediction)


async def play_at_both(case: Case, pair: Pair) -> tuple[Outcome, Outcome]:
    """Play a case at both sides at once, and return what it saw at Cog's and at ours."""
    outcomes: dict[Side, Outcome] = {}
    prediction = f"case-{secrets.token_hex(4)}"
    pair.sound = False
    async with trio.open_nursery() as nursery:
        for side in (pair.cog, pair.ours):
            nursery.start_soon(play, case, side, prediction, outcomes)
    pair.sound = True
    return outcomes[pair.cog], outcomes[pair.ours]


@CASES
async def test_case_played_at_both_has_the_same_outcome(case: Case, pair: Pair) -> None:
    """What a client sees is what it sees of Cog, where no difference is deliberate."""
    cog, ours = await play_at_both(case, pair)
    assert ours == case.expected(cog)
    # One that there is no longer is to be taken out of the documentation.
    assert [each for each in case.differs if not each.is_from(cog)] == []


def documented_rows() -> list[str]:
    """Return how the rows of the list of differences begin."""
    _, _, section = PAGE.read_text().partition("\n## Differences from coglet 0.23.1\n")
    section, _, _ = section.partition("\n## ")
    cells = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return [cell for cell in cells if cell != "coglet" and set(cell) != {"-"}]


def test_differences_in_the_documentation_are_those_of_the_cases() -> None:
    """Each reason that a case gives has its row, and each row a case, or a reason for none."""
    reasons = {each.reason for case in ALL for each in case.differs}
    assert sorted(documented_rows()) == sorted(reasons | rows.NOT_PLAYED.keys())


def test_names_of_cases_are_theirs_alone() -> None:
    """A case that fails is found by its name."""
    assert len({case.name for case in ALL}) == len(ALL)
