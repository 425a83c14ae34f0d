"""Where the fast listener is for a client, if it can reach it at all.

Owns the URL that a client is given. It is made from the host that the client used to reach us, for
that is the only name of this machine of which it is known that the client can use it.

A browser on another machine cannot reach a listener on loopback: it is told so and not sent there.
What is between (a reverse proxy, a forwarded port) cannot be seen from here; the operator names the
URL then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.core.hosts import is_loopback_name, split_host

STREAM_PATH = "/stream"
"""The fast listener's own path; its body is that of `/v1/chat/completions`."""


@dataclass(frozen=True, slots=True)
class FastReach:
    """Where the fast listener listens.

    Attributes:
        hosts: The addresses that it is bound to.
        port: Its port.
        secure: Whether it speaks TLS.
        public_url: Its base URL for everybody, where the operator names one.
    """

    hosts: Sequence[str]
    port: int
    secure: bool = False
    public_url: str | None = None

    def url_for(self, *, host_field: str, client_host: str | None) -> str | None:
        """Return the base URL for a client, without a slash at its end; None: out of its reach.

        Args:
            host_field: The `Host` that it sent to us; empty if it sent none.
            client_host: Its address, as we see it.
        """
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        try:
            host, _ = split_host(host_field)
        except ValueError:
            return None
        if all(map(is_loopback_name, self.hosts)) and not _is_local(host, client_host):
            return None
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{shown}:{self.port}"


def _is_local(host: str, client_host: str | None) -> bool:
    """Tell whether the client is on this machine: by its address, and by the name it used.

    By the name too, for behind a reverse proxy on this machine everybody has a loopback address.
    """
    return is_loopback_name(host) and (client_host is None or is_loopback_name(client_host))
