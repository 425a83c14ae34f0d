"""Our side of the comparison: a proxy before the fake llama-server, until standard input ends.

Its one argument is JSON: `engine`, the options of the fake; `proxy`, those of `open_proxy`;
`stage`, what has become of the engine when it prints the proxy's port: `starting`, `ready`, or
`failed` after a crash loop.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parents[3]))

import proxy
from proxy.core.lifecycle import EngineState, RestartPolicy
from tests.fakes.engines import fake_engine, running, wait_state

_SETTINGS: dict[str, dict[str, Any]] = {
    "failed": {"restart_policy": RestartPolicy(max_crashes=0)},
    # It stays so for as long as the tests take.
    "starting": {"load_stall_s": 3600.0},
}


async def main(told: dict[str, Any]) -> None:
    """Run both."""
    settings = _SETTINGS.get(told["stage"], {})
    async with (
        running(fake_engine(*told["engine"], **settings), ready=False) as engine,
        proxy.open_proxy(
            engine,
            port=0,
            fast_port=None,
            drain_s=0.01,
            **told["proxy"],
        ) as server,
    ):
        if told["stage"] != "starting":
            await wait_state(engine, EngineState.READY)
        if told["stage"] == "failed":
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            await wait_state(engine, EngineState.FAILED)
        print(server.port, flush=True)
        await trio.lowlevel.wait_readable(sys.stdin)


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
