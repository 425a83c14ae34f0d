"""Web pages: which page is behind a request, and what its browser is told (CORS).

Owns the reading of `Origin` and `Sec-Fetch-*`, and the `Access-Control-*` headers. It must never
know keys or decide what a page may do (`core.access`).

A browser sends `Origin` with everything but plain GETs; `Sec-Fetch-Site` with those too, if the
destination is secure or loopback. No page can write either.

Source: Fetch standard, "CORS protocol"; Fetch Metadata Request Headers; RFC 6454 section 7.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import Enum, auto

from proxy.core.hosts import split_host, split_origin

Field = tuple[bytes, bytes]

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED = b"X-Request-Id, Retry-After"
# How long a browser may keep a preflight's answer: a changed option is effective within ten
# minutes.
_PREFLIGHT_MAX_AGE_S = b"600"
# More header names than the openai package sends with all of its telemetry.
_MAX_REQUESTED_HEADERS = 64
# RFC 9110 section 5.6.2, `token`.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_VARY = (b"Vary", b"Origin")


class Page(Enum):
    """Which web page a request comes from."""

    NONE = auto()
    OWN = auto()
    LISTED = auto()
    FOREIGN = auto()


class HeadFields:
    """The header fields of one request, by name.

    Args:
        headers: In any spelling.
    """

    def __init__(self, headers: Sequence[Field]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of a field, in order; `name` is in lower case."""
        return self._values.get(name, [])

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def text(self, name: bytes) -> str:
        """Return the one value of a field; empty if there is none, or more than one."""
        values = self.all(name)
        return values[0].decode("latin-1") if len(values) == 1 else ""


def page_of(
    fields: HeadFields,
    *,
    method: str,
    secure: bool,
    listed: Collection[str],
    sister_ports: Collection[int] = (),
) -> Page:
    """Return which page a request comes from.

    Args:
        fields: The request's.
        method: The request's.
        secure: The connection to us is TLS.
        listed: The origins that the operator allows, exactly as browsers write them.
        sister_ports: Ports on which we serve pages beside the one that was asked; their pages are
            as good as listed ones.
    """
    site = fields.text(b"sec-fetch-site")
    if b"origin" not in fields:
        return Page.FOREIGN if _is_embedded_elsewhere(fields, site, method) else Page.NONE
    origin = fields.text(b"origin")
    if origin in listed or _is_sisters(origin, fields.text(b"host"), secure, sister_ports):
        return Page.LISTED
    if _is_own_origin(origin, fields.text(b"host"), site, secure):
        return Page.OWN
    return Page.FOREIGN


def _is_embedded_elsewhere(fields: HeadFields, site: str, method: str) -> bool:
    """Tell whether another site's page loads us as an image, a script or a frame.

    Browsers send no Origin then. Following a link is no such thing: the page that had the link
    never sees what it led to.
    """
    if site not in ("cross-site", "same-site"):
        return False
    follows_link = (
        method in ("GET", "HEAD")
        and fields.text(b"sec-fetch-mode") == "navigate"
        and fields.text(b"sec-fetch-dest") == "document"
    )
    return not follows_link


def _is_own_origin(origin: str, host: str, site: str, secure: bool) -> bool:
    """Tell whether a page that we served asks.

    A browser's word for it counts (no page can write `Sec-Fetch-Site`): behind another proxy
    `Host` may not be what the browser used. So may the scheme, unless TLS ends here.
    """
    try:
        asked = split_origin(origin)
        own_host, own_port = split_host(host)
    except ValueError:
        return False
    if site == "same-origin":
        return True
    if secure and asked.scheme != "https":
        return False
    default = 443 if asked.scheme == "https" else 80
    return (asked.host, asked.port) == (own_host, own_port or default)


def _is_sisters(origin: str, host: str, secure: bool, ports: Collection[int]) -> bool:
    """Tell whether a page asks that we served on another port of the same host."""
    try:
        asked = split_origin(origin)
        own_host, _ = split_host(host)
    except ValueError:
        return False
    return asked.host == own_host and asked.port in ports and (asked.scheme == "https") == secure


def cors_headers(page: Page, fields: HeadFields, *, any_listed: bool) -> list[Field]:
    """Return what every reply to a request of `page` carries, a refusal too.

    Args:
        page: What `page_of` gave.
        fields: The request's.
        any_listed: Whether there is any page that would be told more.
    """
    if page is Page.LISTED:
        origin = fields.all(b"origin")[0]
        return [
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Expose-Headers", _EXPOSED),
            _VARY,
        ]
    # Else a cache could hand a reply without the headers to a listed page (Fetch, "CORS and
    # caches").
    return [_VARY] if any_listed else []


def is_preflight(method: str, fields: HeadFields) -> bool:
    """Tell whether a browser asks if a page may send a request."""
    return (
        method == "OPTIONS" and b"origin" in fields and b"access-control-request-method" in fields
    )


def preflight_headers(page_headers: Sequence[Field], fields: HeadFields) -> list[Field]:
    """Return the headers of a 204 that lets a listed page send its request.

    Args:
        page_headers: What `cors_headers` gave.
        fields: The preflight's; the header names that it asks for are allowed, as far as they are
            names.
    """
    found = [*page_headers, (b"Access-Control-Allow-Methods", _METHODS)]
    requested = _requested_headers(fields)
    if requested:
        found.append((b"Access-Control-Allow-Headers", b", ".join(requested)))
    if fields.text(b"access-control-request-private-network") == "true":
        found.append((b"Access-Control-Allow-Private-Network", b"true"))
    found.append((b"Access-Control-Max-Age", _PREFLIGHT_MAX_AGE_S))
    return found


def _requested_headers(fields: HeadFields) -> list[bytes]:
    values = b",".join(fields.all(b"access-control-request-headers")).split(b",")
    names = [name.strip(b" \t") for name in values[:_MAX_REQUESTED_HEADERS]]
    return [name for name in names if _TOKEN.fullmatch(name)]
