"""The header fields that decide where a request ends, whom it is for, and whether more may follow.

Owns the rules on Host, Transfer-Encoding, Content-Length, Expect, Connection and Upgrade, and how
each of them is handed on. Must never know which hosts are allowed, nor look at any other field.

Statuses that RFC 9110 has and this project's table of errors lacks (417, 501) are answered with
400.

Source: RFC 9112 sections 3.2, 3.3, 6.1 to 6.3 and 9.3; RFC 9110 sections 7.2, 7.8, 8.6 and 10.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxy.core.errors import InvalidRequest
from proxy.core.request_limits import LENGTH_DIGITS, Limits
from proxy.core.request_target import is_authority, names_host

Field = tuple[bytes, bytes]

_DIGITS = re.compile(rb"[0-9]+")

# RFC 9110 section 7.8 lets a server ignore an upgrade. None is offered here, and an application
# that saw the wish could only grant what nobody here can speak.
_UPGRADE_FIELDS = frozenset({b"upgrade", b"http2-settings"})


def read_host(fields: Sequence[Field], version: bytes, authority: bytes | None) -> bytes | None:
    """Return the one Host to hand on; None only in HTTP/1.0, which does not require one.

    Args:
        fields: The head's fields.
        version: `1.1` or `1.0`.
        authority: That of an absolute-form target, valid.

    Raises:
        InvalidRequest: Host is missing in HTTP/1.1, there is more than one, or it is not valid.

    Source: RFC 9112 sections 3.2, 3.2.2 and 3.3.
    """
    hosts = _values(fields, b"host")
    if len(hosts) > 1:
        raise InvalidRequest("The request has more than one Host header; send one.")
    if not hosts and version == b"1.1":
        raise InvalidRequest("The request has no Host header, which HTTP/1.1 requires.")
    if hosts and not is_authority(hosts[0]):
        raise InvalidRequest("The Host header is not a valid host name with an optional port.")
    if authority is not None:
        # Section 3.2.2: what the target says replaces what Host says.
        return authority
    if hosts and not names_host(hosts[0]):
        # Empty is for a URI without an authority, and every http URI has one (RFC 9110 section
        # 4.2.1).
        raise InvalidRequest("The Host header is empty; send the name of this server.")
    return hosts[0] if hosts else None


def read_body_length(
    fields: Sequence[Field], version: bytes, limits: Limits
) -> tuple[int | None, bool]:
    """Return what Content-Length says, or None, and whether the body is chunked; never both.

    Args:
        fields: The head's fields.
        version: `1.1` or `1.0`.
        limits: Those of the listener.

    Raises:
        InvalidRequest: Where the body ends is said twice, or in a way that can be read in two ways.
        BodyTooLarge: The length is over the limit.

    Source: RFC 9112 sections 6.1 to 6.3.
    """
    chunked = _is_chunked(fields, version)
    length = _read_content_length(fields, limits)
    if chunked and length is not None:
        raise InvalidRequest("The request has Content-Length and Transfer-Encoding; send only one.")
    return length, chunked


def expects_continue(fields: Sequence[Field], version: bytes) -> bool:
    """Return whether the client asks for `100 Continue`.

    Raises:
        InvalidRequest: It expects anything else.

    Source: RFC 9110 section 10.1.1: in HTTP/1.0 an expectation MUST be ignored.
    """
    if version == b"1.0":
        return False
    members = _members(fields, b"expect")
    if any(member != b"100-continue" for member in members):
        raise InvalidRequest("The only expectation that is accepted is 'Expect: 100-continue'.")
    return bool(members)


def keeps_alive(fields: Sequence[Field], version: bytes) -> bool:
    """Return whether the client's side of the connection outlives this request.

    Args:
        fields: The head's fields.
        version: `1.1` or `1.0`.

    Source: RFC 9112 section 9.3: `close` wins; HTTP/1.0 must ask for `keep-alive`.
    """
    options = _members(fields, b"connection")
    return b"close" not in options and (version == b"1.1" or b"keep-alive" in options)


def fields_to_hand_on(
    fields: Sequence[Field], version: bytes, host: bytes | None, length: int | None
) -> tuple[Field, ...]:
    """Return the fields in the one spelling that every reader understands alike, in their order.

    Args:
        fields: The head's fields, found valid by the functions above.
        version: `1.1` or `1.0`.
        host: What `read_host` returned.
        length: What `read_body_length` returned.
    """
    rewritten: dict[bytes, bytes | None] = dict.fromkeys(_UPGRADE_FIELDS)
    rewritten[b"host"] = host
    rewritten[b"content-length"] = None if length is None else b"%d" % length
    rewritten[b"transfer-encoding"] = b"chunked"
    if version == b"1.0":
        rewritten[b"expect"] = None
    handed_on: list[Field] = []
    if host is not None and not _values(fields, b"host"):
        handed_on.append((b"Host", host))
    for name, value in fields:
        lower = name.lower()
        written = rewritten.get(lower, value)
        if lower == b"connection":
            written = _without_upgrade(value)
        if written is not None:
            handed_on.append((name, written))
    return tuple(handed_on)


def _values(fields: Sequence[Field], name: bytes) -> list[bytes]:
    return [value for found, value in fields if found.lower() == name]


def _members(fields: Sequence[Field], name: bytes) -> list[bytes]:
    """Return the members of a list field, in lower case."""
    joined = b",".join(_values(fields, name)).lower()
    return [member.strip(b" \t") for member in joined.split(b",") if joined]


def _is_chunked(fields: Sequence[Field], version: bytes) -> bool:
    codings = _values(fields, b"transfer-encoding")
    if not codings:
        return False
    if version == b"1.0":
        # Section 6.1: MUST be taken for faulty, for an HTTP/1.0 hop may have passed it on unread.
        raise InvalidRequest("HTTP/1.0 has no Transfer-Encoding; send Content-Length instead.")
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        raise InvalidRequest("The only Transfer-Encoding that is accepted is 'chunked', once.")
    return True


def _read_content_length(fields: Sequence[Field], limits: Limits) -> int | None:
    lengths = _values(fields, b"content-length")
    if not lengths:
        return None
    # Section 6.3 lets a recipient take or refuse equal values that are repeated. Whoever sends them
    # is broken or probing, so they are refused.
    if len(lengths) > 1 or _DIGITS.fullmatch(lengths[0]) is None:
        raise InvalidRequest("The request must have one Content-Length, a plain decimal number.")
    # Cut before it is converted, which Python refuses for thousands of digits.
    length = int(lengths[0].lstrip(b"0")[: LENGTH_DIGITS + 1] or b"0")
    limits.check_body(length)
    return length


def _without_upgrade(connection: bytes) -> bytes | None:
    """Return the connection options less those of an upgrade; None if there were no others."""
    options = connection.split(b",")
    kept = [option for option in options if option.strip(b" \t").lower() not in _UPGRADE_FIELDS]
    if len(kept) == len(options):
        return connection
    return b",".join(kept).strip(b" \t") or None
