"""The request target in its four forms, and the host it is meant for.

Owns which targets are taken, how each becomes the origin-form (or `*`) that is handed on, and what
a valid authority is. Must never know which hosts or paths exist (`core.access`, `core.routes`);
decodes nothing.

A path is checked against the grammar of RFC 3986, percent-encoding included: software behind us
decodes it, and readings of a malformed one differ. `%00` is legal there but refused: a C string
ends at it (RFC 3986 section 7.3). A query is nobody's path, so there a lone `%` and the characters
that browsers send unencoded are passed on as they are.

Source: RFC 9112 section 3.2; RFC 9110 sections 4.2 and 7.2; RFC 3986 sections 3.2 to 3.5.
"""

from __future__ import annotations

import ipaddress
import re

from proxy.core.errors import InvalidRequest

_PCHAR = rb"[A-Za-z0-9._~!$&'()*+,;=:@/-]"
_PATH = re.compile(rb"/(?:" + _PCHAR + rb"|%[0-9A-Fa-f]{2})*")
# Beyond RFC 3986: a lone % and [ ] { } | ^ ` \ which browsers leave as typed in a query (WHATWG
# URL, "query percent-encode set"). None of them means anything to a reader of HTTP/1.1.
_QUERY = re.compile(rb"(?:" + _PCHAR + rb"|[?%\[\]{}|^`\\])*")
_ABSOLUTE = re.compile(rb"(?i:https?)://(?P<authority>[^/?]*)(?P<rest>.*)")
# A port of six digits is none, so the number needs no bound before it is converted.
_AUTHORITY = re.compile(
    rb"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_HIGHEST_PORT = 65535


def read_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Return the target in origin-form (or `*`), and the authority of an absolute-form one.

    Args:
        method: The request's method, as it came.
        target: The request target, as it came; not empty.

    Raises:
        InvalidRequest: The form is not one for this method, a character must be percent-encoded,
            the scheme is not http or https, or there is user information or a fragment.

    Source: RFC 9112 sections 3.2.1 to 3.2.4.
    """
    if b"#" in target:
        raise InvalidRequest("The request target has a fragment ('#...'); leave it out.")
    if target == b"*":
        if method != b"OPTIONS":
            raise InvalidRequest("The request target '*' is for OPTIONS only.")
        return target, None
    if target.startswith(b"/"):
        return _checked_origin_form(target), None
    return _read_absolute_form(method, target)


def _read_absolute_form(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise InvalidRequest(
            "The request target must be a path, beginning with '/', or an http URL."
        )
    authority, rest = found["authority"], found["rest"]
    if b"@" in authority:
        # RFC 9110 section 4.2.4: it is there to deceive about the host.
        raise InvalidRequest("The URL in the request line has user information; leave it out.")
    if not names_host(authority):
        raise InvalidRequest("The URL in the request line has no valid host.")
    if not rest and method == b"OPTIONS":
        # RFC 9112 section 3.2.4: that is how `OPTIONS *` looks when it is sent to a proxy.
        return b"*", authority
    return _checked_origin_form(rest if rest.startswith(b"/") else b"/" + rest), authority


def _checked_origin_form(target: bytes) -> bytes:
    path, _, query = target.partition(b"?")
    if _PATH.fullmatch(path) is None or _QUERY.fullmatch(query) is None:
        raise InvalidRequest("The request target has a character that must be percent-encoded.")
    if b"%00" in path:
        raise InvalidRequest("The path of the request target has a NUL ('%00') in it; remove it.")
    return target


def is_authority(value: bytes) -> bool:
    """Return whether that is `uri-host [ ":" port ]`, of which an empty name is one too.

    Stricter than the grammar in two points: an IPvFuture literal and a port over 65535 are not
    accepted, for nobody can be reached at them.

    Source: RFC 9110 section 7.2; RFC 3986 section 3.2.
    """
    found = _AUTHORITY.fullmatch(value)
    if found is None or int(found["port"] or 0) > _HIGHEST_PORT:
        return False
    return found["v6"] is None or _is_ipv6(found["v6"])


def names_host(value: bytes) -> bool:
    """Return whether that is an authority with a host in it, which every http URI has.

    Source: RFC 9110 section 4.2.1.
    """
    return is_authority(value) and value.partition(b":")[0] != b""


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True
