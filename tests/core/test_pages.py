"""Which web page is behind a request, and what its browser is told."""

from __future__ import annotations

import pytest

from proxy.core.pages import (
    HeadFields,
    Page,
    cors_headers,
    is_preflight,
    page_of,
    preflight_headers,
)

APP = "https://app.example"


def head(**fields: str | None) -> HeadFields:
    """Return a request's head; names have underscores for dashes, None is not there."""
    return HeadFields(
        [
            (name.replace("_", "-").title().encode(), value.encode("latin-1"))
            for name, value in fields.items()
            if value is not None
        ]
    )


def page(method: str = "POST", *, secure: bool = False, **fields: str) -> Page:
    """Return the page behind a request for gpu.lan, unless `fields` say another host."""
    fields = {"host": "gpu.lan", **fields}
    return page_of(head(**fields), method=method, secure=secure, listed={APP})


@pytest.mark.parametrize(
    ("secure", "origin", "host", "found"),
    [
        (False, "http://gpu.lan", "gpu.lan", Page.OWN),
        (False, "http://gpu.lan", "GPU.lan.:80", Page.OWN),
        (False, "https://gpu.lan", "gpu.lan", Page.OWN),
        (False, "https://gpu.lan", "gpu.lan:443", Page.OWN),
        (False, "http://gpu.lan", "gpu.lan:443", Page.FOREIGN),
        (False, "http://gpu.lan", "", Page.FOREIGN),
        (True, "https://gpu.lan", "gpu.lan", Page.OWN),
        (True, "http://gpu.lan", "gpu.lan", Page.FOREIGN),
        (True, "https://gpu.lan:8443", "gpu.lan:8443", Page.OWN),
    ],
)
def test_page_own_by_default_ports_and_a_tls_proxy_before_us(
    secure: bool, origin: str, host: str, found: Page
) -> None:
    """A port may be left out; https is ours too unless TLS ends here, where http is not."""
    assert page(secure=secure, origin=origin, host=host) is found


@pytest.mark.parametrize(
    ("origin", "site", "found"),
    [
        ("https://gpu.example", "same-origin", Page.OWN),
        ("https://gpu.example", "same-site", Page.FOREIGN),
        ("https://gpu.example", "none", Page.FOREIGN),
        ("null", "same-origin", Page.FOREIGN),
    ],
)
def test_page_own_by_the_browsers_word(origin: str, site: str, found: Page) -> None:
    """A proxy before us may change Host (that of nginx does); Sec-Fetch-Site is the browser's."""
    assert page(origin=origin, sec_fetch_site=site) is found


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        (APP, Page.LISTED),
        ("https://APP.example", Page.FOREIGN),
        (APP + ":443", Page.FOREIGN),
        (APP + "/", Page.FOREIGN),
        ("http://app.example", Page.FOREIGN),
    ],
)
def test_page_listed_is_compared_exactly(origin: str, found: Page) -> None:
    """Browsers write an origin in one way."""
    assert page(origin=origin) is found


@pytest.mark.parametrize(
    ("secure", "origin", "host", "found"),
    [
        (False, "http://gpu.lan:8080", "gpu.lan:8081", Page.LISTED),
        (False, "http://GPU.lan.:8080", "gpu.lan:8081", Page.LISTED),
        (False, "http://gpu.lan", "gpu.lan:8081", Page.LISTED),
        (False, "http://[::1]:8080", "[::1]:8081", Page.LISTED),
        (False, "http://gpu.lan:8081", "gpu.lan:8081", Page.OWN),
        (False, "http://gpu.lan:3000", "gpu.lan:8081", Page.FOREIGN),
        (False, "https://gpu.lan:8080", "gpu.lan:8081", Page.FOREIGN),
        (False, "http://other.lan:8080", "gpu.lan:8081", Page.FOREIGN),
        (False, "http://127.0.0.1:8080", "localhost:8081", Page.FOREIGN),
        (False, "null", "gpu.lan:8081", Page.FOREIGN),
        (False, "http://gpu.lan:8080", "", Page.FOREIGN),
        (True, "https://gpu.lan:8080", "gpu.lan:8081", Page.LISTED),
        (True, "http://gpu.lan:8080", "gpu.lan:8081", Page.FOREIGN),
    ],
)
def test_page_of_a_sister_port_is_as_good_as_listed(
    secure: bool, origin: str, host: str, found: Page
) -> None:
    """We served it, on another port of the same host: to its browser that is another origin."""
    fields = head(host=host, origin=origin)
    ports = {80, 8080}
    asked = page_of(fields, method="POST", secure=secure, listed=(), sister_ports=ports)
    assert asked is found


NAVIGATION = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
ELSEWHERE = {"sec_fetch_site": "cross-site"}


@pytest.mark.parametrize(
    ("method", "fields", "found"),
    [
        pytest.param("GET", {}, Page.NONE, id="no browser"),
        pytest.param("GET", {"sec_fetch_site": "none"}, Page.NONE, id="typed address"),
        pytest.param("GET", {"sec_fetch_site": "same-origin"}, Page.NONE, id="our page"),
        pytest.param("GET", ELSEWHERE, Page.FOREIGN, id="image"),
        pytest.param("GET", {"sec_fetch_site": "same-site"}, Page.FOREIGN, id="another port"),
        pytest.param("GET", ELSEWHERE | NAVIGATION, Page.NONE, id="link"),
        pytest.param("HEAD", ELSEWHERE | NAVIGATION, Page.NONE, id="link, HEAD"),
        pytest.param("POST", ELSEWHERE | NAVIGATION, Page.FOREIGN, id="form"),
        pytest.param(
            "GET", ELSEWHERE | NAVIGATION | {"sec_fetch_dest": "iframe"}, Page.FOREIGN, id="frame"
        ),
        pytest.param(
            "GET", ELSEWHERE | NAVIGATION | {"sec_fetch_mode": "no-cors"}, Page.FOREIGN, id="script"
        ),
    ],
)
def test_page_without_origin_is_judged_by_fetch_metadata(
    method: str, fields: dict[str, str], found: Page
) -> None:
    """Another site may link to us, but not load us."""
    assert page_of(head(**fields), method=method, secure=False, listed={APP}) is found


@pytest.mark.parametrize("which", [Page.NONE, Page.OWN, Page.FOREIGN])
def test_cors_headers_of_an_unlisted_page_are_none(which: Page) -> None:
    """Its browser shows it nothing; `Vary` is there as soon as another page gets more."""
    assert cors_headers(which, head(origin="https://evil.example"), any_listed=False) == []
    assert cors_headers(which, head(), any_listed=True) == [(b"Vary", b"Origin")]


def test_cors_headers_of_a_listed_page_name_it() -> None:
    """Its origin and never `*`, and no leave to send cookies."""
    assert cors_headers(Page.LISTED, head(origin=APP), any_listed=True) == [
        (b"Access-Control-Allow-Origin", APP.encode()),
        (b"Access-Control-Expose-Headers", b"X-Request-Id, Retry-After"),
        (b"Vary", b"Origin"),
    ]


@pytest.mark.parametrize(
    ("method", "origin", "asked", "found"),
    [
        ("OPTIONS", APP, "POST", True),
        ("OPTIONS", APP, None, False),
        ("OPTIONS", None, "POST", False),
        ("POST", APP, "POST", False),
    ],
)
def test_is_preflight_by_method_and_both_fields(
    method: str, origin: str | None, asked: str | None, found: bool
) -> None:
    """OPTIONS has other uses."""
    fields = head(origin=origin, access_control_request_method=asked)
    assert is_preflight(method, fields) is found


def test_preflight_headers_follow_those_of_the_page() -> None:
    """Methods, and how long the answer holds."""
    assert preflight_headers([(b"X", b"1")], head()) == [
        (b"X", b"1"),
        (b"Access-Control-Allow-Methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
        (b"Access-Control-Max-Age", b"600"),
    ]


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("", []),
        ("authorization,\tx-stainless-os", [b"authorization, x-stainless-os"]),
        ("a b, c", [b"c"]),
        ("x\u00e9, (y), z:", []),
        ("n" * 65 + ", ok", [b"ok"]),
        (", ".join(["n"] * 100), [b", ".join([b"n"] * 64)]),
    ],
)
def test_preflight_headers_echo_names_only_and_a_bounded_number(
    asked: str, allowed: list[bytes]
) -> None:
    """What is echoed is tokens, so that nothing else comes into our headers."""
    found = preflight_headers([], head(access_control_request_headers=asked))
    assert [value for name, value in found if name == b"Access-Control-Allow-Headers"] == allowed


def test_preflight_headers_allow_a_private_network_when_asked() -> None:
    """Chromium asks so before a page on the internet reaches a loopback address."""
    allowed = (b"Access-Control-Allow-Private-Network", b"true")
    fields = head(access_control_request_private_network="true")
    assert allowed in preflight_headers([], fields)
    assert allowed not in preflight_headers([], head())
