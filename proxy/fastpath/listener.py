"""The fast listener, put together: the same guard, front door and relay as the main one's.

Owns how its parts are joined. What makes it lean is what it leaves out, and the pump, which moves
the streams of both listeners.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from proxy.core.access import AccessPolicy
from proxy.fastpath.door import FastDoor
from proxy.http1.connection import ConnectionLimits, ServerContext
from proxy.http1.guard import Guard
from proxy.relay.front_door import FrontDoor
from proxy.relay.relay import Relay
from proxy.runtime.stream_tokens import StreamTokens


def make_fast_guard(
    relay: Relay,
    tokens: StreamTokens,
    policy: AccessPolicy,
    limits: ConnectionLimits,
    sockets: Sequence[socket.socket],
    *,
    send_timeout_s: float,
    tls: ssl.SSLContext | None,
) -> Guard:
    """Return the guard of the fast listener; its `run` serves.

    Args:
        relay: Carries what is asked; the main listener's.
        tokens: Redeems what is presented.
        policy: Who may ask.
        limits: What each connection may take.
        sockets: Listening sockets, non-blocking; the guard closes them.
        send_timeout_s: How long a client may take no byte, in seconds.
        tls: The TLS context, or None for plain HTTP.
    """
    door = FastDoor(relay, tokens)
    app = FrontDoor(policy, lambda _: door)
    return Guard(ServerContext(app, limits), sockets, send_timeout_s=send_timeout_s, tls=tls)
