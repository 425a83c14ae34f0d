"""Where webhooks may go: every kind of address, also in the clothes of another."""

from __future__ import annotations

import pytest

from proxy.core.predictions.webhook_addresses import is_allowed_address

PUBLIC = {
    "IPv4": "93.184.216.34",
    "last before 10/8": "9.255.255.255",
    "first after 10/8": "11.0.0.0",
    "last before 172.16/12": "172.15.255.255",
    "first after 172.16/12": "172.32.0.0",
    "last before the shared ones": "100.63.255.255",
    "first after the shared ones": "100.128.0.0",
    "last before multicast": "223.255.255.255",
    "IPv6": "2606:2800:220:1:248:1893:25c8:1946",
    "IPv6 after the protocols": "2001:200::1",
    "mapped": "::ffff:93.184.216.34",
    "NAT64": "64:ff9b::93.184.216.34",
    "6to4": "2002:5db8:d822::1",
}
PRIVATE = {
    "loopback": "127.0.0.1",
    "loopback, another": "127.255.255.254",
    "10/8": "10.0.0.1",
    "172.16/12": "172.31.255.255",
    "192.168/16": "192.168.1.1",
    "shared": "100.64.0.1",
    "IPv6 loopback": "::1",
    "IPv6 private": "fd00::1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped private": "::ffff:10.0.0.1",
    "NAT64 of private": "64:ff9b::10.0.0.1",
    "6to4 of private": "2002:c0a8:0101::1",
}
NEVER = {
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "link-local": "169.254.169.254",
    "protocol assignments": "192.0.0.8",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "6to4 relay": "192.88.99.1",
    "benchmarks": "198.19.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 unspecified": "::",
    "IPv6 link-local": "fe80::1",
    "IPv6 link-local with a zone": "fe80::1%eth0",
    "IPv6 site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "IPv6 documentation": "2001:db8::1",
    "IPv6 documentation, newer": "3fff::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "IPv6 discard": "100::1",
    "local NAT64": "64:ff9b:1::10.0.0.1",
    "IPv4-compatible": "::127.0.0.1",
    "mapped link-local": "::ffff:169.254.169.254",
    "NAT64 of link-local": "64:ff9b::169.254.169.254",
    "6to4 of unspecified": "2002::1",
}


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("ip", PUBLIC.values(), ids=PUBLIC)
def test_public_address_is_allowed(ip: str, allow_private: bool) -> None:
    """Whatever the option."""
    assert is_allowed_address(ip, allow_private)


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("ip", PRIVATE.values(), ids=PRIVATE)
def test_private_address_is_as_the_option_says(ip: str, allow_private: bool) -> None:
    """This machine and private networks."""
    assert is_allowed_address(ip, allow_private) is allow_private


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("ip", NEVER.values(), ids=NEVER)
def test_special_address_is_never_allowed(ip: str, allow_private: bool) -> None:
    """No receiver has one, and a cloud's credentials have."""
    assert not is_allowed_address(ip, allow_private)


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5", "[::1]"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    """The caller's: addresses come from the resolver."""
    with pytest.raises(ValueError, match="address"):
        is_allowed_address(text, allow_private=False)
