"""Starts our side of the comparison: a process of its own, as the oracle is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("program.py")
# It drains for a moment and stops the fake.
STOP_S = 20


@contextmanager
def running_ours(
    folder: Path,
    *engine: str,
    stage: str = "ready",
    **settings: Any,
) -> Iterator[int]:
    """Start it, ready on entry and gone on exit, with whatever it runs; yields its port.

    Args:
        folder: Where its log goes.
        engine: Options of the fake llama-server.
        stage: What has become of the engine: `starting`, `ready` or `failed`.
        settings: Those of `open_proxy`.

    Raises:
        RuntimeError: It ended instead of serving; with its log.
    """
    told = {"engine": engine, "proxy": settings, "stage": stage}
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin, process.stdout:
        port = process.stdout.readline()
        if not port:
            raise RuntimeError("our side did not start:\n" + log.read_text())
        yield int(port)
        process.stdin.close()
        assert process.wait(STOP_S) == 0, log.read_text()
