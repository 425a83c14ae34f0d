"""The real command under a churn, in a process of its own, and all that it holds at a moment.

Owns the process. Looks at it from outside only: through its operator's routes, `/slots` and
`/proc`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.cli.command import argv_of, environment

# What a cold start takes on a busy machine, several times over.
START_S = 30.0
STOP_S = 30.0
# Short, so that the ends that wait for them are not what a churn spends its time on.
_OPTIONS = ("--request-timeout-s", "3", "--send-timeout-s", "0.5", "--max-queue", "18")
# With room for an answer that nobody ends, in each slot.
_ENGINE_OPTIONS = ("-np", "8", "-c", "262144")
_READY_FILE = "ready.json"
_LOG = "log"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_METRIC = re.compile(r"^(llama_proxy_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_CAUSE = re.compile(r'cause="(\w+)"')


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the proxy holds at a moment.

    Attributes:
        in_flight: Exchanges under way.
        admitted: Permits that are taken.
        queued: Exchanges that wait for a permit.
        busy_slots: llama-server's slots that work.
        descriptors: Open descriptors by kind; one socket is that of whoever asks.
        children: Child processes.
        tasks: The task tree.
        resident_bytes: Resident memory.
    """

    in_flight: int
    admitted: int
    queued: int
    busy_slots: int
    descriptors: dict[str, int]
    children: int
    tasks: str
    resident_bytes: int

    def left(self, before: Holdings) -> dict[str, object]:
        """Return what is held now that was not held before, memory aside."""
        found: dict[str, object] = {}
        for name in ("in_flight", "admitted", "queued", "busy_slots", "descriptors", "children"):
            if getattr(self, name) != getattr(before, name):
                found[name] = getattr(self, name)
        if self.tasks != before.tasks:
            found["tasks"] = self.tasks
        return found


class ChurnedProxy:
    """A running command.

    Args:
        process: It.
        ready_file: Its ready file.
        log: The file of its log.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready_file: Path, log: Path) -> None:
        self._process = process
        self._ready_file = ready_file
        self._log = log

    @property
    def port(self) -> int:
        """Its TCP port on 127.0.0.1."""
        return int(str(self._ready()["url"]).rpartition(":")[2])

    def _ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ready_file.read_text())
        return found

    async def wait_ready(self) -> None:
        """Wait until its model is loaded."""
        with trio.fail_after(START_S):
            while not self._ready_file.exists():
                if self._process.poll() is not None:
                    raise AssertionError(f"it ended before it was ready:\n{self.log()}")
                await trio.sleep(0.02)

    def kill_engine(self) -> None:
        """Kill llama-server without notice; nothing, if it is being restarted just now."""
        try:
            os.kill(self._ready()["llama_server_pid"], signal.SIGKILL)
        except ProcessLookupError:
            return

    def log(self) -> str:
        """Return what it said and logged: warnings and errors."""
        return self._log.read_text()

    def defects(self) -> str:
        """Return its log if there is a defect of ours in it, else nothing."""
        return self.log() if "Traceback" in self.log() else ""

    async def metrics(self) -> dict[str, float]:
        """Return its metrics: a plain one by its name, exchanges by their end cause."""
        found: defaultdict[str, float] = defaultdict(float)
        for name, labels, value in _METRIC.findall((await self.get("/proxy/metrics")).decode()):
            cause = _CAUSE.search(labels)
            if not labels or cause:
                found[cause.group(1) if cause else name] += float(value)
        return found

    async def busy_slots(self) -> int:
        """Return how many of llama-server's slots work; waits while it restarts."""
        slots = json.loads(await self.get("/slots"))
        return sum(bool(slot["is_processing"]) for slot in slots)

    async def holdings(self) -> Holdings:
        """Look at all that it holds now."""
        metrics = await self.metrics()
        tasks = await self.get("/proxy/tasks", "Accept: text/plain")
        pid = self._process.pid
        return Holdings(
            in_flight=len(json.loads(await self.get("/proxy/exchanges"))["exchanges"]),
            admitted=int(metrics["llama_proxy_gate_admitted"]),
            queued=int(metrics["llama_proxy_gate_queued"]),
            busy_slots=await self.busy_slots(),
            descriptors=_descriptors(pid),
            children=_children(pid),
            tasks=tasks.decode(),
            resident_bytes=self.resident_bytes(),
        )

    def resident_bytes(self) -> int:
        """Return its resident memory."""
        statm = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(statm.split()[1]) * _PAGE_BYTES

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        return sum(_descriptors(self._process.pid).values())

    async def get(self, path: str, *fields: str) -> bytes:
        """Ask it; return the answer's body."""
        head = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
        received = b""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all("\r\n".join([*head, "", ""]).encode())
            async for data in stream:
                received += data
        answer_head, _, body = received.partition(b"\r\n\r\n")
        if not answer_head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(f"{path} was answered {received[:300]!r}")
        return _unchunked(body) if b"chunked" in answer_head.lower() else body

    async def stop(self) -> None:
        """Stop it in order; its status has to be 0."""
        self._process.send_signal(signal.SIGTERM)
        status = await trio.to_thread.run_sync(self._process.wait, STOP_S)
        if status != 0:
            raise AssertionError(f"it ended with status {status}:\n{self.log()}")


@asynccontextmanager
async def churned_proxy() -> AsyncIterator[ChurnedProxy]:
    """Run the command with the demo model while the block runs; ready on entry, killed if left."""
    with tempfile.TemporaryDirectory(prefix="lp-") as path:
        folder = Path(path)
        process = _start(folder)
        try:
            proxy = ChurnedProxy(process, folder / _READY_FILE, folder / _LOG)
            await proxy.wait_ready()
            yield proxy
        finally:
            process.kill()
            process.wait()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    options = (
        "--port",
        "0",
        "--fast-port",
        "0",
        "--ready-file",
        str(folder / _READY_FILE),
        "--log-level",
        "warning",
    )
    with (folder / _LOG).open("wb") as log:
        return subprocess.Popen(
            argv_of("serve", *options, *_OPTIONS, "--", *_ENGINE_OPTIONS),
            env=environment({"TMPDIR": str(folder)}),
            stdout=log,
            stderr=log,
            # In a session of its own: Ctrl-C is for whoever runs the churn.
            start_new_session=True,
        )


def _descriptors(pid: int) -> dict[str, int]:
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[str(entry.readlink()).split(":[")[0]] += 1
        except FileNotFoundError:
            continue  # closed meanwhile
    return dict(found)


def _children(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sum(len(task.read_text().split()) for task in tasks)


def _unchunked(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(body[:length])
        body = body[length + 2 :]
    return b"".join(pieces)
