"""Webhooks as a prediction's request has them: for which events, and where they go.

Owns the checks of both fields. It must never resolve a name: that is done when a webhook is sent,
and the address is checked then (`webhook_addresses`). When they are sent is `webhook_pacing`'s.

Source: Cog, `docs/http.md` (Webhooks), and coglet 0.23.1 as it answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.core.hosts import host_name, is_loopback_name, split_host
from proxy.core.predictions.webhook_addresses import is_allowed_address

# Longer than any receiver's address; a token in a query has its place.
MAX_URL_BYTES: Final = 2048
# Enough to recognise a wrong word by; the rest of it could be as long as a body.
_TOLD_CHARACTERS = 64

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE,
)
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]*")
# `split_host` takes what a Host header may say; a name that is resolved has labels (RFC 1123
# section 2.1), and in private networks underscores.
_LABEL = "[a-z0-9_][a-z0-9_-]{0,62}"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class WebhookEvent(Enum):
    """What a receiver may be told of."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


ALL_EVENTS: Final = frozenset(WebhookEvent)
_BY_NAME = {event.value: event for event in WebhookEvent}
_EXPECTED = ", ".join(f"`{name}`" for name in _BY_NAME)


class InvalidFilter(ValueError):
    """A `webhook_events_filter` that cannot be followed; its text is for the client.

    Attributes:
        index: Which of its entries is wrong; None if it is no list.
        value: What stands there.
    """

    def __init__(self, message: str, index: int | None, value: object) -> None:
        super().__init__(message)
        self.index = index
        self.value = value


class InvalidUrl(ValueError):
    """A `webhook` to which nothing can or may be sent; its text is for the client."""


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """Where a receiver is, in parts.

    Attributes:
        scheme: `http` or `https`.
        host: The name or address, in its comparison form (`core.hosts`).
        port: The TCP port.
        target: Path and query. Never logged: queries have tokens in them.
    """

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)

    @property
    def authority(self) -> str:
        """What a Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_filter(value: object) -> frozenset[WebhookEvent]:
    """Return the events that a `webhook_events_filter` asks for.

    Args:
        value: The field as JSON has it; None if there is none, which asks for all.

    Raises:
        InvalidFilter: It is no list, or an entry is no event.
    """
    if value is None:
        return ALL_EVENTS
    if not isinstance(value, list):
        raise InvalidFilter("expected a sequence", None, value)
    return frozenset(_event(index, name) for index, name in enumerate(value))


def _event(index: int, name: object) -> WebhookEvent:
    if not isinstance(name, str):
        raise InvalidFilter(f"expected one of {_EXPECTED}", index, name)
    event = _BY_NAME.get(name)
    if event is None:
        told = name[:_TOLD_CHARACTERS]
        raise InvalidFilter(f"unknown variant `{told}`, expected one of {_EXPECTED}", index, name)
    return event


def check_url(text: str, *, allow_private: bool = False) -> WebhookUrl:
    """Return the parts of a `webhook`.

    Names are taken as they are, but for those that always mean this machine.

    Args:
        text: The URL. A fragment is dropped: it is nothing to a server.
        allow_private: Whether this machine and private networks are allowed.

    Raises:
        InvalidUrl: It is no URL of http or https that we send to.
    """
    if len(text) > MAX_URL_BYTES:
        raise InvalidUrl(f"URL is longer than {MAX_URL_BYTES} bytes")
    if _VISIBLE_ASCII.fullmatch(text) is None:
        raise InvalidUrl("URL has characters that must be percent-encoded")
    found = _URL.fullmatch(text)
    if found is None:
        raise InvalidUrl("URL must begin with http:// or https://")
    scheme = found["scheme"].lower()
    host, port = _host_and_port(found["authority"])
    if not _may_be_asked(host, allow_private):
        raise InvalidUrl("URL leads to this machine or a private network, which is not allowed")
    target = (found["path"] or "/") + (found["query"] or "")
    return WebhookUrl(scheme, host, _DEFAULT_PORTS[scheme] if port is None else port, target)


def _host_and_port(authority: str) -> tuple[str, int | None]:
    # A name before the host makes people take it for the host, and the receiver would get it as a
    # password beside the token that we send.
    if "@" in authority:
        raise InvalidUrl("URL must not have a user name or password")
    try:
        host, port = split_host(authority)
        host = host_name(host)
    except ValueError:
        raise InvalidUrl("URL has no valid host and port") from None
    if port == 0 or not (":" in host or _NAME.fullmatch(host)):
        raise InvalidUrl("URL has no valid host and port")
    return host, port


def _may_be_asked(host: str, allow_private: bool) -> bool:
    if is_loopback_name(host):
        return allow_private
    try:
        return is_allowed_address(host, allow_private)
    except ValueError:
        return True
