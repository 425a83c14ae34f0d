"""A llama-server that somebody else runs: followed, never started, stopped or restarted.

Owns the reading of its URL and the following of its health. Shows the same as `LlamaServer` does,
so that nobody else needs to know the difference; what only a process has (pid, exit, log) is
absent.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

import trio

from proxy.core.errors import ConfigError
from proxy.core.lifecycle import EngineEvent, EngineState, ExitStatus
from proxy.runtime.address import Address
from proxy.runtime.engine import EngineView
from proxy.runtime.outbound import ControlClient
from proxy.runtime.properties import ask_properties
from proxy.runtime.readiness import probe

# Answers that mean "not now": a gateway in front of it that cannot reach it, or itself while it
# loads. Any other one, also 404 from a server without this route, is somebody there who can be
# asked.
_NOT_NOW = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
# While it is away people wait for it: look more often than while it is well.
_AWAY_INTERVAL_S = 0.5

_PORTS = {"http": 80, "https": 443}


class ExternalServer(EngineView):
    """A llama-server that we do not manage.

    Args:
        url: Its base URL, `http` or `https`, perhaps with a path.
        api_key: Its key, or None when it asks for none.
        probe_interval_s: Seconds between two looks at whether it answers.
        probe_timeout_s: How long a look waits.
        away_after: So many looks without an answer, in a row, mean that it is away.

    Raises:
        ConfigError: When the URL is not usable.

    Attributes:
        api_key: As given. Secret.
    """

    pid = None
    load_progress = None

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        probe_interval_s: float = 5.0,
        probe_timeout_s: float = 10.0,
        away_after: int = 2,
    ) -> None:
        super().__init__()
        self.api_key = api_key
        self._address = parse_url(url)
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._away_after = away_after

    def __repr__(self) -> str:
        return f"<ExternalServer {self._address.url} {self.state}>"

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._address

    async def wait_exited(self, generation: int) -> ExitStatus:
        """Never return: the end of a process that is not ours cannot be seen."""
        await trio.sleep_forever()
        raise AssertionError(generation)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow it until cancelled. `task_status` is told at once, wherever it may be.

        Cancellation: the state becomes `stopped`; nothing is left behind.
        """
        client = ControlClient(self._address, self.api_key)
        try:
            while True:
                self._move(EngineEvent.LAUNCH, self._address.url)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await self._until_there(client)
                await self._until_away(client)
        finally:
            self._settle()

    async def _until_there(self, client: ControlClient) -> None:
        # A server that is not ours has no event to wait for.
        while not await self._is_there(client):  # noqa: ASYNC110
            await trio.sleep(min(_AWAY_INTERVAL_S, self._probe_interval_s))
        found = await ask_properties(client, self._probe_timeout_s)
        self.total_slots, self.model = found.total_slots, found.model
        self.generation += 1
        self._move(EngineEvent.LOADED, f"{self.model}, {self.total_slots} slots")

    async def _until_away(self, client: ControlClient) -> None:
        missed = 0
        while missed < self._away_after:
            await trio.sleep(self._probe_interval_s)
            missed = 0 if await self._is_there(client) else missed + 1
        self._move(EngineEvent.EXITED, "it does not answer")

    async def _is_there(self, client: ControlClient) -> bool:
        status = await probe(client, self._probe_timeout_s)
        return status is not None and status not in _NOT_NOW

    def _settle(self) -> None:
        if self.state is EngineState.CRASHED:
            self._move(EngineEvent.STOP)
        elif self.state is not EngineState.STOPPED:
            self._move(EngineEvent.STOP)
            self._move(EngineEvent.EXITED)
        self._finish()


def parse_url(url: str) -> Address:
    """Read the base URL of a llama-server.

    Raises:
        ConfigError: When it is not an `http` or `https` URL with a host, or has parts that have no
            meaning here. The message never repeats the URL, which may hold a password.
    """
    parts = _split(url)
    _require(parts.scheme in _PORTS, "must begin with http:// or https://")
    _require(bool(parts.hostname), "must name a host")
    _require(parts.username is None, "must not hold a password; use --upstream-api-key-file")
    _require(not parts.query and not parts.fragment, "must end with the path, without ? or #")
    host, port = parts.hostname or "", _port_of(parts)
    shown = f"[{host}]" if ":" in host else host
    return Address(
        host=host,
        port=port,
        tls=parts.scheme == "https",
        authority=shown if port == _PORTS[parts.scheme] else f"{shown}:{port}",
        base_path=parts.path.rstrip("/"),
    )


def _split(url: str) -> SplitResult:
    _require(url.isascii() and url.isprintable() and " " not in url, "must be plain ASCII")
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ConfigError("The upstream URL cannot be read.") from error


def _port_of(parts: SplitResult) -> int:
    try:
        return parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise ConfigError("The upstream URL must have a port between 1 and 65535.") from error


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ConfigError(f"The upstream URL {what}.")
