"""The oracle: Cog's own HTTP server with our scripted model, a real program on a real socket.

It starts `coglet` on a free port of 127.0.0.1, in a session and a folder of its own, reads its log
to know when it serves, and ends all of it. It knows nothing of the proxy.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.oracle.schema import Schema, describe_model

# A cold start takes a second; a busy two-core machine ten.
START_S = 30

HERE = Path(__file__).parent
# It ends with us, however we end: its worker, too.
SERVE = """
import os, signal, sys, threading, coglet
def end_with_parent():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=end_with_parent, daemon=True).start()
coglet.server.serve(predictor_ref=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]))
"""
READY = "Setup complete, now accepting requests"
SETTING_UP = "Running setup"
SETUP_FAILED = "Worker initialization failed"
# Fixed in coglet: a folder for each prediction, which it does not always clear away.
PREDICTIONS = Path("/tmp/coglet/predictions")


class Oracle:
    """A running server.

    Args:
        port: Its TCP port on 127.0.0.1.
        folder: Its working folder.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._folder = folder

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def end(self, name: str, how: str = "clean") -> None:
        """Tell the prediction with this `name=` in its prompt to end, once it next waits.

        Args:
            name: What the prompt says. A name serves for one prediction.
            how: As `end=` in a prompt.
        """
        # Whole or not at all: the runner reads it as soon as it is there.
        whole = self._folder / f"{name}.new"
        whole.write_text(how)
        whole.replace(self._folder / "ends" / name)

    def has_begun(self, name: str) -> bool:
        """Whether the prediction with this `name=` in its prompt runs or has run."""
        return (self._folder / "begun" / name).exists()


class _Log:
    """What the server wrote; reads it to its end, so that the server never waits for us."""

    def __init__(self, process: subprocess.Popen[str], until: str) -> None:
        self._until = until
        self.lines: list[str] = []
        self.ids: set[str] = set()
        self.served = False
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def wait_settled(self) -> None:
        """Wait until the server serves or has ended."""
        if not self._settled.wait(START_S) or not self.served:
            raise RuntimeError("coglet did not start:\n" + "\n".join(self.lines))

    def join(self) -> None:
        """Wait for the end of the log, which is that of all who write to it."""
        self._thread.join(START_S)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not self.served:
                self.lines.append(line)
                if self._until in line:
                    self.served = True
                    self._settled.set()
            if "prediction_id" in line:
                self._note_id(line)
        self._settled.set()

    def _note_id(self, line: str) -> None:
        try:
            self.ids.add(json.loads(line)["fields"]["prediction_id"])
        except (ValueError, KeyError, TypeError):
            return  # a prediction's own words, with that word in them


@contextmanager
def running_oracle(
    folder: Path,
    *,
    slots: int = 1,
    required: Sequence[str] = (),
    until: str = READY,
    **environment: str,
) -> Iterator[Oracle]:
    """Start an oracle, ready on entry and gone on exit, with whatever it runs.

    Args:
        folder: A folder that it may fill; one for each.
        slots: Predictions at once; with more than one see `slots_runner.py`.
        required: The members of the input that its model has to be given.
        until: What its log says when it is ready.
        environment: Variables of coglet, such as `COG_STREAM_HISTORY_CAPACITY`.

    Raises:
        RuntimeError: It ended, or was not ready in time; with its log.
    """
    _fill(folder, describe_model(required))
    runner = HERE / ("runner.py" if slots == 1 else "slots_runner.py")
    with _reserved_port() as port:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, f"{runner}:Runner", str(port)],
            cwd=folder,
            env=_environment({"COG_MAX_CONCURRENCY": str(slots), **environment}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        log = _Log(process, until)
        try:
            log.wait_settled()
            _wait_listening(port)
            yield Oracle(port, folder)
        finally:
            _end(process, log)


def _fill(folder: Path, model: Schema) -> None:
    for name in (".cog", "ends", "begun"):
        (folder / name).mkdir()
    (folder / ".cog" / "openapi_schema.json").write_text(json.dumps(model))


def _environment(wanted: dict[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COG_")}
    # Its worker is whatever is called `python` on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, **wanted}


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Hold a free port: the server can listen on it, and nobody gets it by asking for any."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _wait_listening(port: int) -> None:
    """Wait until it takes connections, of which its log says nothing."""
    look_again = threading.Event()
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), START_S).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            # Another process gives no event for it.
            look_again.wait(0.005)
        else:
            return


def _end(process: subprocess.Popen[str], log: _Log) -> None:
    # Asked politely it would wait for its predictions, and killed alone leave its worker to them.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.join()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    for each in log.ids:
        left = (PREDICTIONS / each).resolve()
        if left.parent == PREDICTIONS:
            shutil.rmtree(left, ignore_errors=True)
