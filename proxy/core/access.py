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

Source: RFC 9110 sections 7.2 (Host), 11.6 (credentials) and 15.5.20 (421).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from proxy.core.errors import (
    AuthenticationFailed,
    HttpError,
    InvalidRequest,
    MisdirectedRequest,
    PermissionDenied,
)
from proxy.core.hosts import host_name, is_loopback_address, is_loopback_name, split_host
from proxy.core.keyring import (
    ApiKey,
    Keyring,
    parse_key_file,
    presents_key,
    presents_stream_token,
)
from proxy.core.pages import (
    HeadFields,
    Page,
    cors_headers,
    is_preflight,
    page_of,
    preflight_headers,
)

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

# The files of llama-server's web page, which it serves without a key as well: a browser cannot send
# one with a page. They are the same for everybody; what the page asks for with the key is not among
# them.
_WEB_UI = re.compile(r"/(?:_app/[\w./-]+|[\w-]+\.(?:html|js|css|ico|svg|png|webmanifest))?")

Field = tuple[bytes, bytes]

ANY_HOST = "*"
# They say whether we live, or are a page without content.
PUBLIC_PATHS = frozenset({"/health", "/v1/health", "/livez", "/readyz", "/status"})
# The operator's routes, and what shows other people's texts.
_ADMIN_PREFIXES = ("/proxy/", "/status/")

_NOT_OUR_HOST = (
    "This server does not answer for the host name in this request. If it should, start it with"
    " --allowed-host and that name."
)
_FOREIGN_PAGE = (
    "Web pages of this origin may not use this server. If they should, start it with --cors-origin"
    " and the page's origin."
)
_KEY_MISSING = "An API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
_KEY_OR_TOKEN_MISSING = (
    "A stream token is needed, as `X-Stream-Token: TOKEN`, or an API key, as `Authorization: Bearer"
    " KEY` or `x-api-key: KEY`."
)
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
        sister_ports: Ports of ours on the same host: pages that are served there are our own, and
            have to be told by CORS that they may read.
        takes_stream_tokens: A stream token stands for a key; whoever answers has to redeem it.
    """

    keyring: Keyring
    allowed_hosts: frozenset[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()
    cors_by_upstream: bool = False
    public_paths: frozenset[str] = PUBLIC_PATHS
    sister_ports: frozenset[int] = frozenset()
    takes_stream_tokens: bool = False

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
    fields = HeadFields(headers)
    if policy.cors_by_upstream:
        page, cors = Page.NONE, []
    else:
        page = page_of(
            fields,
            method=method,
            secure=secure,
            listed=policy.cors_origins,
            sister_ports=policy.sister_ports,
        )
        cors = cors_headers(
            page, fields, any_listed=bool(policy.cors_origins or policy.sister_ports)
        )
    try:
        _check_host(policy, fields)
        if is_preflight(method, fields):
            return _answer_preflight(policy, page, fields, cors)
        if page is Page.FOREIGN and not policy.keyring.required:
            raise PermissionDenied(_FOREIGN_PAGE)
        return Admitted(_principal(policy, method, path, headers), cors)
    except HttpError as error:
        return Refused(error, cors)


def _check_host(policy: AccessPolicy, fields: HeadFields) -> None:
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


def _answer_preflight(
    policy: AccessPolicy, page: Page, fields: HeadFields, cors: list[Field]
) -> Decision:
    """Answer for a listed page; a preflight never carries credentials, so none are looked for."""
    if policy.cors_by_upstream:
        return Admitted(None, [])
    if page is not Page.LISTED:
        raise PermissionDenied(_FOREIGN_PAGE)
    return Preflight(preflight_headers(cors, fields))


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
    if policy.takes_stream_tokens and presents_stream_token(headers):
        return None
    key = keyring.identify(headers)
    if method in ("GET", "HEAD") and (path in policy.public_paths or _WEB_UI.fullmatch(path)):
        return key
    if key is None:
        raise AuthenticationFailed(_why_no_key(policy, headers))
    if keyring.any_admin and not key.admin and _is_operators(path):
        raise PermissionDenied(_NOT_AN_ADMIN)
    return key


def _why_no_key(policy: AccessPolicy, headers: Sequence[Field]) -> str:
    if presents_key(headers):
        return _KEY_UNKNOWN
    return _KEY_OR_TOKEN_MISSING if policy.takes_stream_tokens else _KEY_MISSING


def _is_operators(path: str) -> bool:
    """Tell whether a path could be read as one of the operator's, however it is written."""
    plain = re.sub("/+", "/", unquote(path))
    return f"{plain}/".startswith(_ADMIN_PREFIXES) and plain not in PUBLIC_PATHS
