"""Viewers of the status page, in one process of their own.

`python -m benchmark.viewers PORT COUNT` connects that many, prints a line when all of them have had
their first status, and reads whatever comes until it is ended.
"""

from __future__ import annotations

import sys
import time

from benchmark.clients import START_TIMEOUT_S, Connection, Loop
from benchmark.processes import BenchmarkError

# epoll waits for 24 days at most.
_TURN_S = 3600.0


class Viewer(Connection):
    """A viewer, which only reads.

    Attributes:
        has_status: Whether it has had something of its first status.
    """

    has_status = False

    def take(self, size: int) -> None:
        """Note that something came: the head and the first status come together."""
        self.has_status = self.has_status or size > 0


def main(port: int, count: int) -> None:
    """Watch for ever.

    Raises:
        BenchmarkError: When a viewer is told nothing.
    """
    asked = f"GET /status/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    loop, viewers = Loop(), [Viewer(port, asked) for _ in range(count)]
    for each in viewers:
        loop.add(each)
    give_up_at = time.monotonic() + START_TIMEOUT_S
    loop.run_until(give_up_at, lambda: all(each.has_status for each in viewers))
    if not all(each.has_status for each in viewers):
        raise BenchmarkError("a viewer was told nothing")
    print("ready", flush=True)
    while True:
        loop.run_until(time.monotonic() + _TURN_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
