"""A program that owns a fake llama-server, to be killed without notice.

    engine_owner.py process linux|portable OPTION...    one process, bare
    engine_owner.py engine OPTION...                    a whole engine, once it is ready

Prints the pid of the fake and then runs until it is killed.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from proxy.runtime.process import start_process
from tests.fakes.engines import fake_discovered, fake_engine


async def own_process(mode: str, *options: str) -> None:
    """Own a bare process."""
    process = start_process(
        [*fake_discovered().argv_prefix, "--port", "0", *options],
        env=os.environ,
        on_output=lambda data: None,
        use_kernel=mode == "linux",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.drain)
        print(process.pid, flush=True)
        await trio.sleep_forever()


async def own_engine(*options: str) -> None:
    """Own an engine."""
    engine = fake_engine(*options)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.wait_ready()
        print(engine.pid, Path(engine.address.uds or "").parent, flush=True)


async def main(what: str, *arguments: str) -> None:
    """Own what is asked for."""
    if what == "process":
        await own_process(*arguments)
    else:
        await own_engine(*arguments)


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
