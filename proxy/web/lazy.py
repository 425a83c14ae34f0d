"""An ASGI application that is made when it is first needed, or when there is time for it.

The web framework takes longer to import than llama-server takes to load a small model, and no
request to a model needs it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from proxy.http1.asgi import AsgiApp, Message, Receive, Send


class LazyApp:
    """Stands for an application until `make` has made it.

    Args:
        make: Imports and builds the application; called once, in a worker thread.
    """

    def __init__(self, make: Callable[[], AsgiApp]) -> None:
        self._make = make
        self._made: AsgiApp | None = None
        self._making = trio.Lock()

    async def prepare(self) -> AsgiApp:
        """Return the application, making it if it is not there yet.

        Cancellation: an import under way is waited for: nothing of ours goes on behind our back.
        """
        async with self._making:
            if self._made is None:
                self._made = await trio.to_thread.run_sync(self._make)
        return self._made

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, by the application."""
        app = self._made or await self.prepare()
        await app(scope, receive, send)
