"""Who is measured. Each peer relays from the upstream's port to a port of its own.

A new peer is one function here that starts it and says where it listens, and its name in `PEERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.paced_upstream import TOTAL_SLOTS
from benchmark.processes import Children


@dataclass(frozen=True, slots=True)
class Listening:
    """A peer that accepts connections.

    Attributes:
        port: On 127.0.0.1.
        pids: The processes that it consists of; none for no peer at all.
    """

    port: int
    pids: tuple[int, ...] = ()


Start = Callable[[Children, int, Path], Listening]


def _direct(_children: Children, upstream_port: int, _scratch: Path) -> Listening:
    """Nobody in between: what the others' figures are held against."""
    return Listening(upstream_port)


def _fastapi(children: Children, upstream_port: int, _scratch: Path) -> Listening:
    child = children.start("FastAPI", ["-m", "benchmark.peers.fastapi_httpx", str(upstream_port)])
    return Listening(int(child.read_line()), (child.pid,))


def _main_listener(children: Children, upstream_port: int, scratch: Path) -> Listening:
    ready = scratch / "ready.json"
    ready.unlink(missing_ok=True)
    child = children.start(
        "llama-proxy",
        [
            *("-m", "proxy", "serve", "--port", "0", "--ready-file", str(ready)),
            *("--upstream-url", f"http://127.0.0.1:{upstream_port}", "--slots", str(TOTAL_SLOTS)),
        ],
        prints=False,
    )
    child.wait_until(ready.exists)
    url = json.loads(ready.read_text())["url"]
    return Listening(int(url.rpartition(":")[2]), (child.pid,))


# The first one is who the others are compared with.
BASELINE = "fastapi"
DIRECT = "direct"
PEERS: dict[str, Start] = {DIRECT: _direct, BASELINE: _fastapi, "main": _main_listener}

TITLES = {
    DIRECT: "direct",
    BASELINE: "FastAPI + httpx on uvicorn",
    "main": "llama-proxy, main listener",
}
