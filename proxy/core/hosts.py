"""Host names: reading a Host header and an Origin, and knowing loopback when it is seen.

Owns the comparison form of a host: lower case, without brackets or a final dot, IP addresses in
their canonical spelling. It must never decide which hosts are served (`core.access`).

Source: RFC 3986 section 3.2.2; RFC 6454 section 7 (Origin); RFC 6761 section 6.3 (`localhost`).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._~-]+))(?::(?P<port>\d{0,5}))?"
)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535


class WebOrigin(NamedTuple):
    """The parts of a web page's origin; `port` is never left out."""

    scheme: str
    host: str
    port: int


# Clients name the same few hosts again and again, and an address costs 20 us to be read: as much as
# all of a small request's JSON. Those that nobody names any more are forgotten.
@lru_cache(maxsize=256)
def split_host(header: str) -> tuple[str, int | None]:
    """Return the host of a Host header in its comparison form, and the port if it names one.

    Stricter than RFC 3986: no percent-encoding, no sub-delimiters, no IPvFuture. No name that
    resolves has any of them.

    Raises:
        ValueError: It is not a host with an optional port.
    """
    found = _AUTHORITY.fullmatch(header)
    if found is None or not header.isascii():
        raise ValueError("not a host with an optional port")
    # RFC 3986 section 3.2.3: a port may be empty, which is as good as none.
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _HIGHEST_PORT:
        raise ValueError("no such port")
    if found["v6"] is not None:
        return str(ipaddress.IPv6Address(found["v6"])), port
    return host_name(found["name"]), port


def host_name(text: str) -> str:
    """Return a host without a port, with or without brackets, in its comparison form.

    Raises:
        ValueError: It is empty, or nothing but a dot.
    """
    name = text.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    if not name:
        raise ValueError("an empty host")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def split_origin(header: str) -> WebOrigin:
    """Return the parts of an Origin header.

    Raises:
        ValueError: It is `null`, or not of http or https: no page that we could serve.
    """
    found = _ORIGIN.fullmatch(header.lower())
    if found is None:
        raise ValueError("not the origin of a web page")
    host, port = split_host(found["authority"])
    return WebOrigin(found["scheme"], host, port or _DEFAULT_PORTS[found["scheme"]])


def is_loopback_name(host: str) -> bool:
    """Tell whether a host, in its comparison form, means the machine that asks.

    RFC 6761 reserves `localhost` and all below it for that, and browsers resolve them so
    themselves: no web page's server can get hold of such a name.
    """
    return host == "localhost" or host.endswith(".localhost") or _is_loopback_ip(host)


def is_loopback_address(host: str) -> bool:
    """Tell whether nobody but this machine can reach a listener that is bound to `host`.

    `localhost` counts; other names do not, as they mean what the resolver says.
    """
    name = host.lower().removeprefix("[").removesuffix("]")
    return name == "localhost" or _is_loopback_ip(name)


def _is_loopback_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
