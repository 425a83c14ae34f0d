"""Who may do what: the decision that stands before everything else in a request.

Owns the order of the checks (host, origin, credentials, rank) and the CORS headers of every
reply. It sees headers only and has no state; who a key belongs to is `core.keyring`'s, what a
host is `core.hosts`'s.

The threat is a web page. Without keys the proxy listens on loopback, and any page that the person
at this machine has open can send requests there. A page on a name that was rebound to 127.0.0.1
gives itself away by `Host`; any other page by `Origin`, or by `Sec-Fetch-Site` where a browser
sends no `Origin`. With keys the key decides: a page that has one was given it. But no page of an
origin that is not listed can read an answer, as it gets no CORS headers.

A programme that is no browser can send what it likes in these headers: they protect from pages
alone.

Source: Fetch standard, "CORS protocol" and "Sec-Fetch-*" (Fetch Metadata); RFC 9110 sections 7.2, 15.5.20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import unquote

from proxy.core.errors import (
    AuthenticationFailed,
    HttpError,
    InvalidRequest,
    MisdirectedRequest,
    PermissionDenied,
)
from proxy.core.hosts import (
    host_name,
    is_loopback_address,
    is_loopback_name,
    split_host,
    split_origin,
)
from proxy.core.keyring import ApiKey, Keyring, parse_key_file, presents_key

__all__ = [
    "AccessPolicy",
    "Admitted",
    "ApiKey",
    "Decision",
    "Keyring",
    "Preflight",
    "Refused",
    "decide",
    "is_loopback_address",
    "parse_key_file",
    "split_host",
]

Field = tuple[bytes, bytes]

ANY_HOST = "*"
# They say whether we live, or are a page without content.
PUBLIC_PATHS = frozenset({"/health", "/v1/health", "/livez", "/readyz", "/status"})
# The operator's routes, and what shows other people's texts.
_ADMIN_PREFIXES = ("/proxy/", "/status/")

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED = b"X-Request-Id, Retry-After"
# How long a browser may keep a preflight's answer: 600 s is Chromium's old limit, and a changed
# option is effective within ten minutes.
_PREFLIGHT_MAX_AGE_S = b"600"
# More header names than the openai package sends with every telemetry field.
_MAX_REQUESTED_HEADERS = 64
# RFC 9110 section 5.6.2, `token`.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_VARY = (b"Vary", b"Origin")

_NOT_OUR_HOST = (
    "This server does not answer for the host name in this request. If it should, start it with"
    " --allowed-host and that name."
)
_FOREIGN_PAGE = (
    "Web pages of this origin may not use this server. If they should, start it with --cors-origin and the"
    " page's origin."
)
_KEY_MISSING = "An API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
_KEY_UNKNOWN = "The API key is not one that this server knows."
_NOT_AN_ADMIN = "This API key may not use the operator's routes; they need an admin key."
_BAD_HOST = "The Host header must be one host with an optional port."


@dataclass(frozen=True)
class AccessPolicy:
    """What the operator allows.

    Attributes:
        keyring: The API keys; none means that no key is needed.
        allowed_hosts: Host names, without a port, that requests may be for, beside the loopback
            names; `*` is any. Empty: with keys any, without keys the loopback names alone.
        cors_origins: Origins whose pages may use the server, exactly as browsers write them.
        cors_by_upstream: Origins and CORS are llama-server's: neither checked nor answered here.
        public_paths: Paths whose GET needs no key.
    """

    keyring: Keyring
    allowed_hosts: frozenset[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()
    cors_by_upstream: bool = False
    public_paths: frozenset[str] = PUBLIC_PATHS

    def __post_init__(self) -> None:
        hosts = frozenset(host_name(host) for host in self.allowed_hosts)
        object.__setattr__(self, "allowed_hosts", hosts)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request may be answered; `principal` is the key it carries, if any."""

    principal: ApiKey | None
    cors_headers: list[Field]


@dataclass(frozen=True, slots=True)
class Refused:
    """The request gets `error`, with the CORS headers that let a listed page read it."""

    error: HttpError
    cors_headers: list[Field]


@dataclass(frozen=True, slots=True)
class Preflight:
    """A browser asks whether a page may send a request: 204 with these headers."""

    headers: list[Field]


Decision = Admitted | Refused | Preflight


class _Page(Enum):
    """Which web page a request comes from."""

    NONE = auto()
    OWN = auto()
    LISTED = auto()
    FOREIGN = auto()


def decide(
    policy: AccessPolicy, *, method: str, path: str, headers: Sequence[Field], secure: bool
) -> Decision:
    """Decide on one request from its head.

    Args:
        policy: The operator's.
        method: The request's method.
        path: Its path without the query, percent-encoded or not.
        headers: Its header fields.
        secure: The connection to us is TLS.
    """
    fields = _Fields(headers)
    if policy.cors_by_upstream:
        page, cors = _Page.NONE, []
    else:
        page = _page_of(policy, fields, method, secure)
        cors = _cors_headers(policy, page, fields)
    try:
        _check_host(policy, fields)
        if _is_preflight(method, fields):
            return _answer_preflight(policy, page, fields, cors)
        if page is _Page.FOREIGN and not policy.keyring.required:
            raise PermissionDenied(_FOREIGN_PAGE)
        return Admitted(_principal(policy, method, path, headers), cors)
    except HttpError as error:
        return Refused(error, cors)


class _Fields:
    """The header fields of one request, by name."""

    def __init__(self, headers: Sequence[Field]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: bytes) -> list[bytes]:
        return self._values.get(name, [])

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def text(self, name: bytes) -> str:
        """Return the one value of a field; empty if there is none, or more than one."""
        values = self.all(name)
        return values[0].decode("latin-1") if len(values) == 1 else ""


def _check_host(policy: AccessPolicy, fields: _Fields) -> None:
    restricted = bool(policy.allowed_hosts) or not policy.keyring.required
    # No Host at all is HTTP/1.0: a probe, never a browser, so no page either.
    if not restricted or ANY_HOST in policy.allowed_hosts or b"host" not in fields:
        return
    try:
        host, _ = split_host(fields.text(b"host"))
    except ValueError as error:
        raise InvalidRequest(_BAD_HOST) from error
    if host not in policy.allowed_hosts and not is_loopback_name(host):
        raise MisdirectedRequest(_NOT_OUR_HOST)


def _page_of(policy: AccessPolicy, fields: _Fields, method: str, secure: bool) -> _Page:
    site = fields.text(b"sec-fetch-site")
    if b"origin" not in fields:
        return _Page.FOREIGN if _is_embedded_elsewhere(fields, site, method) else _Page.NONE
    origin = fields.text(b"origin")
    if origin in policy.cors_origins:
        return _Page.LISTED
    if _is_own_origin(origin, fields.text(b"host"), site, secure):
        return _Page.OWN
    return _Page.FOREIGN


def _is_embedded_elsewhere(fields: _Fields, site: str, method: str) -> bool:
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


def _cors_headers(policy: AccessPolicy, page: _Page, fields: _Fields) -> list[Field]:
    if page is _Page.LISTED:
        origin = fields.all(b"origin")[0]
        return [
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Expose-Headers", _EXPOSED),
            _VARY,
        ]
    # Else a cache could hand a reply without the headers to a listed page (Fetch, "CORS and
    # caches").
    return [_VARY] if policy.cors_origins else []


def _is_preflight(method: str, fields: _Fields) -> bool:
    return (
        method == "OPTIONS" and b"origin" in fields and b"access-control-request-method" in fields
    )


def _answer_preflight(
    policy: AccessPolicy, page: _Page, fields: _Fields, cors: list[Field]
) -> Decision:
    """Answer for a listed page; a preflight never carries credentials, so none are looked for."""
    if policy.cors_by_upstream:
        return Admitted(None, [])
    if page is not _Page.LISTED:
        raise PermissionDenied(_FOREIGN_PAGE)
    found = [*cors, (b"Access-Control-Allow-Methods", _METHODS)]
    requested = _requested_headers(fields)
    if requested:
        found.append((b"Access-Control-Allow-Headers", b", ".join(requested)))
    if fields.text(b"access-control-request-private-network") == "true":
        found.append((b"Access-Control-Allow-Private-Network", b"true"))
    found.append((b"Access-Control-Max-Age", _PREFLIGHT_MAX_AGE_S))
    return Preflight(found)


def _requested_headers(fields: _Fields) -> list[bytes]:
    values = b",".join(fields.all(b"access-control-request-headers")).split(b",")
    names = [name.strip(b" \t") for name in values[:_MAX_REQUESTED_HEADERS]]
    return [name for name in names if _TOKEN.fullmatch(name)]


def _principal(
    policy: AccessPolicy, method: str, path: str, headers: Sequence[Field]
) -> ApiKey | None:
    """Return the key that the request carries.

    Raises:
        AuthenticationFailed: It needs a key and carries none that is known.
        PermissionDenied: It needs an admin key.
    """
    keyring = policy.keyring
    if not keyring.required:
        return None
    key = keyring.identify(headers)
    if method in ("GET", "HEAD") and path in policy.public_paths:
        return key
    if key is None:
        raise AuthenticationFailed(_KEY_UNKNOWN if presents_key(headers) else _KEY_MISSING)
    if keyring.any_admin and not key.admin and _is_operators(path):
        raise PermissionDenied(_NOT_AN_ADMIN)
    return key


def _is_operators(path: str) -> bool:
    """Tell whether a path could be read as one of the operator's, however it is written."""
    plain = re.sub("/+", "/", unquote(path))
    return f"{plain}/".startswith(_ADMIN_PREFIXES) and plain not in PUBLIC_PATHS
