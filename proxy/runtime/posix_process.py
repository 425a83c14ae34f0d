"""Starting and ending a process with all that it forks, on Linux, macOS and other POSIX systems.

Owns the means to reach a whole process group and to have it die with us, even when we are killed
without notice. None of them is enough alone (docs/platforms.md has the table):

* Linux: the kernel kills the child when the thread that started it ends (`PR_SET_PDEATHSIG`). It
  misses what the child forked.
* The *guard*: a shell of our own that waits for the end of a pipe which only we hold open, then
  kills the child's whole process group.
* Elsewhere than Linux: llama-server itself exits when its standard input ends, if it believes that
  a router started it.

Knows nothing of the engine's states. Source: prctl(2), killpg(3), setsid(2); llama.cpp
`tools/server/server-models.cpp`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import trio

from proxy.runtime.exit_watch import ExitWatch

assert sys.platform != "win32"  # noqa: S101  # tells mypy, too

logger = logging.getLogger("proxy.engine")

_PR_SET_PDEATHSIG = 1

# `read` fails at the end of the pipe, that is, when the owner is gone. The signals are ignored
# because a service manager sends them to every process of the service, and the owner may still be
# draining then.
_GUARD_SCRIPT = 'trap "" HUP INT TERM; read -r _ || kill -s KILL -- "-$1"'
_SHELL = "/bin/sh"

# Makes llama-server exit at the end of its standard input. Undocumented, hence never the only
# means.
_STDIN_ENDS_IT = {"LLAMA_SERVER_ROUTER_PORT": "0"}


class ProcessTree:
    """A process and what it forked: a process group whose leader is the process.

    Args:
        popen: The process, started with `start_new_session`.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._guard = _start_guard(popen.pid)

    def terminate(self) -> None:
        """Ask all of it to end."""
        self._signal(signal.SIGTERM)
        # A stopped (SIGSTOP) process acts on SIGTERM only once it goes on.
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all of it. Only before the process is reaped: then the group's number is its own."""
        self._signal(signal.SIGKILL)

    async def release(self) -> None:
        """Release what watched over it."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if self._guard is not None:
            await self._guard.release()

    def _signal(self, number: int) -> None:
        # All may be gone; macOS says "not permitted" of a group that has only zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)


def spawn(
    argv: Sequence[str], env: Mapping[str, str], *, use_kernel: bool
) -> tuple[subprocess.Popen[bytes], trio.lowlevel.FdStream]:
    """Start a process in a session of its own; return it, and its output to be read.

    Raises:
        OSError: When it cannot be executed; nothing is left open.
    """
    read_end, write_end = os.pipe()
    try:
        popen = _popen(argv, dict(env), write_end, kernel=use_kernel and sys.platform == "linux")
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return popen, trio.lowlevel.FdStream(read_end)


def _popen(
    argv: Sequence[str], env: dict[str, str], output: int, *, kernel: bool
) -> subprocess.Popen[bytes]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of code between fork and exec in a process with threads. Ours
        # is two system calls that take no lock.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        return subprocess.Popen(
            list(argv),
            env=env if kernel else {**env, **_STDIN_ENDS_IT},
            stdin=subprocess.DEVNULL if kernel else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_owner() if kernel else None,  # noqa: PLW1509
        )


def _die_with_owner() -> Callable[[], None]:
    """Return what the child must run between fork and exec."""
    owner = os.getpid()
    # Looked up here: in the child of a process with threads, the less is done the better.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:  # We died before the call: nobody would send the signal.
            os._exit(127)

    return in_child


class _Guard:
    """A shell that kills a process group when we are gone."""

    def __init__(self, group: int) -> None:
        read_end, self._write_end = os.pipe()
        try:
            self._shell = subprocess.Popen(
                [_SHELL, "-c", _GUARD_SCRIPT, _SHELL, str(group)],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        self._watch = ExitWatch(self._shell)

    async def release(self) -> None:
        """End the shell: the group is gone, and its number may be given to another one.

        Cancellation: the shell is killed before the first await; only its exit status may be left
        to the interpreter to collect.
        """
        self._shell.kill()
        os.close(self._write_end)
        await self._watch.wait()
        self._watch.close()
        self._shell.wait()


def _start_guard(group: int) -> _Guard | None:
    try:
        return _Guard(group)
    except OSError as error:
        logger.debug("no guard for the processes that llama-server may start: %s", error)
        return None
