"""One launch of llama-server: its process, its address, its key, and what its output says.

Owns what is true of one launch only and is gone with it. Takes no decision (`runtime.supervisor`
does).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import trio

from proxy.core.loglines import LineSplitter, LogRing, listening_port, load_progress
from proxy.runtime.plan import LaunchPlan
from proxy.runtime.process import start_process
from proxy.runtime.readiness import SignsOfLife

logger = logging.getLogger("proxy.engine")


class Launched:
    """One launch, from its start on.

    Args:
        plan: What to start.
        logs: Where its lines go.
        heard: Called after each piece of output.

    Raises:
        OSError: When the program cannot be executed.

    Attributes:
        process: The process.
        address: Where it listens.
        api_key: The key it asks for. Secret.
        signs: When something was last heard of it.
        is_loaded: Whether it has been ready; the supervisor sets it.
        progress: How much of the model is loaded, 0 to 1; None while it does not tell.
        last_line: What it said last, finished or not.
    """

    def __init__(self, plan: LaunchPlan, logs: LogRing, heard: Callable[[], None]) -> None:
        self.address = plan.address
        self.api_key = plan.api_key
        self.signs = SignsOfLife(trio.current_time())
        self.is_loaded = False
        self.progress: float | None = None
        self.last_line = ""
        self._logs = logs
        self._heard = heard
        self._splitter = LineSplitter()
        self._address_known = trio.Event()
        if self.address.is_known:
            self._address_known.set()
        self.process = start_process(plan.argv, env=plan.environment, on_output=self._on_output)

    async def wait_address(self) -> None:
        """Return when `address` can be dialled: a port that the system chose is told in the log."""
        await self._address_known.wait()

    async def close(self) -> None:
        """Take the last output and release the process's descriptors, after it has been reaped."""
        await self.process.release()
        for line in self._splitter.flush():
            self._take(line)
        self._heard()

    def _on_output(self, data: bytes) -> None:
        self.signs.note(trio.current_time())
        for line in self._splitter.feed(data):
            self._take(line)
        if partial := self._splitter.partial:
            self._look_at(self._logs.cleaned(partial))
        self._heard()

    def _take(self, raw: bytes) -> None:
        line = self._logs.append(raw)
        logger.debug("llama-server: %s", line)
        self._look_at(line)
        port = None if self._address_known.is_set() else listening_port(line)
        if port is not None:
            self.address = replace(self.address, port=port)
            self._address_known.set()

    def _look_at(self, line: str) -> None:
        self.last_line = line or self.last_line
        self.progress = load_progress(line) or self.progress
