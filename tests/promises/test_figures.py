"""The command that measures what docs/promises.md says in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.promises.figures import __main__ as command
from tests.promises.figures import leaving
from tests.promises.figures.leaving import MOMENTS, Case, Moment
from tests.promises.figures.pair import running_pair
from tests.promises.listeners import MAIN
from tests.promises.observe import FREE_WITHIN_S


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_each_moment_is_within_the_promise(moment: Moment) -> None:
    """Once for each way to leave, beside others."""
    case = Case(MAIN, moment, moment.others[-1], stream=True)
    async with running_pair(*leaving.ENGINE_OPTIONS) as pair:
        assert max(await case.measure(pair, 3)) < FREE_WITHIN_S


def test_figures_take_the_place_of_the_last_ones(tmp_path: Path) -> None:
    """Between the marks; the rest of the document stays."""
    begin, end = command.MARKS
    document = tmp_path / "promises.md"
    document.write_text(f"before\n{begin}old\n{end}after\n")
    command.write_into(document, "new\n")
    assert document.read_text() == f"before\n{begin}\nnew\n\n{end}after\n"


def test_document_without_a_place_for_figures_is_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is added at its end, where nobody looks for it."""
    document = tmp_path / "promises.md"
    document.write_text("text\n")
    with pytest.raises(ValueError, match="no place"):
        command.write_into(document, "new\n")
    assert document.read_text() == "text\n"
