"""The project itself: `llama-proxy serve --upstream-url ...` as installed, without API keys."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark.paced_upstream import TOTAL_SLOTS
from benchmark.peers.peer import Listening
from benchmark.processes import Child, Children


def start_main(children: Children, upstream_port: int, folder: Path) -> Listening:
    """Start it and use its main listener."""
    child, ready = _serve(children, upstream_port, folder)
    return _listening(child, ready["url"])


def start_fast(children: Children, upstream_port: int, folder: Path) -> Listening:
    """Start it and use its fast path: the same route on a port of its own."""
    child, ready = _serve(children, upstream_port, folder)
    return _listening(child, ready["fast_url"])


def _serve(children: Children, upstream_port: int, folder: Path) -> tuple[Child, dict[str, object]]:
    ready = folder / "ready.json"
    child = children.start(
        "llama-proxy",
        [
            *("-m", "proxy", "serve", "--port", "0", "--fast-port", "0"),
            *("--ready-file", str(ready)),
            # With fewer permits than streams, streams would wait in its queue.
            *("--upstream-url", f"http://127.0.0.1:{upstream_port}", "--slots", str(TOTAL_SLOTS)),
        ],
        prints=False,
    )
    child.wait_until(ready.exists)
    return child, json.loads(ready.read_text())


def _listening(child: Child, url: object) -> Listening:
    return Listening(int(str(url).rpartition(":")[2]), (child.pid,))
