"""Tests for request targets and authorities."""

from __future__ import annotations

import pytest

from proxy.core.errors import InvalidRequest
from proxy.core.request_target import is_authority, names_host, read_target


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"//",
        b"/v1/chat/completions",
        b"/a/../b/./c",
        b"/-._~!$&'()*+,;=:@",
        b"/%41%fF",
        b"/?",
        b"/?a?b/c",
        b"/?a=%zz&b=[1]{2}|^`\\",
        b"/?%00",
    ],
    ids=str,
)
def test_origin_form_valid_is_unchanged(target: bytes) -> None:
    """A path and query pass through byte by byte: no decoding, no dot removal."""
    assert read_target(b"GET", target) == (target, None)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://a/b?c", (b"/b?c", b"a")),
        (b"https://a:8443/", (b"/", b"a:8443")),
        (b"hTTp://[::1]:80/x", (b"/x", b"[::1]:80")),
        (b"http://a", (b"/", b"a")),
        (b"http://a?b", (b"/?b", b"a")),
        (b"http://a//b", (b"//b", b"a")),
    ],
    ids=str,
)
def test_absolute_form_becomes_origin_form_and_authority(
    target: bytes, expected: tuple[bytes, bytes]
) -> None:
    """An http URL is split; an empty path is '/' (RFC 9112 section 3.2.1)."""
    assert read_target(b"GET", target) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"*", (b"*", None)),
        (b"http://a", (b"*", b"a")),
        (b"http://a/", (b"/", b"a")),
        (b"http://a?b", (b"/?b", b"a")),
    ],
    ids=str,
)
def test_options_without_a_path_is_about_the_server(
    target: bytes, expected: tuple[bytes, bytes | None]
) -> None:
    """OPTIONS of a URL with neither path nor query is `OPTIONS *` (RFC 9112 section 3.2.4)."""
    assert read_target(b"OPTIONS", target) == expected


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"**",
        b"a",
        b"a:80",
        b"/#b",
        b"/?#b",
        b"/a b",
        b"/\xe9",
        b"/?\xe9",
        b"/%",
        b"/%4",
        b"/%4g",
        b"/a%00b",
        b'/"',
        b"/<",
        b"/\\",
        b"/[a]",
        b"/{a}",
        b'/?"',
        b"/?<a>",
        b"http:/a",
        b"http:a",
        b"http://",
        b"http:///a",
        b"http://:80/",
        b"http://a@b/",
        b"http://a:b@c/",
        b"http://a\\b/",
        b"http://a b/",
        b"http://a/%zz",
        b"http://a/#b",
        b"ws://a/",
        b"ftp://a/",
        b"file:///a",
        b"xhttp://a/",
    ],
    ids=str,
)
def test_target_malformed_is_refused(target: bytes) -> None:
    """A target in no form that GET has, or with a character that must be encoded, is refused."""
    with pytest.raises(InvalidRequest):
        read_target(b"GET", target)


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"A.b-c_d~e",
        b"127.0.0.1",
        b"localhost:8080",
        b"a:",
        b"a:0",
        b"a:65535",
        b"a%20b",
        b"!$&'()*+,;=",
        b"[::1]",
        b"[::1]:80",
        b"[2001:db8::1.2.3.4]",
    ],
    ids=str,
)
def test_authority_valid_names_a_host(value: bytes) -> None:
    """`uri-host [ ":" port ]`, with a host in it."""
    assert is_authority(value)
    assert names_host(value)


@pytest.mark.parametrize("value", [b"", b":", b":80"], ids=str)
def test_authority_without_host_is_valid_but_names_none(value: bytes) -> None:
    """An empty name is in the grammar, but no http URI has one (RFC 9110 section 4.2.1)."""
    assert is_authority(value)
    assert not names_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"a@b",
        b"a/b",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"a%zz",
        b"a\xe9",
        b"a:x",
        b"a:-1",
        b"a:65536",
        b"a:000080",
        b"a:80:80",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[1:2]",
        b"[::1]x",
        b"[::1]:x",
        b"[fe80::1%25eth0]",
        b"[v1.x]",
        b"[127.0.0.1]",
    ],
    ids=str,
)
def test_authority_malformed_is_none(value: bytes) -> None:
    """User information, paths, other characters, and ports and literals that nobody has."""
    assert not is_authority(value)
    assert not names_host(value)
