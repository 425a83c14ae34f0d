"""The display of a load: a bar on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import pytest
import trio
import trio.testing

from proxy.cli import progress


@dataclass
class Engine:
    """An engine that has loaded so much."""

    load_progress: float | None = None


@pytest.mark.parametrize(
    ("fraction", "elapsed_s", "bar", "text"),
    [
        (None, 0.5, True, "loading x"),
        (None, 61.4, False, "loading x 61 s"),
        (0.5, 3.0, False, "loading x  50% 3 s"),
        (0.5, 0.0, True, "loading x [############............]  50%"),
        (1.7, 0.0, False, "loading x 100%"),
        (-1.0, 0.0, False, "loading x   0%"),
    ],
)
def test_load_is_described(fraction: float | None, elapsed_s: float, bar: bool, text: str) -> None:
    """With what is known, and within 0 and 100 %."""
    assert progress.describe("loading x", fraction, elapsed_s, bar=bar) == text


async def test_log_lines_come_at_once_and_then_every_ten_seconds(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A log is to show that it goes on, and no more."""
    caplog.set_level("INFO", "proxy")
    engine = Engine()
    with trio.move_on_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(progress.log_lines, engine, "loading x")
            await trio.sleep(5)
            engine.load_progress = 0.25
    assert caplog.messages == ["loading x", "loading x  25% 10 s"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A pseudo-terminal: the descriptor that reads what the stream shows, and the stream."""
    leader, follower = os.openpty()
    with open(follower, "w", encoding="utf-8") as stream:  # noqa: PTH123  # a descriptor, no path
        yield leader, stream
    os.close(leader)


async def test_bar_on_a_terminal_is_drawn_over_itself_and_erased(
    terminal: tuple[int, TextIO], autojump_clock: trio.testing.MockClock
) -> None:
    """The cursor stays at the line's start, so that log lines overwrite the bar."""
    leader, stream = terminal
    with trio.move_on_after(0.25):
        await progress.show_bar(Engine(0.5), "loading x", stream)
    drawn = ""
    # The kernel hands a terminal's output over in pieces; a missing end runs into the test's limit.
    while not drawn.endswith("\r\x1b[K"):
        drawn += os.read(leader, 4096).decode()
    assert drawn.count("loading x [############............]  50%\x1b[K\r") == 3
