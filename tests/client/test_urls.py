"""Where the client may go: the URLs that it is given, and those that it is told of."""

from __future__ import annotations

import pytest

from proxy.client.urls import Server
from proxy.core.errors import ConfigError

UNUSABLE = [
    "",
    "127.0.0.1:8080",
    "/stream",
    "//host/stream",
    "ftp://host/stream",
    "http://",
    "http:///stream",
    "http://user:password@host/",
    "http://@host/",
    "http://host:99999/",
    "http://host:port/",
    "http://[::1/",
    "http://ho st/",
    "http://host/\n",
    "http://hóst/",
]


@pytest.mark.parametrize("url", [*UNUSABLE, "http://host/?a", "http://host/#a"])
def test_base_url_that_cannot_be_used_is_a_config_error(url: str) -> None:
    """The message says how it has to be, and does not repeat a password."""
    with pytest.raises(ConfigError, match="must begin with http://") as caught:
        Server.at(url, verify_by_host=True)
    assert "user:password" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host", "http://host/", "http://host/below/"])
def test_base_url_has_no_slash_at_its_end(url: str) -> None:
    """Paths are put behind it."""
    assert Server.at(url, verify_by_host=True).url == url.rstrip("/")


@pytest.mark.parametrize("url", UNUSABLE)
def test_url_that_cannot_be_used_is_objected_to(url: str) -> None:
    """What nobody can ask is not tried."""
    assert Server.at("http://host", verify_by_host=True).objection_to(url)


@pytest.mark.parametrize(
    ("base", "verify_by_host", "url", "objection"),
    [
        ("http://host", True, "http://host:8081/stream", None),
        ("http://host", True, "https://other/stream", None),
        ("https://host", True, "https://other/stream", None),
        ("https://host", True, "http://host:8081/stream", "from TLS to none"),
        ("https://host", True, "http://127.0.0.1:8081/stream", None),
        ("http://127.0.0.1", True, "http://host/stream", None),
        ("http://127.0.0.1", True, "https://localhost/stream", None),
        ("http://localhost", True, "https://host/stream", "not be verified"),
        ("https://[::1]", True, "https://host/stream", "not be verified"),
        ("http://127.0.0.1", False, "https://host/stream", None),
        # Its name is resolved like any other's.
        ("http://app.localhost", True, "https://host/stream", None),
    ],
)
def test_url_told_is_objected_to_where_it_is_less_private(
    base: str, verify_by_host: bool, url: str, objection: str | None
) -> None:
    """Neither out of TLS nor to a certificate that nobody verifies, but on this machine."""
    found = Server.at(base, verify_by_host=verify_by_host).objection_to(url)
    if objection is None:
        assert found is None
    else:
        assert objection in str(found)
