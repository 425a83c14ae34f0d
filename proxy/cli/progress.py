"""The display of a model being loaded: a bar on a terminal, lines of the log elsewhere.

Owns what is shown and how often. It only ever looks at the engine.
"""

from __future__ import annotations

import logging
from typing import Protocol, TextIO

import trio

from proxy.cli.output import write

# Often enough for a bar to seem to move.
_REDRAW_S = 0.1
# A log of a load of minutes should show that it goes on, and no more.
_LINE_EVERY_S = 10.0
_BAR_WIDTH = 24
_ERASE_LINE = "\x1b[K"

_logger = logging.getLogger(__name__)


class Loading(Protocol):
    """What the display needs of an engine: how far its load is, 0 to 1, None while unknown."""

    @property
    def load_progress(self) -> float | None:
        """Return the part that is loaded."""


async def show_bar(engine: Loading, what: str, stream: TextIO) -> None:
    """Show on a terminal how the load goes on, until cancelled.

    Args:
        engine: What is being loaded.
        what: What to call it, "loading model.gguf".
        stream: The terminal.

    Cancellation: The bar is erased.
    """
    started = trio.current_time()
    try:
        while True:
            text = describe(what, engine.load_progress, trio.current_time() - started, bar=True)
            # The cursor goes back to the line's start: a log line that comes overwrites the bar.
            write(stream, f"{text}{_ERASE_LINE}\r")
            await trio.sleep(_REDRAW_S)
    finally:
        write(stream, _ERASE_LINE)


async def log_lines(engine: Loading, what: str) -> None:
    """Log at once and every 10 s how the load goes on, until cancelled.

    Args:
        engine: What is being loaded.
        what: What to call it, "loading model.gguf".

    Cancellation: Nothing is left behind.
    """
    started = trio.current_time()
    while True:
        text = describe(what, engine.load_progress, trio.current_time() - started, bar=False)
        _logger.info("%s", text)
        await trio.sleep(_LINE_EVERY_S)


def describe(what: str, fraction: float | None, elapsed_s: float, *, bar: bool) -> str:
    """Return one state of the load in words, or as a bar where the fraction is known."""
    parts = [what]
    if fraction is not None:
        done = min(max(fraction, 0.0), 1.0)
        if bar:
            filled = round(done * _BAR_WIDTH)
            parts.append(f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}]")
        parts.append(f"{done:4.0%}")
    if elapsed_s >= 1:
        parts.append(f"{elapsed_s:.0f} s")
    return " ".join(parts)
