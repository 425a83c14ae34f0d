"""One child process in a group of its own, with its output drained and its end in our hands.

Owns the process from Popen to the last descriptor. On POSIX it is the leader of its own session, so
that a terminal's Ctrl-C does not reach it and one signal reaches whatever it forked; it dies with
us (`runtime.parent_death`). Knows nothing of HTTP, readiness or restarts.

Popen is called on Trio's own thread: with `PR_SET_PDEATHSIG` the child dies with the *thread* that
forked it, and a worker thread ends after ten idle seconds.

Order of the end, which `reap` and `release` keep: the group is killed while its leader is still a
zombie, so that the group's number is surely still its own; then the leader is reaped; then the pipe
is read to its end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import trio

from proxy.core.lifecycle import ExitStatus
from proxy.runtime import parent_death
from proxy.runtime.exit_watch import ExitWatch

logger = logging.getLogger("proxy.engine")

# One read: a quarter of a Linux pipe, so that a child that floods its log holds up nothing else for
# long.
_READ_BYTES = 16 * 1024
# The pipe ends with the last process that holds it. One that left the process group may hold it for
# ever.
_LAST_OUTPUT_S = 0.5
# After SIGKILL only a process stuck in the kernel (a hung GPU driver, a dead network disk) stays.
_KILL_WAIT_S = 5.0


class ManagedProcess:
    """A child process. Made by `start_process`.

    Attributes:
        pid: Its process id, which on POSIX is also its process group's.
        status: How it ended; None until it is reaped.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        output: trio.lowlevel.FdStream,
        on_output: Callable[[bytes], None],
        *,
        use_pidfd: bool = True,
    ) -> None:
        self.pid = popen.pid
        self.status: ExitStatus | None = None
        self._popen = popen
        self._output = output
        self._on_output = on_output
        self._watch = ExitWatch(popen, use_pidfd=use_pidfd)
        self._drain_scope = trio.CancelScope(shield=True)
        self._drained = trio.Event()
        self._guard = _start_guard(self.pid)

    async def drain(self) -> None:
        """Hand the child's output to the callback until it ends or `release` is called.

        Run it in a task of its own from start to end: a child whose pipe nobody reads blocks in its
        next write. Cancellation: ignored (the child wants to write while it is being stopped, too);
        the end comes by `release`.
        """
        with self._drain_scope:
            try:
                while data := await self._output.receive_some(_READ_BYTES):
                    self._on_output(data)
            finally:
                self._output.close()
                self._drained.set()

    async def wait(self) -> None:
        """Return when the process has ended; it is not reaped yet. One task at a time.

        Cancellation: nothing is lost; wait again.
        """
        await self._watch.wait()

    async def stop(self, grace_s: float) -> None:
        """Ask the group to end, and kill it when it does not within `grace_s` seconds.

        Cancellation: the process may still run; call `stop` again, shielded.
        """
        if grace_s > 0:
            self._signal_group(signal.SIGTERM)
            # A stopped (SIGSTOP) process acts on SIGTERM only once it goes on.
            self._signal_group(signal.SIGCONT)
            with trio.move_on_after(grace_s):
                await self.wait()
                return
            logger.warning("llama-server did not stop within %g s, killing it", grace_s)
        self._signal_group(signal.SIGKILL)
        with trio.move_on_after(_KILL_WAIT_S):
            await self.wait()

    def reap(self) -> ExitStatus:
        """Kill what is left of the group, take the exit status. Call it after the process's end.

        A process that even SIGKILL did not end is given up, with the status of that signal.
        """
        if self.status is None:
            self._signal_group(signal.SIGKILL)
            returncode = self._popen.poll()
            if returncode is None:
                logger.error("llama-server (pid %d) cannot be killed, leaving it", self.pid)
                returncode = -signal.SIGKILL
            self.status = ExitStatus(returncode)
        return self.status

    async def release(self) -> None:
        """Read the last output and release every descriptor. Call it, shielded, after `reap`.

        Takes at most half a second, and that only when a process outside the group holds the pipe.
        """
        with trio.move_on_after(_LAST_OUTPUT_S):
            await self._drained.wait()
        self._drain_scope.cancel()
        self._output.close()
        self._watch.close()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if self._guard is not None:
            await self._guard.release()

    def _signal_group(self, number: int) -> None:
        # All may be gone; macOS says "not permitted" of a group that has only zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def start_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    on_output: Callable[[bytes], None],
    use_kernel: bool = True,
) -> ManagedProcess:
    """Start a process. Does not block for longer than fork and exec take.

    Args:
        argv: The program's path and its arguments.
        env: Its whole environment.
        on_output: Called with each piece of its standard output and standard error, in order, as
            they come.
        use_kernel: False does without pidfd and PDEATHSIG, as other systems than Linux have to.

    Raises:
        OSError: When it cannot be executed: `FileNotFoundError`, `PermissionError`, and others.
    """
    kernel = use_kernel and parent_death.kernel_kills_orphans()
    read_end, write_end = os.pipe()
    try:
        popen = _popen(argv, dict(env), write_end, kernel=kernel)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    output = trio.lowlevel.FdStream(read_end)
    return ManagedProcess(popen, output, on_output, use_pidfd=use_kernel)


def _popen(
    argv: Sequence[str], env: dict[str, str], output: int, *, kernel: bool
) -> subprocess.Popen[bytes]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of code between fork and exec in a process with threads. Ours
        # is two system calls that take no lock.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        return subprocess.Popen(
            list(argv),
            env=env if kernel else {**env, **parent_death.STDIN_ENDS_IT},
            stdin=subprocess.DEVNULL if kernel else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=parent_death.die_with_owner() if kernel else None,  # noqa: PLW1509
        )


def _start_guard(group: int) -> parent_death.Guard | None:
    try:
        return parent_death.Guard(group)
    except OSError as error:
        logger.debug("no guard for the processes that llama-server may start: %s", error)
        return None
