"""An engine without a process: its states are a test's, its moves are the real table's."""

from __future__ import annotations

from contextlib import suppress

from proxy.core.errors import EngineError, EngineFailed
from proxy.core.lifecycle import EngineEvent, EngineState, ExitStatus
from proxy.runtime.address import Address
from proxy.runtime.external import ExternalServer
from proxy.runtime.supervisor import LlamaServer
from tests.fakes.engines import fake_discovered


class StagedEngine(LlamaServer):
    """A llama-server of ours that only says that it runs.

    Attributes:
        told_address: Where it says it listens.
        restarts_asked: How often `restart` was called.
    """

    def __init__(self, *, slots: int | None = 2, ready: bool = True) -> None:
        super().__init__(fake_discovered(), model_path="/models/tiny.gguf")
        self.told_address = Address(host="127.0.0.1", port=1)
        self.restarts_asked = 0
        self._slots = slots
        self.launch()
        if ready:
            self.load()

    @property
    def address(self) -> Address:
        """Where it says it listens."""
        return self.told_address

    @property
    def api_key(self) -> str:
        """Any key."""
        return "staged-key"

    def launch(self) -> None:
        """Begin a launch."""
        self.generation += 1
        self.failure = None
        self._move(EngineEvent.LAUNCH)

    def load(self) -> None:
        """Be ready."""
        self.total_slots = self._slots
        self._move(EngineEvent.LOADED)

    def _note_times(self) -> None:
        # Where no Trio runs there is no clock, and nobody asks for times.
        with suppress(RuntimeError):
            super()._note_times()

    def crash(self, returncode: int = -9) -> None:
        """End without being asked."""
        self._remember_exit(ExitStatus(returncode))
        self._move(EngineEvent.EXITED)

    def give_up(self, failure: EngineError | None = None) -> None:
        """Fail for good, after a crash."""
        self._fail(failure or EngineFailed("It crash-looped.", ("loading /secret/tiny.gguf",)))

    def begin_stop(self) -> None:
        """Be asked to stop."""
        self._move(EngineEvent.STOP)

    def finish(self) -> None:
        """Be stopped for good."""
        self._move(EngineEvent.STOP)
        self._move(EngineEvent.EXITED)
        self._finish()

    async def restart(self) -> None:
        """Launch again at once, if that is still possible."""
        self.restarts_asked += 1
        if self._finished:
            self._raise_if_over()
        if self.state is EngineState.READY:
            self._move(EngineEvent.STOP)
            self._move(EngineEvent.EXITED)
        self.launch()


def external_engine(url: str = "http://127.0.0.1:1", *, slots: int | None = None) -> ExternalServer:
    """Return a llama-server of somebody else's that is said to be ready."""
    engine = ExternalServer(url)
    engine._move(EngineEvent.LAUNCH)
    engine.generation, engine.total_slots = 1, slots
    engine._move(EngineEvent.LOADED)
    return engine
