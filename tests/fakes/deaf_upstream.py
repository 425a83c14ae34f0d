"""A server in a test's own Trio run that turns deaf: whoever connects then gets no answer at all.

It stands behind `proxy.open_upstream` and answers that function's questions like a llama-server
with two slots, until it is told to stop accepting. From then on the kernel drops what asks for a
connection, as it does for a machine that is overloaded or gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from tests.fakes.recording_upstream import RecordingUpstream

# The kernel takes one connection more than this before it drops the next.
_BACKLOG = 1


class DeafUpstream:
    """The server's state.

    Args:
        listener: Its listening socket.
    """

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._port = listener.socket.getsockname()[1]
        self._answers = RecordingUpstream(self._port)
        self._accepting = trio.CancelScope()
        self._waiting = AsyncExitStack()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._port}"

    async def turn_deaf(self) -> None:
        """Accept nothing any more, and let the kernel accept nothing either."""
        self._accepting.cancel()
        for _ in range(_BACKLOG + 1):
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            await self._waiting.enter_async_context(stream)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._listener, self._waiting, trio.open_nursery() as nursery:
            with self._accepting:
                while True:
                    stream = await self._listener.accept()
                    nursery.start_soon(self._answers.serve, stream)
            await trio.sleep_forever()


@asynccontextmanager
async def deaf_upstream() -> AsyncIterator[DeafUpstream]:
    """Run one while the block runs; it hears at first."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=_BACKLOG)
        upstream = DeafUpstream(listener)
        nursery.start_soon(upstream.run)
        yield upstream
        nursery.cancel_scope.cancel()
