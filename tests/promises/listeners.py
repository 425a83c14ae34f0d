"""The listeners of the proxy, each of which keeps every promise.

A test that opens exchanges takes the fixture `listener` and so runs once for each of `LISTENERS`:
one line there adds a listener to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tests.promises.wire import Wire, wire


class Ports(Protocol):
    """What tells where a proxy listens: a `ProxyServer`, or what is known of a command."""

    @property
    def port(self) -> int:
        """The main listener's TCP port."""
        ...


def _no_credentials(_: Ports) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Listener:
    """One way into a proxy.

    Attributes:
        name: Its name, in the ids of tests and in tables.
        port: Returns its TCP port on 127.0.0.1.
        credentials: Returns the header lines that one request to it needs.
        chat: Its route that takes the body of a chat; metrics and logs name it so too.
    """

    name: str
    port: Callable[[Ports], int]
    credentials: Callable[[Ports], Sequence[str]] = _no_credentials
    chat: str = "/v1/chat/completions"

    def wire(
        self, proxy: Ports, *, receive_buffer: int | None = None
    ) -> AbstractAsyncContextManager[Wire]:
        """Connect to it; see `wire`."""
        fields = partial(self.credentials, proxy)
        return wire(self.port(proxy), receive_buffer=receive_buffer, fields=fields)


MAIN = Listener("main", port=lambda proxy: proxy.port)
LISTENERS = [MAIN]
