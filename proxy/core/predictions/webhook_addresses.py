"""Which addresses a webhook may go to.

Owns the table. Whoever may make a prediction may name a receiver, and the proxy stands where its
clients do not: beside services that trust their own machine and their own network. So what is not
an address of the public internet is refused, and the operator may open the networks of their own.

It is asked about addresses and never about names: a name is whatever its owner's server says at the
moment, so the answer that is checked has to be the one that is connected to.

Source: the IANA special-purpose address registries (RFC 6890); RFC 4291 (IPv6, mapped addresses);
RFC 6052 (NAT64); RFC 3056 (6to4).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_PRIVATE_4 = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by a provider's customers, and by private overlay networks
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
        ),
    )
)
_NO_RECEIVERS_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # connects to this machine
            "169.254.0.0/16",  # link-local: where clouds hand out credentials
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_PRIVATE_6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
# All that is given out so far; what is outside is special or nobody's.
_GLOBAL_6 = IPv6Network("2000::/3")
_NO_RECEIVERS_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols, among them Teredo, which leads to any IPv4 address
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_allowed_address(ip: str, allow_private: bool) -> bool:
    """Tell whether a webhook may be sent to an address.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is as good as that one.

    Args:
        ip: The address, as `getaddrinfo` returns it.
        allow_private: Whether this machine and private networks are allowed too. Link-local,
            multicast, unspecified, reserved and documentation addresses never are.

    Raises:
        ValueError: It is no address.
    """
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is None:
            return _is_allowed_6(address, allow_private)
        address = embedded
    if any(address in network for network in _PRIVATE_4):
        return allow_private
    return not any(address in network for network in _NO_RECEIVERS_4)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_allowed_6(address: IPv6Address, allow_private: bool) -> bool:
    if any(address in network for network in _PRIVATE_6):
        return allow_private
    return address in _GLOBAL_6 and not any(address in network for network in _NO_RECEIVERS_6)
