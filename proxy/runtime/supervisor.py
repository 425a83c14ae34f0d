"""The llama-server that is ours: launched, probed, restarted and stopped here.

Owns the process and every decision on it is taken in one task, `LlamaServer.run`: the only writer
of the state. What ends a launch is a race between the process's end, a load that stalls, a server
that hangs, and somebody's request; whatever wins, the process is ended in order before anything
else is decided.

Decisions are in `core.lifecycle` (what follows a crash) and `core.loglines` (what the log says).
Knows nothing of clients, gates and exchanges: they watch.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from proxy.core.errors import EngineError, EngineFailed, EngineLoadFailed, EngineNotFound
from proxy.core.lifecycle import EngineEvent, EngineState, ExitStatus, GiveUp, RestartPolicy
from proxy.core.loglines import LogBatch, LogRing
from proxy.runtime.address import Address
from proxy.runtime.discovery import Discovered
from proxy.runtime.endings import ASKED_FOR, UNRESPONSIVE, Ending, explain, why_not_executed
from proxy.runtime.engine import EngineView
from proxy.runtime.launched import Launched
from proxy.runtime.outbound import ControlClient
from proxy.runtime.plan import LaunchPlanner
from proxy.runtime.private_dir import PrivateDir, make_private_dir
from proxy.runtime.properties import ask_properties
from proxy.runtime.readiness import wait_hung, wait_loaded, wait_stalled

logger = logging.getLogger("proxy.engine")

# What a shell answers for a program that it cannot find or execute.
_NOT_STARTED = ExitStatus(127)
# Enough for the reason and what led to it; a terminal shows it whole.
_TAIL_LINES = 30
# Ends of launches that somebody may still ask for.
_KEPT_EXITS = 16
# Beyond the grace: SIGKILL's wait, the last output, the guard. Each has a bound of its own; this is
# the sum.
_END_MARGIN_S = 10.0


class LlamaServer(EngineView):
    """A llama-server that we launch and keep running.

    Args:
        discovered: What to launch, from `find_engine`.
        model_path: The model's file; None for the packaged demo model, unless `extra_args` name
            one.
        extra_args: More arguments for llama-server, passed through unchanged.
        router: Whether it runs without a model of its own, as a router in front of several.
        environ: The environment to pass on; ours, if not given.
        load_stall_s: A load that logs nothing for so many seconds has failed.
        stop_grace_s: How long it may take to stop before it is killed.
        probe_interval_s: Seconds between two looks at whether it answers, once it is ready.
        probe_timeout_s: How long a probe waits for its answer.
        hung_after: So many probes without an answer, in a row, mean that it hangs; it is then
            restarted.
        exit_on_failed: Whether `run` raises `EngineFailed` after a crash loop rather than wait for
            `restart`.
        restart_policy: When to launch again after a crash.
        use_unix_socket: False listens on loopback TCP, as systems without unix sockets have to.

    Raises:
        ConfigError: When `extra_args` has an argument that the proxy owns, or more than one of
            them, `router` and `model_path` says what to serve.

    Attributes:
        router: As given.
        logs: The last lines of its output, of all launches.
        load_progress: How much of the model is loaded, 0 to 1; None while it does not tell.
        last_line: What it said last, finished or not.
    """

    def __init__(
        self,
        discovered: Discovered,
        *,
        model_path: str | os.PathLike[str] | None = None,
        extra_args: Sequence[str] = (),
        router: bool = False,
        environ: Mapping[str, str] | None = None,
        load_stall_s: float = 120.0,
        stop_grace_s: float = 10.0,
        probe_interval_s: float = 5.0,
        probe_timeout_s: float = 10.0,
        hung_after: int = 3,
        exit_on_failed: bool = False,
        restart_policy: RestartPolicy | None = None,
        use_unix_socket: bool = os.name == "posix",
    ) -> None:
        super().__init__()
        self.router = router
        self.logs = LogRing()
        self.load_progress: float | None = None
        self.last_line = ""
        self._planner = LaunchPlanner(
            discovered,
            model_path=model_path,
            extra_args=extra_args,
            router=router,
            environ=os.environ if environ is None else environ,
        )
        self._load_stall_s = load_stall_s
        self._stop_grace_s = stop_grace_s
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._hung_after = hung_after
        self._exit_on_failed = exit_on_failed
        self._policy = restart_policy or RestartPolicy()
        self._use_unix_socket = use_unix_socket
        self._launch: Launched | None = None
        self._dir: PrivateDir | None = None
        self._exits: dict[int, ExitStatus] = {}
        self._first_line = 0
        self._not_started = ""
        self._program_missing = False
        self._was_ready = False
        self._running = False
        self._request: Ending | None = None
        self._request_made = trio.Event()
        self._more_lines = trio.Event()

    def __repr__(self) -> str:
        return f"<LlamaServer {self.state} pid={self.pid} generation={self.generation}>"

    @property
    def pid(self) -> int | None:
        """The process id of llama-server; None while there is no process."""
        return None if self._launch is None else self._launch.process.pid

    @property
    def address(self) -> Address:
        """Where it listens in the current launch; over TCP, port 0 until it is known."""
        return Address() if self._launch is None else self._launch.address

    @property
    def api_key(self) -> str:
        """The key of the current launch, which every request to it needs. Secret."""
        return "" if self._launch is None else self._launch.api_key

    def note_activity(self) -> None:
        """Tell that it has just sent something, so that it does not count as hung. Cheap."""
        if self._launch is not None:
            self._launch.signs.note(trio.current_time())

    async def wait_exited(self, generation: int) -> ExitStatus:
        """Return when launch `generation` has ended, at once if it has already.

        Cancellation: nothing is left behind.
        """
        while generation not in self._exits:
            if generation < self.generation and self.last_exit is not None:
                return self.last_exit  # So long ago that its own end is forgotten.
            await self._changed.wait()
        return self._exits[generation]

    async def next_lines(self, number: int) -> LogBatch:
        """Return the log lines numbered `number` and higher; wait while there is none.

        Cancellation: nothing is lost; ask again.
        """
        while number >= self.logs.next_number:
            await self._more_lines.wait()
        return self.logs.since(number)

    async def restart(self) -> None:
        """Stop llama-server and launch it again, also out of `failed`; return once launched.

        What is in flight is the caller's to drain before. `wait_ready` tells whether the launch
        succeeds.

        Raises:
            EngineError: When `run` has ended or ends meanwhile.

        Cancellation: the restart takes place nevertheless.
        """
        before = self.generation
        self._ask(Ending.RESTART)
        while self.generation == before:
            if self._finished:
                self._raise_if_over()
            await self._changed.wait()

    async def stop(self) -> None:
        """Stop llama-server for good; `run` then returns. Returns when it is gone.

        Cancellation: it is stopped nevertheless.
        """
        if not self._running:
            return
        self._ask(Ending.STOP)
        while not self._finished:
            await self._changed.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Launch llama-server and keep it running until `stop` or cancellation. Once in its life.

        `task_status` is told as soon as the process is launched, long before it is ready.

        Raises:
            EngineNotFound: When there is no such program.
            EngineLoadFailed: When the first launch ends, or stalls, before it is ready.
            EngineFailed: After a crash loop, if `exit_on_failed`.

        Cancellation: llama-server is stopped in order (SIGTERM, the grace, SIGKILL for it and all
            that it forked), shielded and bounded; no process, descriptor or folder stays.
        """
        if self._running or self._finished:
            raise RuntimeError("run() has been called before")
        self._running = True
        try:
            with self._place():
                await self._supervise(task_status)
        finally:
            self._settle()

    async def _supervise(self, task_status: trio.TaskStatus[None]) -> None:
        while True:
            ending = await self._run_launch(task_status)
            if ending not in ASKED_FOR:
                ending = await self._after_crash(ending)
            if ending is Ending.STOP:
                return
            task_status = trio.TASK_STATUS_IGNORED

    async def _run_launch(self, task_status: trio.TaskStatus[None]) -> Ending:
        """Launch once; return why it is over, when nothing of it is left."""
        try:
            launch = self._start()
        except OSError as error:
            return self._did_not_start(error)
        ending = Ending.STOP  # What a cancellation amounts to.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launch.process.drain)
            try:
                self._move(EngineEvent.LAUNCH, f"{self._planner.description}, pid {self.pid}")
                task_status.started()
                ending = await self._race(launch)
            finally:
                with trio.move_on_after(self._stop_grace_s + _END_MARGIN_S, shield=True):
                    await self._end(launch, ending)
        return ending

    def _start(self) -> Launched:
        self._clear_request()
        api_key = secrets.token_hex(32)
        self.logs.hide(api_key)
        self._first_line = self.logs.next_number
        plan = self._planner.plan(self._socket_path(), api_key)
        launch = Launched(plan, self.logs, self._heard)
        self._launch = launch
        self.generation += 1
        self.failure = None
        self.load_progress = None
        return launch

    def _socket_path(self) -> Path | None:
        if self._dir is None:
            return None
        self._dir.forget_socket()
        return self._dir.socket_path

    def _did_not_start(self, error: OSError) -> Ending:
        logger.error("llama-server cannot be executed: %s", error)
        self._not_started = why_not_executed(error)
        self._program_missing = isinstance(error, FileNotFoundError)
        self.generation += 1
        self._remember_exit(_NOT_STARTED)
        self.failure = None
        self._move(EngineEvent.LAUNCH, self._planner.description)
        self._move(EngineEvent.EXITED, self._not_started)
        return Ending.NOT_STARTED

    async def _race(self, launch: Launched) -> Ending:
        endings: list[Ending] = []
        async with trio.open_nursery() as nursery:

            async def enter(wait: Callable[[], Awaitable[object]], ending: Ending) -> None:
                await wait()
                endings.append(ending)
                nursery.cancel_scope.cancel()

            waits: dict[Ending, Callable[[], Awaitable[object]]] = {
                Ending.EXITED: launch.process.wait,
                Ending.RESTART: self._request_made.wait,
                Ending.STALLED: partial(self._until_stalled, launch),
                Ending.HUNG: partial(self._until_hung, launch),
            }
            for ending, wait in waits.items():
                name = f"llama-server until {ending.name.lower()}"
                nursery.start_soon(enter, wait, ending, name=name)
        return self._request or endings[0]

    async def _until_stalled(self, launch: Launched) -> None:
        await wait_stalled(launch.signs, self._load_stall_s)
        if launch.is_loaded:
            await trio.sleep_forever()

    async def _until_hung(self, launch: Launched) -> None:
        await launch.wait_address()
        client = ControlClient(launch.address, launch.api_key)
        await wait_loaded(client, launch.signs, self._probe_timeout_s)
        found = await ask_properties(client, self._probe_timeout_s)
        launch.is_loaded = True
        self.total_slots = found.total_slots
        self.model = self._planner.model_name or found.model
        self._was_ready = True
        self.load_progress = 1.0
        self._policy.on_ready(trio.current_time())
        self._move(EngineEvent.LOADED, f"{self.model}, {self.total_slots} slots")
        await wait_hung(
            client,
            launch.signs,
            interval_s=self._probe_interval_s,
            timeout_s=self._probe_timeout_s,
            misses=self._hung_after,
        )

    async def _end(self, launch: Launched, ending: Ending) -> None:
        """End the process if it has not ended, tell, release everything. Bounded by the caller."""
        detail = ""
        if ending in UNRESPONSIVE:
            detail = "killed, it did not react, "
            await launch.process.stop(0)
        elif ending in ASKED_FOR:
            self._move(EngineEvent.STOP)
            await launch.process.stop(self._stop_grace_s)
        status = launch.process.reap()
        self._launch = None
        self._remember_exit(status)
        try:
            self._move(EngineEvent.EXITED, detail + status.describe())
        finally:
            await launch.close()  # noqa: ASYNC102  # the caller shields and bounds all of it

    def _remember_exit(self, status: ExitStatus) -> None:
        self._exits[self.generation] = self.last_exit = status
        self._exits.pop(self.generation - _KEPT_EXITS, None)

    async def _after_crash(self, ending: Ending) -> Ending:
        """Decide what follows; return RESTART or STOP when it is time for it."""
        reason = self._explain(ending)
        if not self._was_ready:
            kind = EngineNotFound if self._program_missing else EngineLoadFailed
            raise self._fail(kind(reason, self._log_tail()))
        decision = self._policy.on_exit(trio.current_time(), random.random)
        if isinstance(decision, GiveUp):
            return await self._after_loop(decision, reason)
        logger.warning("%s Restarting in %.1f s", reason, decision.delay_s)
        return await self._pause(decision.delay_s)

    async def _after_loop(self, decision: GiveUp, reason: str) -> Ending:
        loop = f"llama-server crashed {decision.crashes} times in {decision.window_s:g} s. {reason}"
        failure = self._fail(EngineFailed(loop, self._log_tail()))
        if self._exit_on_failed:
            raise failure
        return await self._pause(float("inf"))

    async def _pause(self, delay_s: float) -> Ending:
        with trio.move_on_after(delay_s):
            await self._request_made.wait()
        if self._request is Ending.STOP:
            return Ending.STOP
        if self._request is Ending.RESTART:
            self._policy.reset()
        else:
            self.restarts += 1
        return Ending.RESTART

    def _explain(self, ending: Ending) -> str:
        if ending is Ending.NOT_STARTED:
            return self._not_started
        return explain(ending, self._launch_lines(), self.last_exit, self._load_stall_s)

    def _launch_lines(self) -> tuple[str, ...]:
        """What the last launch said: an earlier one may have ended for another reason."""
        return self.logs.since(self._first_line).lines

    def _log_tail(self) -> tuple[str, ...]:
        return self._launch_lines()[-_TAIL_LINES:]

    def _fail(self, failure: EngineError) -> EngineError:
        self.failure = failure
        self._move(EngineEvent.GIVE_UP, failure.reason)
        return failure

    def _settle(self) -> None:
        if self.state is EngineState.CRASHED:
            self._move(EngineEvent.STOP)
        self._running = False
        self._finish()

    def _ask(self, request: Ending) -> None:
        if self._request is not Ending.STOP:
            self._request = request
        self._request_made.set()

    def _clear_request(self) -> None:
        self._request = None
        self._request_made = trio.Event()

    def _heard(self) -> None:
        launch = self._launch
        if launch is not None:
            self.last_line = launch.last_line
            if not launch.is_loaded:
                self.load_progress = launch.progress
        self._more_lines.set()
        self._more_lines = trio.Event()

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._use_unix_socket:
            yield
            return
        try:
            self._dir = make_private_dir()
        except OSError as error:
            logger.warning("no folder for a unix socket, listening on loopback instead: %s", error)
            yield
            return
        with self._dir:
            yield
        self._dir = None
