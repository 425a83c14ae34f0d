"""The client of a proxy, for Trio programs: a chat as a stream of events, however it travels."""

from __future__ import annotations

from proxy.client.client import ProxyClient, open_client
from proxy.client.errors import (
    StreamAborted,
    StreamBroken,
    StreamFailed,
    StreamRefused,
    StreamUnanswered,
)
from proxy.client.stream import ChatStream

__all__ = [
    "ChatStream",
    "ProxyClient",
    "StreamAborted",
    "StreamBroken",
    "StreamFailed",
    "StreamRefused",
    "StreamUnanswered",
    "open_client",
]
