"""The benchmark's child processes: started, watched and ended; and what they cost.

Owns every child: each has a session of its own, and `Children` ends the whole group of each one
when its block is left, however it is left. Linux only, as `/proc` and epoll are.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

# A peer that imports several web stacks on a busy machine.
_READY_TIMEOUT_S = 90.0
_ANSWER_TIMEOUT_S = 5.0
_STOP_GRACE_S = 5.0
_LOOK_INTERVAL_S = 0.01
_PAGE_BYTES = resource.getpagesize()


class BenchmarkError(Exception):
    """A run cannot go on; the message says why, for people."""


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process, user and system, in seconds.

    The same sum as in `/proc/PID/stat`, in nanoseconds instead of ticks of 10 ms.

    Source: clock_getcpuclockid(3); `include/linux/posix-timers.h` for the clock's number.
    """
    return time.clock_gettime((~pid << 3) | 2)


def waited_seconds(pid: int) -> float:
    """Return how long all threads of a process were ready to run, but for a processor.

    Source: Documentation/scheduler/sched-stats.rst, `/proc/<pid>/schedstat`.
    """
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[1]) for each in threads) * 1e-9


def resident_bytes(pid: int) -> int:
    """Return a process's resident set, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


class Child:
    """One child process.

    Args:
        process: The process, leader of its own session.
        name: For messages.
        errors: Where its standard error goes.
    """

    def __init__(self, process: subprocess.Popen[str], name: str, errors: IO[str]) -> None:
        self._process = process
        self._name = name
        self._errors = errors

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def read_line(self) -> str:
        """Wait for the first line that it prints.

        Raises:
            BenchmarkError: When it ends before.
        """
        assert self._process.stdout is not None  # noqa: S101  # asked for when it was started
        line = self._process.stdout.readline()
        if not line:
            raise self._failed("ended before it was ready")
        return line.strip()

    def wait_until(
        self, ready: Callable[[], bool], *, interval_s: float = _LOOK_INTERVAL_S
    ) -> None:
        """Wait until `ready` returns True.

        Raises:
            BenchmarkError: When the process ends before, or takes too long.
        """
        give_up_at = time.monotonic() + _READY_TIMEOUT_S
        while not ready():
            try:
                self._process.wait(interval_s)
            except subprocess.TimeoutExpired:
                if time.monotonic() < give_up_at:
                    continue
            raise self._failed("did not get ready")

    def read_all(self) -> str:
        """Wait for its end and return what it printed.

        Raises:
            BenchmarkError: When it ends with another status than 0.
        """
        printed, _ = self._process.communicate()
        if self._process.returncode:
            raise self._failed(f"ended with status {self._process.returncode}")
        return printed

    def stop(self) -> None:
        """End it and everything that it started; idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_GRACE_S)
        # It is the leader of its group, and mostly the last one to be gone.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _failed(self, what: str) -> BenchmarkError:
        self._errors.seek(0)
        said = self._errors.read()[-2000:].strip()
        return BenchmarkError(f"{self._name} {what}." + (f" It said:\n{said}" if said else ""))


class Children:
    """The children of one block, ended in reverse order when it is left.

    Args:
        environ: Environment variables that they get, in place of our own.
        processors: Those that they run on; None for ours.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, processors: AbstractSet[int] | None = None
    ) -> None:
        self._environ = clean_environ() if environ is None else environ
        self._processors = os.sched_getaffinity(0) if processors is None else processors
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all that there are; idempotent."""
        while self._children:
            self._children.pop().stop()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        program: str = sys.executable,
        prints: bool = True,
        more_environ: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program.

        Args:
            name: For messages.
            arguments: What follows the program.
            program: What is started; this Python unless told otherwise.
            prints: Whether its standard output is read by us; else it is dropped.
            more_environ: Environment variables besides those of all children.
        """
        errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed by stop
        with _running_on(self._processors):
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if prints else subprocess.DEVNULL,
                stderr=errors,
                text=True,
                env={**self._environ, **(more_environ or {})},
                start_new_session=True,
            )
        child = Child(process, name, errors)
        self._children.append(child)
        return child


@contextmanager
def _running_on(processors: AbstractSet[int]) -> Iterator[None]:
    """Start what the block starts on some processors: a child gets those of its parent."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def children_of(pid: int) -> tuple[int, ...]:
    """Return the ids of the processes that a process of one thread has started."""
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Say whether a server answers a GET with 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_TIMEOUT_S) as sock:
            sock.sendall(request.encode())
            return sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def clean_environ() -> dict[str, str]:
    """Return our environment without what would configure a peer, or how Python starts."""
    return {key: value for key, value in os.environ.items() if not _configures(key)}


def _configures(variable: str) -> bool:
    return variable.startswith(
        ("LLAMA_", "LITELLM_", "UVICORN_", "PYTHONDONTWRITEBYTECODE")
    ) or variable.lower().endswith("_proxy")
