"""Which header fields cross the proxy, in each direction.

Owns the policy for fields: hop-by-hop fields end here, the client's credentials end here,
everything else passes with its order, its duplicates and its spelling (some clients' plain
dictionaries care). Must never know a body or decide its framing: `Content-Length` and
`Transfer-Encoding` towards llama-server are its client's, towards our client they are the
listener's.

What is added is `Host`, `Authorization` and `X-Request-Id` towards llama-server, `X-Request-Id`
towards the client, and `Via` or `Forwarded` where the operator asks for them. They are added
after the filter, so that no `Connection` header can take them away.

Source: RFC 9110 sections 7.6.1 (Connection), 7.6.3 (Via) and 11.7; RFC 7239 (Forwarded).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

Field = tuple[bytes, bytes]

# RFC 9110 section 7.6.1 names these as fields that an intermediary removes even where Connection
# does not list them; Keep-Alive is RFC 2068's, Proxy-Authenticate and Proxy-Authorization section
# 11.7's. Trailer goes since trailers are not relayed.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

# "A sender MUST NOT send a connection option corresponding to a field that is intended for all
# recipients of the content" (RFC 9110 section 7.6.1). Obeying one that does would let a peer take
# away what says where a message ends, whom it is for, or how its bytes are read. Hence these
# stay.
_NEVER_AN_OPTION = frozenset(
    {
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"cache-control",
        b"date",
        b"host",
        b"location",
        b"set-cookie",
        b"vary",
    }
)

# What belongs to the connection with us and is said anew to llama-server: whom we call, how the
# body ends, and 100-continue, which the listener has answered (RFC 9110 section 10.1.1).
_OURS_TO_SAY = frozenset({b"host", b"content-length", b"expect", b"x-request-id"})

# A client's credentials are for us. llama-server's key is ours; it has no use for anybody's
# cookies.
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"cookie", b"x-stream-token"})

_DROPPED_UPSTREAM = _HOP_BY_HOP | _OURS_TO_SAY | _CREDENTIALS

# With this header llama-server goes on generating after its client left.
_CONVERSATION_ID = b"x-conversation-id"

_ONCE = frozenset({b"date", b"server"})
_CORS_PREFIX = b"access-control-"
_VIA = (b"Via", b"1.1 llama-proxy")

# Visible ASCII: what fits into a header, a log line and a URL without quoting. 128 is room for
# two UUIDs and a prefix; more would only fill logs.
_SANE_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


def to_upstream(
    headers: Iterable[Field],
    *,
    authority: str,
    api_key: str | None,
    request_id: str,
    forward_conversation_id: bool = False,
    via: bool = False,
    forwarded_for: str | None = None,
) -> list[Field]:
    """Return the header fields to send to llama-server, without those that frame the body.

    Args:
        headers: The client's, in its order and spelling.
        authority: What llama-server is called by: `host` or `host:port`.
        api_key: llama-server's own key; None where it has none.
        request_id: The exchange's, sane.
        forward_conversation_id: Pass `X-Conversation-Id` on.
        via: Append `Via`.
        forwarded_for: The client's address, to append `Forwarded`; None for no such field.

    Source: RFC 9110 section 7.6.1.
    """
    fields = list(headers)
    dropped = _DROPPED_UPSTREAM | _connection_options(fields)
    if not forward_conversation_id:
        dropped |= {_CONVERSATION_ID}
    # Host first: RFC 9110 section 7.2 asks for it.
    found = [(b"Host", authority.encode("ascii"))]
    found += [field for field in fields if field[0].lower() not in dropped]
    if api_key is not None:
        found.append((b"Authorization", b"Bearer " + api_key.encode("ascii")))
    found.append((b"X-Request-Id", request_id.encode("ascii")))
    if via:
        found.append(_VIA)
    if forwarded_for is not None:
        found.append((b"Forwarded", b"for=" + _forwarded_node(forwarded_for)))
    return found


def to_client(
    headers: Iterable[Field], *, request_id: str, via: bool = False, own_cors: bool = True
) -> list[Field]:
    """Return the header fields of llama-server's response for the client.

    Args:
        headers: llama-server's, in its order and spelling.
        request_id: The exchange's, sane; it replaces any of llama-server's.
        via: Append `Via`.
        own_cors: CORS is decided by us (`core.access`), so llama-server's fields for it are
            dropped.

    Source: RFC 9110 section 7.6.1.
    """
    fields = list(headers)
    dropped = _HOP_BY_HOP | _connection_options(fields) | {b"x-request-id"}
    if any(name.lower() == b"transfer-encoding" for name, _ in fields):
        # RFC 9112 section 6.3: the length of a message that is also chunked is removed, not
        # forwarded.
        dropped |= {b"content-length"}
    found: list[Field] = []
    seen: set[bytes] = set()
    for field in fields:
        name = field[0].lower()
        if name in dropped or name in seen or (own_cors and name.startswith(_CORS_PREFIX)):
            continue
        if name in _ONCE:
            seen.add(name)
        found.append(field)
    found.append((b"X-Request-Id", request_id.encode("ascii")))
    if via:
        found.append(_VIA)
    return found


def request_id(candidate: bytes | None, make: Callable[[], str]) -> str:
    """Return the client's request id if it is 1 to 128 visible ASCII characters, else `make()`."""
    if candidate is not None and _SANE_REQUEST_ID.fullmatch(candidate):
        return candidate.decode("ascii")
    return make()


def _connection_options(fields: Iterable[Field]) -> frozenset[bytes]:
    options: set[bytes] = set()
    for name, value in fields:
        if name.lower() == b"connection":
            options.update(option.strip(b" \t").lower() for option in value.split(b","))
    return frozenset(options - _NEVER_AN_OPTION)


def _forwarded_node(host: str) -> bytes:
    """Return `host` as a node of RFC 7239 section 6; a socket without an address is `unknown`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return b"unknown"
    # The brackets and colons of IPv6 are not token characters, so it is quoted.
    return (f'"[{address}]"' if address.version == 6 else str(address)).encode("ascii")
