"""One child process with all that it forks, its output drained and its end in our hands.

Owns the process from Popen to the last descriptor, and the order of its end. How a process tree is
started and reached is the platform's (`runtime.posix_process`, `runtime.windows_process`). Knows
nothing of HTTP, readiness or restarts.

Popen is called on Trio's own thread: on Linux the child dies with the *thread* that forked it, and
a worker thread ends after ten idle seconds.

Order of the end, which `reap` and `release` keep: the tree is killed while its root is still a
zombie, so that the group's number is surely still its own; then the root is reaped; then the pipe
is read to its end.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from proxy.core.lifecycle import ExitStatus
from proxy.runtime.exit_watch import ExitWatch

if sys.platform == "win32":
    from proxy.runtime.windows_process import ProcessTree, spawn
else:
    from proxy.runtime.posix_process import ProcessTree, spawn

if TYPE_CHECKING:
    import subprocess

logger = logging.getLogger("proxy.engine")

# One read: a quarter of a Linux pipe, so that a child that floods its log holds up nothing else for
# long.
_READ_BYTES = 16 * 1024
# The pipe ends with the last process that holds it. One that left the process group may hold it for
# ever.
_LAST_OUTPUT_S = 0.5
# After SIGKILL only a process stuck in the kernel (a hung GPU driver, a dead network disk) stays.
_KILL_WAIT_S = 5.0


# What a process that cannot be killed is said to have ended by: SIGKILL, which Windows has no name
# for.
_BY_FORCE = -9


class _Output(Protocol):
    async def receive_some(self, max_bytes: int, /) -> bytes | bytearray: ...
    def close(self) -> None: ...


class ManagedProcess:
    """A child process. Made by `start_process`.

    Attributes:
        pid: Its process id, which on POSIX is also its process group's.
        status: How it ended; None until it is reaped.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        output: _Output,
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
        self._tree = ProcessTree(popen)

    async def drain(self) -> None:
        """Hand the child's output to the callback until it ends or `release` is called.

        Run it in a task of its own from start to end: a child whose pipe nobody reads blocks in its
        next write. Cancellation: ignored (the child wants to write while it is being stopped, too);
        the end comes by `release`.
        """
        with self._drain_scope:
            try:
                while data := await self._output.receive_some(_READ_BYTES):
                    self._on_output(bytes(data))
            finally:
                self._output.close()
                self._drained.set()

    async def wait(self) -> None:
        """Return when the process has ended; it is not reaped yet. One task at a time.

        Cancellation: nothing is lost; wait again.
        """
        await self._watch.wait()

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill it and all that it forked if it has not within `grace_s` seconds.

        Cancellation: the process may still run; call `stop` again, shielded.
        """
        if grace_s > 0:
            self._tree.terminate()
            with trio.move_on_after(grace_s):
                await self.wait()
                return
            logger.warning("llama-server did not stop within %g s, killing it", grace_s)
        self._tree.kill()
        with trio.move_on_after(_KILL_WAIT_S):
            await self.wait()

    def reap(self) -> ExitStatus:
        """Kill what is left of the tree, take the exit status. Call it after the process's end.

        A process that even SIGKILL did not end is given up, with the status of that signal.
        """
        if self.status is None:
            self._tree.kill()
            returncode = self._popen.poll()
            if returncode is None:
                logger.error("llama-server (pid %d) cannot be killed, leaving it", self.pid)
                returncode = _BY_FORCE
            self.status = ExitStatus(returncode)
        return self.status

    async def release(self) -> None:
        """Read the last output and release every descriptor. Call it, shielded, after `reap`.

        Takes at most half a second, and that only when a process outside the tree holds the pipe.
        """
        with trio.move_on_after(_LAST_OUTPUT_S):
            await self._drained.wait()
        self._drain_scope.cancel()
        self._output.close()
        self._watch.close()
        await self._tree.release()


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
    popen, output = spawn(argv, env, use_kernel=use_kernel)
    return ManagedProcess(popen, output, on_output, use_pidfd=use_kernel)
