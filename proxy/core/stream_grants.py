"""What a stream token may be made for: the operator's bounds, and the body that asks for one.

Owns the check of the JSON body of `POST /v1/stream-tokens`, which is made once, here: a `Grant` is
within its bounds, and so is the memory that it takes. It must never see a token's secret, nor know
which tokens there are (`core.stream_tokens`).

A member that is there counts: `null` is no way to leave one out, for a token that was to be bound
to an origin must not come out unbound.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from proxy.core.errors import InvalidRequest
from proxy.core.hosts import split_origin

_MEMBERS = ("ttl_s", "lease_s", "paths", "origin", "max_tokens")
# More than there are routes that a token can be for.
_MAX_PATHS = 16
# `https://`, a name (RFC 1035 section 2.3.4: 253 characters) and `:65535`.
_MAX_ORIGIN_LENGTH = 8 + 253 + 6
# llama-server counts tokens in 32 bits.
_MAX_TOKENS = 2**31 - 1
# A member's name comes from the client, and its message goes into the log.
_SHOWN_NAME_LENGTH = 40
_DEFAULT_PORTS = {"http": 80, "https": 443}

_BAD_ORIGIN = (
    "origin must be the origin of a web page, such as https://app.example: http or https, a host,"
    " a port where it is not the scheme's own, and no path."
)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What the operator allows.

    Args:
        ttl_s: The redeem TTL of a token whose request names none, in seconds, over 0 and up to
            `max_ttl_s`.
        lease_s: The lease likewise, up to `max_lease_s`; 0: none.
        max_ttl_s: The longest redeem TTL that a request may name, in seconds.
        max_lease_s: The longest lease likewise.
        max_outstanding: How many unused tokens there may be at a time, from 1.
        max_per_key: How many of them may be of one API key, from 1. Those issued without a key are
            of one key too.
    """

    ttl_s: float = 10.0
    lease_s: float = 600.0
    max_ttl_s: float = 300.0
    max_lease_s: float = 86400.0
    max_outstanding: int = 10_000
    max_per_key: int = 100


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token is good for.

    Args:
        key_name: The name of the API key that asked for it; None where no key is needed.
        generation: The launch of the engine that it is for: another launch voids it.
        ttl_s: How long it may wait to be used, in seconds, over 0.
        lease_s: How long the stream that it opens may live, in seconds; 0: without end.
        origin: The one web origin that may use it, as browsers send it; None: any, or none.
        paths: The paths that it may be used on; None: any.
        max_tokens: The most model tokens that the answer may have, from 1; None: no bound.

    Raises:
        ValueError: A number is out of the bounds that stand here.
    """

    key_name: str | None
    generation: int
    ttl_s: float
    lease_s: float
    origin: str | None = None
    paths: frozenset[str] | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        # An embedding program makes grants without `read_grant`, and the table's order rests on
        # these: NaN would stay at the head of the heap for ever.
        if not 0 < self.ttl_s < math.inf or not 0 <= self.lease_s < math.inf:
            raise ValueError("ttl_s must be finite and over 0, lease_s finite and from 0")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens must be from 1")


def read_grant(
    fields: Mapping[str, object],
    policy: TokenPolicy,
    *,
    key_name: str | None,
    generation: int,
    known_paths: Collection[str],
) -> Grant:
    """Return what the body of `POST /v1/stream-tokens` asks for.

    A lease of 0 (none) may be asked for only where the operator's own default is none: a client
    cannot lift a bound that the operator has set.

    Args:
        fields: The body, a JSON object, parsed. Every member may be left out.
        policy: The operator's.
        key_name: The name of the API key that asks, if any.
        generation: The engine's present one.
        known_paths: The paths that a token can be for.

    Raises:
        InvalidRequest: A member is unknown, of another type, or out of its bounds; the message
            names it.
    """
    for name in fields:
        if name not in _MEMBERS:
            raise InvalidRequest(
                f"{name[:_SHOWN_NAME_LENGTH]!r} is not a member of this request; there are"
                f" {', '.join(_MEMBERS)}."
            )
    return Grant(
        key_name=key_name,
        generation=generation,
        ttl_s=_read_ttl(fields, policy),
        lease_s=_read_lease(fields, policy),
        origin=_read_origin(fields),
        paths=_read_paths(fields, known_paths),
        max_tokens=_read_max_tokens(fields),
    )


def _read_ttl(fields: Mapping[str, object], policy: TokenPolicy) -> float:
    if "ttl_s" not in fields:
        return policy.ttl_s
    value = fields["ttl_s"]
    if not _is_number(value) or not 0 < value <= policy.max_ttl_s:
        raise InvalidRequest(
            f"ttl_s must be a number of seconds over 0 and up to {policy.max_ttl_s:g}."
        )
    return float(value)


def _read_lease(fields: Mapping[str, object], policy: TokenPolicy) -> float:
    if "lease_s" not in fields:
        return policy.lease_s
    value = fields["lease_s"]
    if policy.lease_s == 0 and _is_number(value) and value == 0:
        return 0.0
    if not _is_number(value) or not 0 < value <= policy.max_lease_s:
        none = ", or 0 for none" if policy.lease_s == 0 else ""
        raise InvalidRequest(
            f"lease_s must be a number of seconds over 0 and up to {policy.max_lease_s:g}{none}."
        )
    return float(value)


def _read_origin(fields: Mapping[str, object]) -> str | None:
    if "origin" not in fields:
        return None
    value = fields["origin"]
    if not isinstance(value, str) or len(value) > _MAX_ORIGIN_LENGTH:
        raise InvalidRequest(_BAD_ORIGIN)
    try:
        as_sent = _as_browsers_send_it(value)
    except ValueError as error:
        raise InvalidRequest(_BAD_ORIGIN) from error
    if value != as_sent:
        raise InvalidRequest(f"origin must be spelled as browsers send it: {as_sent}")
    return value


def _as_browsers_send_it(text: str) -> str:
    """Return an origin in the one spelling that a browser has for it.

    Raises:
        ValueError: It is not the origin of a web page.

    Source: RFC 6454 section 6.2: the scheme's own port is left out.
    """
    scheme, host, port = split_origin(text)
    bracketed = f"[{host}]" if ":" in host else host
    shown_port = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{bracketed}{shown_port}"


def _read_paths(
    fields: Mapping[str, object], known_paths: Collection[str]
) -> frozenset[str] | None:
    if "paths" not in fields:
        return None
    value = fields["paths"]
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_PATHS:
        raise InvalidRequest(f"paths must be a list of 1 to {_MAX_PATHS} paths.")
    # Strings first: what a JSON value can be besides may not be looked up in a set.
    if not all(isinstance(path, str) and path in known_paths for path in value):
        raise InvalidRequest(f"Each of paths must be one of {', '.join(sorted(known_paths))}.")
    return frozenset(value)


def _read_max_tokens(fields: Mapping[str, object]) -> int | None:
    if "max_tokens" not in fields:
        return None
    value = fields["max_tokens"]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_TOKENS:
        raise InvalidRequest(f"max_tokens must be a whole number from 1 to {_MAX_TOKENS}.")
    return value


def _is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a JSON value is a number; Python counts `true` as one.

    NaN and the infinities are. No comparison with a lower and an upper bound holds for them.
    """
    return isinstance(value, int | float) and not isinstance(value, bool)
