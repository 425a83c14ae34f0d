"""Where an upstream listens: a value, made by the engine, read by whoever dials it.

Owns the one spelling of an upstream's place (unix socket or TCP, with or without TLS) and of what a
request to it must name in `Host`. Knows nothing of connections.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream listens.

    Args:
        uds: Path of its unix socket; None for TCP.
        host: Name or address to dial over TCP; no brackets around an IPv6 address.
        port: TCP port; 0 while it is not known yet.
        tls: Whether TLS is spoken.
        authority: What goes into `Host`: `name`, `name:port` or `[v6]:port`.
        base_path: What precedes every request target, without a final slash; mostly empty.
    """

    uds: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    authority: str = "localhost"
    base_path: str = ""

    @property
    def url(self) -> str:
        """The base URL for a person or a client library, without a final slash."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base_path}"

    @property
    def is_known(self) -> bool:
        """Whether it can be dialled: a TCP port chosen by the system is learned a little later."""
        return self.uds is not None or self.port != 0
