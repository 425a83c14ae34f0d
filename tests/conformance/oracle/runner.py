"""The model behind the oracle: a Cog runner that plays what its prompt says (`script.py`).

It is synchronous: its chunks come out as they are made, one prediction at a time.

Loaded by Cog's worker from its path, in a process and a folder of its own. Beside this file it
knows `script.py`, the folder `ends` (commands to predictions that have a name) and the folder
`begun` (their names, once they run).
"""

# Cog owns this process: it waits as Cog's worker does, Trio is not here.
# ruff: noqa: TID251

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cog import BaseRunner, streaming

# Cog loads this file by its path, in a folder of its own.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.conformance.oracle.script import (
    STALL_S,
    End,
    Line,
    Metric,
    Pause,
    Script,
    Token,
    read_script,
)

# How soon a prediction with a name ends when it is told to, and any when it is cancelled: Cog
# interrupts a synchronous runner only between two steps of Python code.
LOOK_AGAIN_S = 0.005

ENDS = Path("ends")
BEGUN = Path("begun")


class UpstreamBroke(Exception):
    """Stands for every way in which a llama-server breaks off without a crash."""


def begin(script: Script) -> None:
    """Let the tests see that this one runs."""
    if script.name is not None:
        (BEGUN / script.name).touch()


def told_end(script: Script) -> str | None:
    """Return how this prediction was told to end, if it was."""
    if script.name is None:
        return None
    try:
        return (ENDS / script.name).read_text()
    except FileNotFoundError:
        return None


def finish(how: str) -> None:
    """End as asked."""
    if how == "crash":
        os._exit(139)
    if how not in ("clean", "no_done"):
        raise UpstreamBroke(how)


def play(runner: BaseRunner, prompt: str) -> Iterator[str | float]:
    """Play a prompt: yields a chunk to send, or a time in seconds to wait."""
    script = read_script(prompt)
    begin(script)
    for step in script.steps:
        match step:
            case Token(text):
                yield text
            case Pause(duration_s):
                deadline = time.monotonic() + duration_s
                while (left_s := deadline - time.monotonic()) > 0:
                    if how := told_end(script):
                        finish(how)
                        return
                    yield min(left_s, LOOK_AGAIN_S)
            case Line(text, is_error):
                print(text, file=sys.stderr if is_error else sys.stdout, flush=True)
            case Metric(name, mode, value):
                runner.record_metric(name, value, mode=mode)
            case End(how):
                finish(how)


def words_of(prompt: str, messages: list[dict[str, Any]] | None) -> str:
    """Return what is played: the prompt, or else the last message, as the fake does."""
    return prompt or str((messages or [{}])[-1].get("content", ""))


def set_up() -> None:
    """Load the model, as the variable `ORACLE_SETUP` says: `fail`, `stall`, or at once."""
    how = os.environ.get("ORACLE_SETUP")
    if how == "fail":
        raise RuntimeError("setup went wrong")
    if how == "stall":
        time.sleep(STALL_S)


class Runner(BaseRunner):  # type: ignore[misc]  # Cog's SDK has no types
    """One prediction at a time, chunks as they are made."""

    def setup(self) -> None:
        """Load the model."""
        set_up()

    @streaming
    def run(
        self, prompt: str = "", messages: list[dict[str, Any]] | None = None, **_: object
    ) -> Iterator[str]:
        """Play the prompt."""
        for made in play(self, words_of(prompt, messages)):
            if isinstance(made, str):
                yield made
            else:
                time.sleep(made)
