"""What the kernel tells of sockets without anybody reading or writing: an epoll of our own.

Trio has an epoll too, for its tasks; ours are for what is not worth a task: hang-ups of all clients
(`http1.transport`), and bytes of all streams (`runtime.pump`). Linux only: elsewhere there is None,
and its users have another way.
"""

from __future__ import annotations

import select
import sys
from typing import Any

if sys.platform == "linux":
    READABLE = select.EPOLLIN
    WRITABLE = select.EPOLLOUT
    # FIN or RST of the peer, also behind bytes that nobody has read.
    HANGUP = select.EPOLLRDHUP
    ONCE = select.EPOLLONESHOT
else:
    READABLE = WRITABLE = HANGUP = ONCE = 0


def make_epoll() -> Any:
    """Return a new epoll, or None where the platform has none."""
    if sys.platform == "linux":
        return select.epoll()
    else:  # noqa: RET505 - mypy takes a statement after it for unreachable
        return None
