"""The listeners of the proxy, each of which keeps every promise.

A test that opens exchanges takes the fixture `listener` and so runs once for each of `LISTENERS`:
one line there adds a listener to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.promises.wire import Wire, wire


class Ports(Protocol):
    """What tells where a proxy listens: a `ProxyServer`, or what is known of a command."""

    @property
    def port(self) -> int:
        """The main listener's TCP port."""
        ...

    @property
    def fast_url(self) -> str | None:
        """The fast listener's base URL."""
        ...


def no_credentials(_: Any) -> Sequence[str]:
    """Return what a request needs where no keys are configured: nothing."""
    return ()


def stream_token(proxy: Any) -> Sequence[str]:
    """Return a token of a proxy in this process, which is good for one request."""
    return (f"X-Stream-Token: {proxy.stream_tokens.issue().token}",)


def fast_port(proxy: Ports) -> int:
    """Return the fast listener's TCP port."""
    port = urlsplit(proxy.fast_url or "").port
    assert port is not None
    return port


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
    credentials: Callable[[Any], Sequence[str]] = no_credentials
    chat: str = "/v1/chat/completions"

    def wire(
        self, proxy: Ports, *, receive_buffer: int | None = None
    ) -> AbstractAsyncContextManager[Wire]:
        """Connect to it; see `wire`."""
        fields = partial(self.credentials, proxy)
        return wire(self.port(proxy), receive_buffer=receive_buffer, fields=fields)


MAIN = Listener("main", port=lambda proxy: proxy.port)
FAST = Listener("fast", port=fast_port, credentials=stream_token)
LISTENERS = [MAIN, FAST]
