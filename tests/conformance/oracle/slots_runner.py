"""The oracle's model for several predictions at once.

For that Cog wants an asynchronous runner, of which it keeps all chunks until the end: what depends
on their times needs `runner.py`, which also says how this is loaded.
"""

# Cog owns this process: it waits as Cog's worker does, Trio is not here.
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cog import BaseRunner, streaming

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.conformance.oracle.runner import play, words_of


class Runner(BaseRunner):  # type: ignore[misc]  # Cog's SDK has no types
    """Several predictions at once, all chunks of one at its end."""

    @streaming
    async def run(
        self, prompt: str = "", messages: list[dict[str, Any]] | None = None, **_: object
    ) -> AsyncIterator[str]:
        """Play the prompt."""
        for made in play(self, words_of(prompt, messages)):
            if isinstance(made, str):
                yield made
            else:
                await asyncio.sleep(made)
