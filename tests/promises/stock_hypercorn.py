"""An application on stock Hypercorn under Trio: what the main listener would be without the guard.

Each trap of Hypercorn's is shown on it once, so that the guard is known to be there for a reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import hypercorn.trio
import trio
from hypercorn.config import Config

from proxy.http1.asgi import AsgiApp, Message, Receive, Send


@dataclass(slots=True)
class Listener:
    """An application that is being served.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        stop: Begins its shutdown, with a grace of a tenth of a second, and waits for its end.
        patience_s: How long a test waits for what should happen. Where it does not happen, it does
            not happen in an hour either.
        death: What the whole listener died of, if it did.
    """

    port: int
    stop: Callable[[], Awaitable[None]]
    patience_s: float
    death: list[BaseException] = field(default_factory=list)

    async def happens(self, wait: Callable[[], Awaitable[object]]) -> bool:
        """Wait for something; tell whether it happened."""
        with trio.move_on_after(self.patience_s):
            await wait()
            return True
        return False


Serve = Callable[..., AbstractAsyncContextManager[Listener]]
# What the traps spoil takes milliseconds on a listener that has none.
_PATIENCE_S = 0.5
STOP_GRACE_S = 0.1


@asynccontextmanager
async def stock_hypercorn(app: AsgiApp, **settings: Any) -> AsyncIterator[Listener]:
    """Serve `app` by `hypercorn.trio.serve` while the block runs.

    Args:
        app: The application; of the scopes it is spared lifespan's only.
        settings: Attributes of Hypercorn's `Config`.
    """
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.graceful_timeout = STOP_GRACE_S
    for name, value in settings.items():
        setattr(config, name, value)
    asked, ended = trio.Event(), trio.Event()
    death: list[BaseException] = []

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        try:
            await hypercorn.trio.serve(
                cast(Any, partial(_without_lifespan, app)),
                config,
                shutdown_trigger=asked.wait,
                mode="asgi",
                task_status=task_status,
            )
        except (Exception, BaseExceptionGroup) as error:  # that it dies is the trap
            _, fatal = _split_cancelled(error)
            if fatal is None:
                raise
            death.append(fatal)
        finally:
            ended.set()

    async def stop() -> None:
        asked.set()
        await ended.wait()

    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(run)
        yield Listener(int(url.rpartition(":")[2]), stop, _PATIENCE_S, death)
        nursery.cancel_scope.cancel()


def _split_cancelled(
    error: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return None, error


async def _without_lifespan(app: AsgiApp, scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await app(scope, receive, send)
