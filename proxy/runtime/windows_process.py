"""Starting and ending a process with all that it starts, on Windows. Best effort, never run by us.

Owns a job object, which the system ends with all its processes when its last handle is closed: so
also when we are killed. The polite way to stop is the end of standard input, on which llama-server
shuts down if it believes that a router started it; there are no signals to send.

Same interface as `runtime.posix_process`. Source: Microsoft's documentation of job objects;
llama.cpp `tools/server/server-models.cpp`.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping, Sequence
from ctypes import wintypes
from typing import IO

import trio

assert sys.platform == "win32"  # noqa: S101  # tells mypy, too

_STDIN_ENDS_IT = {"LLAMA_SERVER_ROUTER_PORT": "0"}
_EXTENDED_LIMIT_INFORMATION = 9
_KILL_ON_JOB_CLOSE = 0x2000
_KILLED = 1


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_ulonglong * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class ProcessTree:
    """A process and what it started: a job object.

    Args:
        popen: The process. What it starts before it is put into the job is not in it.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        self._kernel32.CreateJobObjectW.restype = wintypes.HANDLE
        self._job = wintypes.HANDLE(self._kernel32.CreateJobObjectW(None, None))
        limits = _ExtendedLimits(BasicLimitInformation=_BasicLimits(LimitFlags=_KILL_ON_JOB_CLOSE))
        self._kernel32.SetInformationJobObject(
            self._job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        handle = wintypes.HANDLE(int(popen._handle))  # type: ignore[attr-defined]
        self._kernel32.AssignProcessToJobObject(self._job, handle)

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()

    def kill(self) -> None:
        """End all of it."""
        self._kernel32.TerminateJobObject(self._job, _KILLED)
        self._popen.kill()

    async def release(self) -> None:
        """Release the job."""
        self.terminate()
        self._kernel32.CloseHandle(self._job)


class _Output:
    """A pipe that is read in a thread: Trio cannot wait for an anonymous pipe on Windows."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    async def receive_some(self, max_bytes: int) -> bytes:
        """Return the next bytes; `b""` at the end."""
        return await trio.to_thread.run_sync(self._pipe.read, max_bytes, abandon_on_cancel=True)

    def close(self) -> None:
        """Close the pipe."""
        self._pipe.close()


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    use_kernel: bool,  # noqa: ARG001  # the same interface
) -> tuple[subprocess.Popen[bytes], _Output]:
    """Start a process; return it, and its output to be read. `use_kernel` changes nothing here.

    Raises:
        OSError: When it cannot be executed.
    """
    popen = subprocess.Popen(
        list(argv),
        env={**env, **_STDIN_ENDS_IT},
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Its own group: a Ctrl-C in our console is ours to handle.
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
    )
    assert popen.stdout is not None  # noqa: S101
    return popen, _Output(popen.stdout)
