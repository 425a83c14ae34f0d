"""Waiting for a child's end without polling and without reaping it.

Owns the choice between a pidfd (Linux 5.3 and later), which Trio waits for like for a socket, and a
thread that blocks in the system's wait call. The child stays a zombie until its owner reaps it, so
that its number, and that of its process group, cannot be given to anybody else meanwhile.

Source: pidfd_open(2); waitid(2) with `WNOWAIT`; kqueue(2), `EVFILT_PROC`, on macOS.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from contextlib import closing, suppress

import trio


class ExitWatch:
    """Tells when a child has ended.

    Args:
        process: A child of ours that nobody else reaps.
        use_pidfd: False takes the thread even where there are pidfds.

    Must be made inside `trio.run`. One task at a time may wait.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, use_pidfd: bool = True) -> None:
        self._ended = trio.Event()
        self._pidfd = _open_pidfd(process.pid) if use_pidfd else None
        if self._pidfd is None:
            # A daemon: it must not hold up our exit when we leave without reaping.
            threading.Thread(
                target=_wait_and_tell,
                args=(process, self._ended, trio.lowlevel.current_trio_token()),
                name=f"wait for process {process.pid}",
                daemon=True,
            ).start()

    async def wait(self) -> None:
        """Return when the child has ended, at once if it has already.

        Cancellation: nothing is lost; wait again.
        """
        if self._pidfd is None:
            await self._ended.wait()
        else:
            await trio.lowlevel.wait_readable(self._pidfd)

    def close(self) -> None:
        """Release the descriptor; idempotent."""
        if self._pidfd is not None:
            trio.lowlevel.notify_closing(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
            self._ended.set()


def _open_pidfd(pid: int) -> int | None:
    if sys.platform == "linux":
        with suppress(OSError):  # An old kernel, or a container that does not allow the call.
            return os.pidfd_open(pid)
    return None


def _wait_and_tell(
    process: subprocess.Popen[bytes], ended: trio.Event, token: trio.lowlevel.TrioToken
) -> None:
    with suppress(ChildProcessError, ProcessLookupError):  # Reaped before we came: it has ended.
        _block_until_ended(process)
    with suppress(trio.RunFinishedError):  # Nobody is left to be told.
        token.run_sync_soon(ended.set)


def _block_until_ended(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.wait()
    elif sys.platform == "darwin":  # Its `waitid` came to Python with 3.13.
        with closing(select.kqueue()) as queue:
            event = select.kevent(
                process.pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT
            )
            queue.control([event], 1)
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
