"""The URLs that the client asks: the one it was given, and the one that it is told of.

Owns what may be sent where. A chat that is asked for over TLS does not leave without it, and no
certificate is taken unverified but this machine's own. Knows nothing of connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from proxy.core.errors import ConfigError
from proxy.core.hosts import is_loopback_address

_SCHEMES = {"http": False, "https": True}


class _Place(NamedTuple):
    tls: bool
    host: str


@dataclass(frozen=True, slots=True)
class Server:
    """The server that a client was opened for.

    Attributes:
        url: Its base URL, without a slash at its end.
        tls: Whether it speaks TLS.
        verify_by_host: Certificates are verified everywhere but on this machine, and the server is
            on this machine; else what its client was opened with counts for every host.
    """

    url: str
    tls: bool
    verify_by_host: bool

    @classmethod
    def at(cls, url: str, *, verify_by_host: bool) -> Server:
        """Read its base URL.

        Raises:
            ConfigError: It cannot be used. The message does not repeat it, for its password.
        """
        place = _place_of(url)
        if place is None or "?" in url or "#" in url:
            raise ConfigError(
                "The proxy's URL must begin with http:// or https://, name a host, end with the"
                " path, and be plain ASCII without a password."
            )
        local = is_loopback_address(place.host)
        return cls(url.rstrip("/"), place.tls, verify_by_host and local)

    def objection_to(self, url: str) -> str | None:
        """Return why nothing is sent to `url`, which the server told of; None if it may be."""
        place = _place_of(url)
        if place is None:
            return "its URL cannot be used"
        if is_loopback_address(place.host):
            return None
        if self.tls and not place.tls:
            return "its URL leads from TLS to none"
        if place.tls and self.verify_by_host:
            return "its certificate would not be verified"
        return None


def is_visible(text: str) -> bool:
    """Tell whether `text` is ASCII without blanks: what a URL or a header field may hold whole."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _place_of(url: str) -> _Place | None:
    """Return where `url` leads; None when it cannot be asked."""
    if not is_visible(url):
        return None
    try:
        parts = urlsplit(url)
        host, scheme, _ = parts.hostname, parts.scheme, parts.port
    except ValueError:
        return None
    # httpx would make a credential of what stands before an @.
    if not host or scheme not in _SCHEMES or "@" in parts.netloc:
        return None
    return _Place(_SCHEMES[scheme], host)
