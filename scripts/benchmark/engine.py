"""The real engine: the embedded runtime with the packaged demo model, as fast as it goes."""

from __future__ import annotations

from importlib.resources import files

from benchmark.peers.peer import Listening
from benchmark.processes import Children, answers, free_port

SLOTS = 4


def start_engine(children: Children) -> Listening:
    """Start it on a free port, and return when the model is loaded."""
    port = free_port()
    model = str(files("proxy.data").joinpath("demo.gguf"))
    child = children.start(
        "the engine",
        [
            *("-m", "proxy.runtime.embedded", "--host", "127.0.0.1", "--port", str(port)),
            *("-m", model, "--parallel", str(SLOTS), "--slots"),
        ],
        prints=False,
    )
    child.wait_until(lambda: answers(port, "/health"))
    return Listening(port, (child.pid,))
