"""One launch of llama-server: its process, its address, its key, and what its output says.

Owns what is true of one launch only and is gone with it. Takes no decision (`runtime.supervisor` does).
"""

from __future__ import annotations

import logging
import ntpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import trio

from proxy.core.errors import UpstreamFailed
from proxy.core.loglines import LineSplitter, LogRing, listening_port, load_progress
from proxy.runtime.address import Address
from proxy.runtime.outbound import ControlClient
from proxy.runtime.process import start_process
from proxy.runtime.readiness import SignsOfLife

logger = logging.getLogger("proxy.engine")


@dataclass(frozen=True, slots=True, repr=False)
class LaunchPlan:
    """Everything that a launch is made of; without a repr, for it holds the key."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    address: Address
    api_key: str


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
        self.process = start_process(
            plan.argv, env=plan.environment, on_output=self._on_output
        )

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


@dataclass(frozen=True, slots=True)
class Properties:
    """What `GET /props` tells that we use; None where it does not."""

    total_slots: int | None = None
    model: str | None = None


async def describe_props(client: ControlClient, timeout_s: float) -> Properties:
    """Ask for `/props`; a llama-server that refuses or does not answer in time tells nothing."""
    with trio.move_on_after(timeout_s):
        try:
            return read_props(await client.props())
        except UpstreamFailed as error:
            logger.warning("the number of slots is not known: %s", error)
    return Properties()


def read_props(props: Mapping[str, object]) -> Properties:
    """Return what we use of the answer to `GET /props`."""
    slots = props.get("total_slots")
    known = isinstance(slots, int) and not isinstance(slots, bool) and slots > 0
    return Properties(slots if known else None, _model_name(props))


def _model_name(props: Mapping[str, object]) -> str | None:
    for key in ("model_alias", "model_path"):
        told = props.get(key)
        if isinstance(told, str) and told:
            # ntpath takes both kinds of slashes: an upstream may run on another system than we do.
            return ntpath.basename(told).removesuffix(".gguf")
    return None
