"""A program that runs a llama-server with a proxy before it, until its standard input ends.

Prints one line of JSON: the proxy's `url`, `port` and `fast_url`, and llama-server's own `socket`
and `api_key`, so that a test can ask either. Arguments are passed on to llama-server.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

import proxy


async def main(extra_args: list[str]) -> None:
    """Run both."""
    async with (
        proxy.open_llama_server(extra_args=extra_args) as engine,
        proxy.open_proxy(engine, port=0, drain_s=1) as server,
    ):
        told = {
            "url": server.url,
            "port": server.port,
            "fast_url": server.fast_url,
            "socket": engine.address.uds,
            "api_key": engine.api_key,
        }
        print(json.dumps(told), flush=True)
        await trio.lowlevel.wait_readable(sys.stdin)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
