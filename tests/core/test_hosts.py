"""Host names, origins and loopback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.hosts import (
    WebOrigin,
    host_name,
    is_loopback_address,
    is_loopback_name,
    split_host,
    split_origin,
)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:8080", ("localhost", 8080)),
        ("example.org.", ("example.org", None)),
        ("my_host-1.lan:0", ("my_host-1.lan", 0)),
        ("h:", ("h", None)),
        ("h:65535", ("h", 65535)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]", ("::1", None)),
        ("[0:0:0:0:0:0:0:1]:443", ("::1", 443)),
        ("[2001:DB8::A]", ("2001:db8::a", None)),
        ("[::ffff:127.0.0.1]", ("::ffff:7f00:1", None)),
    ],
)
def test_split_host_valid_in_its_comparison_form(
    header: str, found: tuple[str, int | None]
) -> None:
    """Two spellings of a host compare equal."""
    host, port = split_host(header)
    assert (host_name(host), port) == (host_name(found[0]), found[1])
    assert host == host_name(host)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ".",
        ":80",
        "h:65536",
        "h:123456",
        "h:-1",
        "h:+1",
        "h:\u0662",
        "h:80:80",
        "a b",
        " h",
        "h ",
        "h\n",
        "user@h",
        "h/",
        "http://h",
        "h%2e",
        "h,i",
        "h\u00e9",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::g]",
        "[127.0.0.1]",
        "[::1%25eth0]",
        "[v1.x]",
        "[::1]x",
    ],
)
def test_split_host_malformed_is_an_error(header: str) -> None:
    """What is no host with an optional port is not guessed at."""
    with pytest.raises(
        ValueError,
        match=r"not a host|no such port|empty host|address|IPv6|colon|octet|hex|characters|parts",
    ):
        split_host(header)


@given(st.text())
def test_split_host_gives_a_host_or_value_error(header: str) -> None:
    """Nothing else comes of any text, and a host that was read once reads the same again."""
    try:
        host, port = split_host(header)
    except ValueError:
        return
    assert host_name(host) == host
    assert port is None or 0 <= port <= 65535


@pytest.mark.parametrize(
    ("header", "origin"),
    [
        ("http://localhost:8080", WebOrigin("http", "localhost", 8080)),
        ("https://example.org", WebOrigin("https", "example.org", 443)),
        ("http://EXAMPLE.org", WebOrigin("http", "example.org", 80)),
        ("http://[::1]:1", WebOrigin("http", "::1", 1)),
    ],
)
def test_split_origin_of_a_web_page(header: str, origin: WebOrigin) -> None:
    """The port is filled in by the scheme."""
    assert split_origin(header) == origin


@pytest.mark.parametrize(
    "header",
    ["null", "", "localhost", "file://", "ftp://h", "http://", "http://h/", "http://h http://i"],
)
def test_split_origin_of_anything_else_is_an_error(header: str) -> None:
    """No page of ours has such an origin."""
    with pytest.raises(ValueError, match=r"not the origin of a web page|not a host"):
        split_origin(header)


LOOPBACK = ["localhost", "127.0.0.1", "127.255.255.254", "::1"]
ELSEWHERE = [
    "example.org",
    "localhost.example.org",
    "128.0.0.1",
    "0.0.0.0",
    "::",
    "127.1",
    "",
    "10.0.0.1",
]


@pytest.mark.parametrize("host", [*LOOPBACK, "app.localhost", "::ffff:127.0.0.1"])
def test_loopback_name_is_this_machine(host: str) -> None:
    """Browsers resolve all of these to the machine they run on."""
    assert is_loopback_name(host)


@pytest.mark.parametrize("host", [*ELSEWHERE, "notlocalhost", "localhost.evil"])
def test_loopback_name_is_nothing_else(host: str) -> None:
    """A name that somebody's server can have is not one."""
    assert not is_loopback_name(host)


@pytest.mark.parametrize("host", [*LOOPBACK, "LOCALHOST", "[::1]"])
def test_loopback_address_may_be_bound_without_keys(host: str) -> None:
    """Only this machine reaches it."""
    assert is_loopback_address(host)


@pytest.mark.parametrize("host", [*ELSEWHERE, "app.localhost", "192.168.1.5", "fe80::1"])
def test_loopback_address_is_nothing_else(host: str) -> None:
    """All addresses, wildcards and names that a resolver decides on are reachable by others."""
    assert not is_loopback_address(host)
