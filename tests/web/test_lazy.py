"""An application that is made when it is first needed."""

from __future__ import annotations

import threading

import pytest
import trio

from proxy.http1.asgi import AsgiApp
from proxy.web.lazy import LazyApp
from tests.http1.asgi_client import ask, scope_of
from tests.http1.guarded import echo


class Maker:
    """Makes `echo`, and counts in which threads."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __call__(self) -> AsgiApp:
        """Make it."""
        self.threads.append(threading.get_ident())
        return echo


async def test_app_is_made_by_the_first_request_beside_the_event_loop() -> None:
    """An import takes long: nobody else waits for it."""
    make = Maker()
    app = LazyApp(make)
    assert make.threads == []
    assert (await ask(app, scope_of(path="/a"))).body == b"GET /a "
    assert make.threads != [threading.get_ident()]


async def test_app_is_made_once_for_all_who_need_it() -> None:
    """Also when they come at the same time."""
    make = Maker()
    app = LazyApp(make)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask, app, scope_of())
        nursery.start_soon(app.prepare)
    await ask(app, scope_of())
    assert len(make.threads) == 1


async def test_app_that_cannot_be_made_is_tried_again() -> None:
    """The next request may have more luck; this one is told."""

    class Failing(Maker):
        def __call__(self) -> AsgiApp:
            super().__call__()
            if len(self.threads) == 1:
                raise ImportError("not now")
            return echo

    app = LazyApp(Failing())
    with pytest.raises(ImportError):
        await ask(app, scope_of())
    assert (await ask(app, scope_of())).status == 200
