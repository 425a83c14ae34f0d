"""Starts `fastapi_httpx`, which imports what only its own process needs."""

from __future__ import annotations

from pathlib import Path

from benchmark.peers.peer import Listening
from benchmark.processes import Children


def start(children: Children, upstream_port: int, _folder: Path) -> Listening:
    """Start it."""
    child = children.start("FastAPI", ["-m", "benchmark.peers.fastapi_httpx", str(upstream_port)])
    return Listening(int(child.read_line()), (child.pid,))
