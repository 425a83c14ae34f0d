"""Listening sockets: names become addresses, addresses become bound sockets, or one clear error.

Owns the binding, before anything is launched: of two starts that want one port the second learns it
at once. It accepts nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from proxy.core.errors import ConfigError

# The usual backlog of 100 lets the 128th of a burst of clients wait a second for a lost SYN.
BACKLOG = 1024


def bind_sockets(
    hosts: str | Sequence[str], port: int, *, option: str = "--port"
) -> list[socket.socket]:
    """Bind listening sockets, one for each address that `hosts` stand for.

    Args:
        hosts: Names or addresses, IPv4 or IPv6.
        port: 0 for any free one, the same on every address.
        option: What names the port, for the error.

    Raises:
        ConfigError: When an address is in use, not ours or unknown; what was bound is closed again.
    """
    named = [hosts] if isinstance(hosts, str) else hosts
    # Several names may stand for one address, and one name for it several times.
    wanted = {found: host for host in named for found in _resolve(host, port)}
    sockets: list[socket.socket] = []
    try:
        for (family, address), host in wanted.items():
            where = (*_with_port(address, sockets), *address[2:])
            sockets.append(_bind(family, where, host, option))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"The host {host!r} is not known: {error.strerror}.") from error
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def _with_port(address: tuple[str, int], bound: list[socket.socket]) -> tuple[str, int]:
    """Give every socket after the first the port that the first one got."""
    return address[0], address[1] or (bound[0].getsockname()[1] if bound else 0)


def _bind(family: int, address: tuple[str, int], host: str, option: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"Cannot listen on {host} port {address[1]}: {error.strerror}."
            f" Choose another with {option}, or 0 for any free one."
        ) from error
    return sock
